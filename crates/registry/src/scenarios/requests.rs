//! Mounts and unmounts of named volumes, with all that engines do wrong.

use super::*;

#[tokio::test]
async fn a_volume_is_mounted_once_and_goes_with_its_last_reference() {
    let story = Story::with_volume("a").await;
    let first = story.mount(&docker("a", "1")).await.unwrap();
    assert_eq!(first.path, story.dir.path().join("mounts/a"));
    assert_eq!(story.mount(&docker("a", "2")).await.unwrap(), first);
    assert_eq!(story.world.facts.lock().attaches, 1);
    let references = vec!["docker|a|1".to_owned(), "docker|a|2".to_owned()];
    assert_eq!(story.shown("a").await, Some((MountState::Live, references)));
    story.unmount(&docker("a", "1")).await;
    assert!(story.is_mounted("a"));
    story.unmount(&docker("a", "2")).await;
    assert!(!story.is_mounted("a"));
    assert_eq!(story.shown("a").await, None);
    story.world.assert_clean();
}

#[tokio::test]
async fn a_repeated_mount_is_one_reference_and_an_unknown_unmount_succeeds() {
    let story = Story::with_volume("a").await;
    for _ in 0..3 {
        story.mount(&docker("a", "1")).await.unwrap();
    }
    story.unmount(&docker("a", "unknown")).await;
    story.unmount(&docker("b", "1")).await;
    assert!(story.is_mounted("a"));
    story.unmount(&docker("a", "1")).await;
    story.unmount(&docker("a", "1")).await;
    assert!(!story.is_mounted("a"));
}

#[tokio::test]
async fn docker_cp_with_the_running_containers_id_does_not_take_its_mount() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    assert!(story.world.start_container(7, &key("a")));
    story.mount(&docker("a", "1")).await.unwrap();
    story.unmount(&docker("a", "1")).await;
    let mounts = story.registry.mounts().await;
    assert_eq!(mounts[0].state, MountState::Live);
    assert!(mounts[0].references.is_empty() && mounts[0].in_use_without_reference);
    // Long after, it is still in use; once the container ends it goes.
    story.sweep(LATER).await;
    assert!(story.is_mounted("a"));
    story.world.stop_container(7);
    story.unmount(&docker("a", "1")).await;
    story.sweep(Duration::ZERO).await;
    assert!(!story.is_mounted("a"));
    story.world.assert_clean();
}

#[tokio::test]
async fn a_late_unmount_before_a_queued_mount_with_the_same_id_leaves_it_mounted() {
    let story = Story::with_volume("a").await;
    story.world.facts.lock().attach_hangs = true;
    let registry = story.registry.clone();
    let first = tokio::spawn(async move {
        registry.acquire_named(DRIVER, &name("a"), &docker("a", "0"), &Target::Shared).await
    });
    story.world.stopped.notified().await;
    // The volume is busy: these three stand in line, in this order.
    let one = docker("a", "1");
    let (mounted, (), again) = {
        let mount = story.mount(&one);
        let unmount = story.unmount(&one);
        let again = story.mount(&one);
        let resume = async { story.world.resume.notify_one() };
        let (mounted, (), again, ()) = tokio::join!(mount, unmount, again, resume);
        (mounted, (), again)
    };
    first.await.unwrap().unwrap();
    assert_eq!(mounted.unwrap(), again.unwrap());
    story.unmount(&docker("a", "0")).await;
    assert_eq!(story.shown("a").await, Some((MountState::Live, vec!["docker|a|1".into()])));
    story.world.assert_clean();
}

#[tokio::test]
async fn four_mounts_at_once_attach_once() {
    let story = Story::with_volume("a").await;
    let ids: Vec<_> = (0..4).map(|n| docker("a", &n.to_string())).collect();
    let (a, b, c, d) =
        tokio::join!(story.mount(&ids[0]), story.mount(&ids[1]), story.mount(&ids[2]), story.mount(&ids[3]));
    assert!(a.is_ok() && b.is_ok() && c.is_ok() && d.is_ok());
    assert_eq!(story.world.facts.lock().attaches, 1);
    assert_eq!(story.shown("a").await.unwrap().1.len(), 4);
}

