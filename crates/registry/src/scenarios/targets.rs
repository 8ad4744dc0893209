//! Binds onto the places that callers name.

use super::*;

#[tokio::test]
async fn a_target_is_bound_healed_and_freed() {
    let story = Story::new().await;
    let target = story.path("x");
    assert_eq!(story.publish("a", "x").await.unwrap().path, target);
    story.publish("a", "x").await.unwrap();
    let live = story.world.facts.lock().served[&key("a")];
    assert_eq!(story.world.facts.lock().mounts[&target].device, live);
    // The mount dies; another target's request heals this one too.
    story.world.kill(&key("a"));
    story.publish("a", "y").await.unwrap();
    let anew = story.world.facts.lock().served[&key("a")];
    assert_eq!(story.world.facts.lock().mounts[&target].device, anew);
    story.unpublish("x").await.unwrap();
    assert!(!story.world.facts.lock().mounts.contains_key(&target));
    assert!(story.is_mounted("a"));
    story.unpublish("y").await.unwrap();
    assert!(!story.is_mounted("a"));
    story.world.assert_clean();
}

#[tokio::test]
async fn what_somebody_else_mounted_at_a_target_is_never_touched() {
    let story = Story::new().await;
    let target = story.path("x");
    let device = "8:1".parse().unwrap();
    let theirs = crate::kernel::Mounted { path: target.clone(), device, fs_type: "ext4".into() };
    story.world.facts.lock().mounts.insert(target.clone(), theirs.clone());
    assert_eq!(story.publish("a", "x").await.unwrap_err().kind, FaultKind::AlreadyExists);
    assert!(!story.is_mounted("a"));
    assert_eq!(story.world.facts.lock().mounts[&target], theirs);
    story.unpublish("x").await.unwrap();
    assert_eq!(story.world.facts.lock().mounts[&target], theirs);
}

#[tokio::test]
async fn a_failed_bind_leaves_no_mount_behind() {
    let story = Story::new().await;
    story.world.facts.lock().bind_fault = Some(FaultKind::PermissionDenied);
    assert_eq!(story.publish("a", "x").await.unwrap_err().kind, FaultKind::PermissionDenied);
    assert_eq!(story.shown("a").await, None);
    assert!(story.world.facts.lock().mounts.is_empty());
}

#[tokio::test]
async fn targets_that_could_lead_elsewhere_are_refused() {
    let story = Story::new().await;
    for bad in ["relative", "/a/../b", "/", "/a//b", "/a/./b", "/a/"] {
        let at = Target::Bind(volume::BindTarget::directory(bad));
        let got = story.registry.acquire(&spec("a"), &csi(bad), &at, &Caller::admin(Frontend::Csi)).await;
        assert_eq!(got.unwrap_err().kind, FaultKind::InvalidArgument, "{bad}");
    }
    let inside = Target::Bind(volume::BindTarget::directory(story.dir.path().join("mounts/a")));
    let got = story.registry.acquire(&spec("a"), &csi("x"), &inside, &DOCKER).await;
    assert_eq!(got.unwrap_err().kind, FaultKind::InvalidArgument);
}

#[tokio::test]
async fn kubelets_retry_of_a_running_request_is_busy() {
    let story = Story::new().await;
    story.world.facts.lock().attach_hangs = true;
    let (first, retry) = tokio::join!(story.publish("a", "x"), async {
        story.world.stopped.notified().await;
        let retry = story.publish("a", "x").await;
        story.world.resume.notify_one();
        retry
    });
    first.unwrap();
    assert_eq!(retry.unwrap_err().kind, FaultKind::Busy);
}
