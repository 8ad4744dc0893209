//! Defining and removing volumes.

use super::*;

#[tokio::test]
async fn defining_again_changes_nothing_unless_the_options_differ() {
    let story = Story::new().await;
    story.define("v", &[("repository", "cms.cern.ch")]).await.unwrap();
    story.define("v", &[("repository", "cms.cern.ch")]).await.unwrap();
    story.define("v", &[]).await.unwrap();
    let error = story.define("v", &[("repository", "lhcb.cern.ch")]).await.unwrap_err();
    assert_eq!(error.kind, FaultKind::AlreadyExists);
    assert!(error.detail.contains("cms.cern.ch") && error.detail.contains("lhcb.cern.ch"), "{error}");
    let info = story.registry.get(DRIVER, &name("v")).await.unwrap();
    assert_eq!(info.spec, spec("cms.cern.ch"));
    assert_eq!(story.define("w", &[("colour", "red")]).await.unwrap_err().kind, FaultKind::InvalidArgument);
    assert_eq!(story.registry.list(DRIVER).await.unwrap().len(), 1);
    let story = story.restart().await;
    assert_eq!(story.registry.get(DRIVER, &name("v")).await.unwrap().spec, spec("cms.cern.ch"));
}

#[tokio::test]
async fn removing_a_volume_that_a_container_sees_is_refused() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.world.start_container(1, &key("a"));
    let error = story.registry.remove(DRIVER, &name("a")).await.unwrap_err();
    assert_eq!(error.kind, FaultKind::InUse);
    // Also when its references were lost.
    story.unmount(&docker("a", "1")).await;
    assert_eq!(story.registry.remove(DRIVER, &name("a")).await.unwrap_err().kind, FaultKind::InUse);
    story.world.stop_container(1);
    story.registry.remove(DRIVER, &name("a")).await.unwrap();
    assert!(!story.is_mounted("a"));
    assert_eq!(story.registry.remove(DRIVER, &name("a")).await.unwrap_err().kind, FaultKind::NotFound);
    story.world.assert_clean();
}

#[tokio::test]
async fn removing_a_volume_ends_its_leaked_references() {
    let story = Story::with_volume("a").await;
    story.define("b", &[("repository", "a")]).await.unwrap();
    story.mount(&docker("a", "leaked")).await.unwrap();
    story.mount(&docker("b", "1")).await.unwrap();
    story.registry.remove(DRIVER, &name("a")).await.unwrap();
    assert_eq!(story.shown("a").await, Some((MountState::Live, vec!["docker|b|1".into()])));
    story.registry.remove(DRIVER, &name("b")).await.unwrap();
    assert!(!story.is_mounted("a"));
}

#[tokio::test]
async fn removing_a_name_of_a_mount_that_is_used_by_another_name_only_is_fine() {
    let story = Story::with_volume("a").await;
    story.define("b", &[("repository", "a")]).await.unwrap();
    story.mount(&docker("a", "1")).await.unwrap();
    story.mount(&docker("b", "1")).await.unwrap();
    story.unmount(&docker("a", "1")).await;
    story.world.start_container(1, &key("a"));
    story.registry.remove(DRIVER, &name("a")).await.unwrap();
    assert!(story.is_mounted("a"));
    story.world.assert_clean();
}

#[tokio::test]
async fn the_volume_a_name_stands_for_can_change_and_the_reference_moves() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.registry.remove(DRIVER, &name("a")).await.unwrap();
    story.define("a", &[("repository", "other")]).await.unwrap();
    // As if the removal had not found it (an engine's own bookkeeping): the same id, another mount.
    let reference = docker("a", "1");
    story.registry.acquire(&spec("a"), &reference, &Target::Shared, &DOCKER).await.unwrap();
    story.mount(&reference).await.unwrap();
    assert!(!story.is_mounted("a") && story.is_mounted("other"));
    story.world.assert_clean();
}

#[tokio::test]
async fn what_podman_defines_is_mounted_before_its_first_mount() {
    let story = Story::new().await;
    let caller = Caller::admin(Frontend::Podman);
    story.registry.define(DRIVER, &name("a"), &OptionMap::new(), &caller).await.unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while story.shown("a").await != Some((MountState::Live, vec![])) {
        assert!(Instant::now() < end);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    story.sweep(Duration::from_secs(50)).await;
    story.mount(&podman("a")).await.unwrap();
    assert_eq!(story.world.facts.lock().attaches, 1);
    story.unmount(&podman("a")).await;
    assert!(!story.is_mounted("a"));
    story.world.assert_clean();
}