#[tokio::test]
async fn a_failed_mount_leaves_nothing_and_its_unmount_succeeds() {
    let story = Story::with_volume("a").await;
    story.world.facts.lock().attach_fault = Some(FaultKind::Untrusted);
    let error = story.mount(&docker("a", "1")).await.unwrap_err();
    assert_eq!(error.kind, FaultKind::Untrusted);
    assert_eq!(story.shown("a").await, None);
    let info = story.registry.get(DRIVER, &name("a")).await.unwrap();
    assert_eq!(info.mountpoint, None);
    assert!(info.mount.unwrap().last_error.unwrap().contains("pretend"));
    story.unmount(&docker("a", "1")).await;
    story.world.facts.lock().attach_fault = None;
    story.mount(&docker("a", "1")).await.unwrap();
    assert!(story.is_mounted("a"));
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_no_reference_and_finds_the_mount_when_it_comes_again() {
    let story = Story::with_volume("a").await;
    story.world.facts.lock().attach_hangs = true;
    let one = podman("a");
    {
        let mut mount = Box::pin(story.mount(&one));
        tokio::select! {
            _ = &mut mount => panic!("it hangs"),
            () = story.world.stopped.notified() => {}
        }
    }
    story.world.resume.notify_one();
    // The next one waits for the lane, so the undoing is over when it begins.
    story.mount(&podman("a")).await.unwrap();
    assert_eq!(story.world.facts.lock().attaches, 1);
    story.unmount(&one).await;
    assert!(!story.is_mounted("a"));
    assert_eq!(story.registry.core().lanes.held(), 0);
    assert_eq!(story.registry.core().keys.held(), 0);
}

#[tokio::test]
async fn a_mount_that_nobody_comes_back_for_goes_after_a_while() {
    let story = Story::with_volume("a").await;
    story.world.facts.lock().attach_hangs = true;
    let one = docker("a", "1");
    {
        let mut mount = Box::pin(story.mount(&one));
        tokio::select! {
            _ = &mut mount => panic!("it hangs"),
            () = story.world.stopped.notified() => {}
        }
    }
    story.world.resume.notify_one();
    // In line behind the undoing.
    story.unmount(&one).await;
    assert_eq!(story.shown("a").await, Some((MountState::Live, vec![])));
    story.sweep(Duration::from_secs(59)).await;
    assert!(story.is_mounted("a"));
    story.sweep(Duration::from_secs(61)).await;
    assert!(!story.is_mounted("a"));
}

#[tokio::test]
async fn a_request_whose_caller_left_the_queue_never_happens() {
    let story = Story::with_volume("a").await;
    story.world.facts.lock().attach_hangs = true;
    let (zero, one) = (docker("a", "0"), docker("a", "1"));
    let registry = story.registry.clone();
    let first =
        tokio::spawn(async move { registry.acquire_named(DRIVER, &name("a"), &zero, &Target::Shared).await });
    story.world.stopped.notified().await;
    assert!(timeout(Duration::from_millis(10), story.mount(&one)).await.is_err());
    story.world.resume.notify_one();
    first.await.unwrap().unwrap();
    assert_eq!(story.shown("a").await.unwrap().1, ["docker|a|0"]);
}

#[tokio::test]
async fn a_backend_that_never_answers_gives_an_error_in_time_and_frees_the_key() {
    let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
    let registry = world.open_with(dir.path(), |config| config.acquire = Duration::from_millis(50)).await;
    registry.ready().await;
    let story = Story { dir, world, registry };
    story.define("a", &[]).await.unwrap();
    story.world.facts.lock().attach_hangs = true;
    let error = story.mount(&docker("a", "1")).await.unwrap_err();
    assert_eq!(error.kind, FaultKind::DeadlineExceeded);
    story.unmount(&docker("a", "1")).await;
    assert_eq!(story.shown("a").await, None);
    assert_eq!(story.registry.core().keys.held(), 0);
}

#[tokio::test]
async fn a_dead_mount_is_healed_by_the_next_request() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.world.kill(&key("a"));
    story.registry.core().look_at_all().await;
    assert_eq!(story.shown("a").await.unwrap().0, MountState::Stale);
    story.mount(&docker("a", "2")).await.unwrap();
    assert_eq!(story.shown("a").await.unwrap().0, MountState::Live);
    assert_eq!(story.shown("a").await.unwrap().1.len(), 2);
    story.world.assert_clean();
}

#[tokio::test]
async fn a_mount_that_somebody_unmounted_by_hand_is_made_again() {
    let story = Story::with_volume("a").await;
    let path = story.mount(&docker("a", "1")).await.unwrap().path;
    story.world.facts.lock().mounts.remove(&path);
    story.mount(&docker("a", "1")).await.unwrap();
    assert!(story.world.facts.lock().mounts.contains_key(&path));
}
