//! What kubelet does: repeats, restarts, reboots, lost journals, callers that hang up.

use volume::{BindTarget, Sharing, VolumeSpec};

use super::*;
use crate::table::{Change, MountRow};

const CSI: Caller = Caller::admin(Frontend::Csi);

fn target(path: &str) -> BindTarget {
    BindTarget { beneath: Some("/pods".into()), ..BindTarget::directory(Path::new("/pods").join(path)) }
}

/// A reference of a volume's target.
fn use_of(volume: &str, path: &str) -> RefId {
    let id = Path::new("/pods").join(path).display().to_string();
    RefId { frontend: Frontend::Csi, scope: volume.into(), id }
}

impl Story {
    async fn node_publish(&self, spec: VolumeSpec, id: RefId, at: BindTarget) -> Result<Acquired, Fault> {
        self.registry.acquire(&spec, &id, &Target::Bind(at), &CSI).await
    }

    fn device_at(&self, path: &str) -> Option<host::DeviceId> {
        let facts = self.world.facts.lock();
        facts.mounts.get(&Path::new("/pods").join(path)).map(|mounted| mounted.device)
    }

    async fn until(&self, what: &str, condition: impl Fn(&Story) -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !condition(self) {
            assert!(Instant::now() < end, "never: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_repeat_leaves_everything_alone_though_the_configuration_changed() {
    let story = Story::new().await;
    let id = use_of("pv", "x");
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    story.world.facts.lock().key_suffix = "+new".into();
    let story = story.restart().await;
    for _ in 0..2 {
        story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    }
    {
        let facts = story.world.facts.lock();
        assert_eq!((facts.attaches, facts.binds.len()), (1, 1));
    }
    // Once it is dead it is made anew, as the configuration is now.
    story.world.kill(&key("a"));
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    assert_eq!(story.shown("a").await, None);
    assert_eq!(story.shown("a+new").await.unwrap().1, [id.to_string()]);
    assert_eq!(story.device_at("x"), story.world.facts.lock().served.get(&key("a+new")).copied());
    story.world.assert_clean();
}

#[tokio::test]
async fn a_repeat_that_wants_something_else_is_refused_and_changes_nothing() {
    let story = Story::new().await;
    let id = use_of("pv", "x");
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    let before = story.device_at("x");
    let other = story.node_publish(spec("b"), id.clone(), target("x")).await.unwrap_err();
    let writable = BindTarget { read_only: false, ..target("x") };
    let writable = story.node_publish(spec("a"), id.clone(), writable).await.unwrap_err();
    let elsewhere = story.node_publish(spec("a"), id.clone(), target("y")).await.unwrap_err();
    let foreign = story.node_publish(spec("a"), use_of("pv2", "x"), target("x")).await.unwrap_err();
    for fault in [other, writable, elsewhere, foreign] {
        assert_eq!(fault.kind, FaultKind::AlreadyExists, "{fault}");
    }
    assert_eq!(story.device_at("x"), before);
    assert_eq!(story.shown("a").await.unwrap().1, [id.to_string()]);
    assert!(!story.is_mounted("b"));
    assert_eq!(story.world.facts.lock().binds.len(), 1);
}

#[tokio::test]
async fn what_is_asked_of_a_bind_is_what_is_made() {
    let story = Story::new().await;
    let at = BindTarget { read_only: false, ..target("x") };
    story.node_publish(spec("a"), use_of("pv", "x"), at).await.unwrap();
    let (spot, read_only) = story.world.facts.lock().binds[0].clone();
    assert_eq!((spot.beneath.as_deref(), read_only), (Some(Path::new("/pods")), false));
    let block = VolumeSpec::Rbd(volume::RbdSpec {
        volume: "image".into(),
        form: volume::Form::Block,
        attributes: OptionMap::new(),
    });
    story.node_publish(block.clone(), use_of("disk", "dev"), target("dev")).await.unwrap();
    let (spot, read_only) = story.world.facts.lock().binds[1].clone();
    assert_eq!((spot.node, read_only), (host::mount::place::Node::File, true));
    let staging = BindTarget { sharing: Sharing::Staging, ..target("stage") };
    story.node_publish(block, use_of("disk", "stage"), staging).await.unwrap();
    let (spot, _) = story.world.facts.lock().binds[2].clone();
    assert_eq!(spot.node, host::mount::place::Node::Directory, "kubelet has made a directory there");
    let story = story.restart().await;
    story.registry.release(&use_of("disk", "dev")).await.unwrap();
    story.registry.release(&use_of("disk", "stage")).await.unwrap();
    story.registry.release(&use_of("pv", "x")).await.unwrap();
    assert!(story.world.facts.lock().nodes.is_empty() && story.world.facts.lock().mounts.is_empty());
}

#[tokio::test]
async fn a_single_use_stands_beside_its_staging_place_only() {
    let story = Story::new().await;
    let publish = async |path: &str, sharing: Sharing| {
        let at = BindTarget { sharing, ..target(path) };
        story.node_publish(spec("a"), use_of("pv", path), at).await.map(drop).map_err(|fault| fault.kind)
    };
    publish("stage", Sharing::Staging).await.unwrap();
    publish("one", Sharing::Single).await.unwrap();
    publish("one", Sharing::Single).await.unwrap();
    assert_eq!(publish("two", Sharing::Single).await, Err(FaultKind::InUse));
    assert_eq!(publish("two", Sharing::Shared).await, Err(FaultKind::InUse));
    // Another volume is another matter, also on the same mount.
    let other = BindTarget { sharing: Sharing::Single, ..target("other") };
    story.node_publish(spec("a"), use_of("pv2", "other"), other).await.unwrap();
    let story = story.restart().await;
    let publish = async |path: &str, sharing: Sharing| {
        let at = BindTarget { sharing, ..target(path) };
        story.node_publish(spec("a"), use_of("pv", path), at).await.map(drop).map_err(|fault| fault.kind)
    };
    assert_eq!(publish("two", Sharing::Shared).await, Err(FaultKind::InUse), "journalled");
    story.registry.release(&use_of("pv", "one")).await.unwrap();
    let (two, three) = tokio::join!(publish("two", Sharing::Single), publish("three", Sharing::Single));
    assert!(two.is_ok() != three.is_ok(), "of two at once one has it: {two:?} {three:?}");
    story.world.assert_clean();
}

#[tokio::test]
async fn ten_targets_of_a_volume_at_once_are_one_mount() {
    let story = Story::new().await;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..10 {
        let registry = story.registry.clone();
        running.spawn(async move {
            let path = number.to_string();
            let (id, at) = (use_of("pv", &path), Target::Bind(target(&path)));
            registry.acquire(&spec("a"), &id, &at, &CSI).await
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(story.world.facts.lock().attaches, 1);
    assert_eq!(story.shown("a").await.unwrap().1.len(), 10);
    let releases = (0..10).map(|number| use_of("pv", &number.to_string()));
    for id in releases.rev() {
        story.registry.release(&id).await.unwrap();
    }
    assert!(!story.is_mounted("a"));
    story.world.assert_clean();
}

#[tokio::test]
async fn a_mount_that_dies_while_it_is_bound_is_bound_again() {
    let story = Story::new().await;
    story.node_publish(spec("a"), use_of("pv", "x"), target("x")).await.unwrap();
    story.world.facts.lock().bind_hangs = true;
    let (slow, ()) = tokio::join!(story.node_publish(spec("a"), use_of("pv", "y"), target("y")), async {
        story.world.stopped.notified().await;
        story.world.kill(&key("a"));
        story.node_publish(spec("a"), use_of("pv", "z"), target("z")).await.unwrap();
        story.world.resume.notify_one();
    });
    slow.unwrap();
    let live = story.world.facts.lock().served.get(&key("a")).copied();
    for path in ["x", "y", "z"] {
        assert_eq!(story.device_at(path), live, "{path}");
    }
    story.world.assert_clean();
}

#[tokio::test]
async fn an_unpublish_beside_a_bind_under_way_leaves_the_mount() {
    let story = Story::new().await;
    story.node_publish(spec("a"), use_of("pv", "x"), target("x")).await.unwrap();
    story.world.facts.lock().bind_hangs = true;
    let (slow, ()) = tokio::join!(story.node_publish(spec("a"), use_of("pv", "y"), target("y")), async {
        story.world.stopped.notified().await;
        story.registry.release(&use_of("pv", "x")).await.unwrap();
        story.sweep(Duration::ZERO).await;
        assert!(story.is_mounted("a"));
        story.world.resume.notify_one();
    });
    slow.unwrap();
    assert_eq!(story.world.facts.lock().attaches, 1);
    assert_eq!(story.shown("a").await.unwrap().1, [use_of("pv", "y").to_string()]);
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_no_bind_behind() {
    for fails in [false, true] {
        let story = Story::new().await;
        let id = use_of("pv", "x");
        story.world.facts.lock().bind_hangs = true;
        {
            let mut publish = Box::pin(story.node_publish(spec("a"), id.clone(), target("x")));
            tokio::select! {
                _ = &mut publish => panic!("it hangs"),
                () = story.world.stopped.notified() => {}
            }
        }
        story.world.facts.lock().unbind_fault = fails.then_some(FaultKind::InUse);
        story.world.resume.notify_one();
        story.until("the undoing is over", |story| story.registry.core().lanes.held() == 0).await;
        if fails {
            // Kubelet would take what is left for success: the sweeper tries again.
            assert!(story.device_at("x").is_some());
            story.world.facts.lock().unbind_fault = None;
            story.sweep(Duration::ZERO).await;
        }
        assert_eq!(story.device_at("x"), None);
        assert_eq!(story.registry.mount_of(&id).await, None);
        story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
        story.world.assert_clean();
    }
}

#[tokio::test]
async fn after_a_caller_hung_up_nothing_is_bound_and_the_mount_waits_for_the_next_try() {
    let story = Story::new().await;
    let id = use_of("pv", "x");
    story.world.facts.lock().attach_hangs = true;
    {
        let mut publish = Box::pin(story.node_publish(spec("a"), id.clone(), target("x")));
        tokio::select! {
            _ = &mut publish => panic!("it hangs"),
            () = story.world.stopped.notified() => {}
        }
    }
    story.world.resume.notify_one();
    story.until("the undoing is over", |story| story.registry.core().lanes.held() == 0).await;
    assert!(story.world.facts.lock().binds.is_empty(), "not even for a moment");
    assert_eq!(story.registry.mount_of(&id).await, None);
    story.sweep(Duration::from_secs(1)).await;
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    assert_eq!(story.world.facts.lock().attaches, 1);
    story.world.assert_clean();
}

#[tokio::test]
async fn a_reboot_ends_every_use_and_kubelet_publishes_anew() {
    let story = Story::new().await;
    let id = use_of("pv", "x");
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    {
        let mut facts = story.world.facts.lock();
        facts.mounts.clear();
        facts.served.clear();
    }
    let story = story.restart_in_boot("another").await;
    assert_eq!(story.registry.mount_of(&id).await, None);
    // The directory is still there.
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    assert_eq!(story.registry.mount_of(&id).await.unwrap().key, key("a"));
    story.registry.release(&id).await.unwrap();
    let facts = story.world.facts.lock();
    assert!(facts.mounts.is_empty() && facts.nodes.is_empty(), "the driver deletes what the driver made");
}

#[tokio::test]
async fn after_a_lost_journal_an_unpublish_frees_what_is_ours_and_nothing_else() {
    let story = Story::new().await;
    let id = use_of("pv", "x");
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    story.node_publish(spec("b"), use_of("pv", "dead"), target("dead")).await.unwrap();
    story.world.kill(&key("b"));
    let theirs = Path::new("/pods/theirs");
    {
        let device = "8:1".parse().unwrap();
        let mounted = crate::kernel::Mounted { path: theirs.into(), device, fs_type: "ext4".into() };
        story.world.facts.lock().mounts.insert(theirs.into(), mounted);
    }
    let Story { dir, world, registry } = story;
    registry.shutdown(Duration::from_secs(10)).await;
    drop(registry);
    std::fs::remove_dir_all(dir.path().join("state")).unwrap();
    let registry = world.open(dir.path()).await;
    registry.ready().await;
    let story = Story { dir, world, registry };
    for path in ["x", "dead", "theirs", "nothing"] {
        story.registry.release(&use_of("pv", path)).await.unwrap();
    }
    assert_eq!((story.device_at("x"), story.device_at("dead")), (None, None));
    assert!(story.device_at("theirs").is_some());
    // Another volume's reference does not free a target that is in use.
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    story.registry.release(&use_of("another", "x")).await.unwrap();
    assert!(story.device_at("x").is_some());
    story.world.assert_clean();
}

#[tokio::test]
async fn a_dead_mounts_figures_are_unavailable_and_an_unknown_ones_not_found() {
    let story = Story::new().await;
    let id = use_of("pv", "x");
    assert_eq!(story.registry.stats(&id).await.unwrap_err().kind, FaultKind::NotFound);
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    story.world.kill(&key("a"));
    story.registry.core().look_at_all().await;
    assert_eq!(story.registry.stats(&id).await.unwrap_err().kind, FaultKind::Unavailable);
    // One question hangs: the next one does not start another thread.
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    let hung = story.registry.core().questions.try_enter(&key("a")).unwrap();
    assert_eq!(story.registry.stats(&id).await.unwrap_err().kind, FaultKind::Unavailable);
    drop(hung);
}

#[tokio::test]
async fn a_reference_without_a_known_spec_is_bound_anew() {
    let story = Story::new().await;
    let id = use_of("pv", "x");
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    let row = story.registry.core().row(&key("a")).unwrap();
    let row = MountRow { resolved: None, ..row };
    story.registry.core().commit(vec![Change::PutMount(key("a"), row)]).await.unwrap();
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    assert_eq!(story.world.facts.lock().attaches, 1);
}

#[tokio::test]
async fn a_pods_dead_mount_is_made_again_before_anybody_asks() {
    let story = Story::new().await;
    for path in ["x", "y"] {
        story.node_publish(spec("a"), use_of("pv", path), target(path)).await.unwrap();
    }
    story.world.kill(&key("a"));
    let story = story.restart().await;
    // Where it is bound it is dead; kubelet would bind that into the next container of the pod.
    story.sweep(Duration::ZERO).await;
    let live = story.world.facts.lock().served.get(&key("a")).copied();
    assert!(live.is_some());
    assert_eq!((story.device_at("x"), story.device_at("y")), (live, live));
    story.world.assert_clean();
}

#[tokio::test]
async fn a_repeat_that_cannot_heal_leaves_no_dead_mount_that_kubelet_takes_for_success() {
    let story = Story::new().await;
    let id = use_of("pv", "x");
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    story.world.kill(&key("a"));
    story.world.facts.lock().attach_fault = Some(FaultKind::Unavailable);
    let fault = story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert_eq!(story.device_at("x"), None);
    assert_eq!(story.registry.mount_of(&id).await, None);
    story.world.facts.lock().attach_fault = None;
    story.node_publish(spec("a"), id.clone(), target("x")).await.unwrap();
    assert!(story.device_at("x").is_some());
    story.world.assert_clean();
}
