//! What engines and people do, one story per test; each trap of facts/docker-plugin that concerns references is here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use volume::{
    Acquired, Caller, Driver, Fault, FaultKind, Frontend, MountState, OptionMap, RefId, Target, VolumeName,
    VolumeService,
};

use crate::Registry;
use crate::fake::{World, key, spec};

const DRIVER: Driver = Driver::Cvmfs;
const DOCKER: Caller = Caller { frontend: Frontend::Docker };
const LATER: Duration = Duration::from_secs(601);

struct Story {
    dir: TempDir,
    world: Arc<World>,
    registry: Arc<Registry>,
}

fn docker(volume: &str, id: &str) -> RefId {
    RefId { frontend: Frontend::Docker, scope: volume.into(), id: id.into() }
}

fn podman(volume: &str) -> RefId {
    RefId { frontend: Frontend::Podman, scope: volume.into(), id: "2f73".into() }
}

fn csi(target: &str) -> RefId {
    RefId { frontend: Frontend::Csi, scope: target.into(), id: String::new() }
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

impl Story {
    async fn new() -> Story {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
        let registry = world.open(dir.path()).await;
        registry.ready().await;
        Story { dir, world, registry }
    }

    async fn with_volume(volume: &str) -> Story {
        let story = Story::new().await;
        story.define(volume, &[]).await.unwrap();
        story
    }

    async fn define(&self, volume: &str, options: &[(&str, &str)]) -> Result<(), Fault> {
        let options: OptionMap = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.registry.define(DRIVER, &name(volume), &options, &DOCKER).await.map(|_| ())
    }

    async fn mount(&self, reference: &RefId) -> Result<Acquired, Fault> {
        self.registry.acquire_named(DRIVER, &name(&reference.scope), reference, &Target::Shared).await
    }

    async fn publish(&self, repository: &str, target: &str) -> Result<Acquired, Fault> {
        let at = Target::Bind(self.path(target));
        let reference = csi(self.path(target).to_str().unwrap());
        self.registry.acquire(&spec(repository), &reference, &at, &Caller { frontend: Frontend::Csi }).await
    }

    async fn unpublish(&self, target: &str) -> Result<(), Fault> {
        self.registry.release(&csi(self.path(target).to_str().unwrap())).await
    }

    fn path(&self, target: &str) -> PathBuf {
        Path::new("/pods").join(target)
    }

    async fn unmount(&self, reference: &RefId) {
        self.registry.release(reference).await.unwrap();
    }

    /// State and references of a mount; `None` if it is not shown.
    async fn shown(&self, repository: &str) -> Option<(MountState, Vec<String>)> {
        let mounts = self.registry.mounts().await;
        let mount = mounts.into_iter().find(|mount| mount.key == key(repository))?;
        Some((mount.state, mount.references.iter().map(RefId::to_string).collect()))
    }

    fn is_mounted(&self, repository: &str) -> bool {
        self.world.facts.lock().served.contains_key(&key(repository))
    }

    async fn sweep(&self, after: Duration) {
        self.registry.core().sweep(Instant::now() + after).await;
    }

    /// The daemon ends (or is killed between two operations) and starts again.
    async fn restart(self) -> Story {
        self.restart_in_boot("boot").await
    }

    async fn restart_in_boot(self, boot: &str) -> Story {
        let Story { dir, world, registry } = self;
        registry.shutdown(Duration::from_secs(10)).await;
        drop(registry);
        let registry = world.open_boot(dir.path(), boot, |_| ()).await.unwrap();
        registry.ready().await;
        Story { dir, world, registry }
    }
}

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
async fn references_that_docker_forgot_go_after_the_grace_time() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.world.start_container(1, &key("a"));
    story.sweep(LATER).await;
    assert_eq!(story.shown("a").await.unwrap().1.len(), 1);
    // The container dies while the engine is down: no Unmount ever comes.
    story.world.stop_container(1);
    story.sweep(LATER + Duration::from_secs(300)).await;
    assert_eq!(story.shown("a").await.unwrap().1.len(), 1, "seen 300 s ago");
    story.sweep(LATER + LATER).await;
    assert_eq!(story.shown("a").await, None);
    assert!(!story.is_mounted("a"));
    story.world.assert_clean();
}

#[tokio::test]
async fn podmans_references_stay_until_the_next_boot_and_its_dead_mounts_come_back() {
    let story = Story::with_volume("a").await;
    story.mount(&podman("a")).await.unwrap();
    story.sweep(LATER + LATER).await;
    assert!(story.is_mounted("a"));
    story.world.kill(&key("a"));
    let story = story.restart().await;
    assert_eq!(story.shown("a").await, Some((MountState::Absent, vec!["podman|a|2f73".into()])));
    story.sweep(Duration::ZERO).await;
    assert_eq!(story.shown("a").await.unwrap().0, MountState::Live);
    {
        let mut facts = story.world.facts.lock();
        facts.mounts.clear();
        facts.served.clear();
    }
    let story = story.restart_in_boot("another").await;
    assert_eq!(story.shown("a").await, None);
    story.sweep(Duration::ZERO).await;
    assert!(!story.is_mounted("a"));
}

#[tokio::test]
async fn after_a_restart_everything_is_as_before() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    let before = story.shown("a").await;
    let story = story.restart().await;
    assert_eq!(story.shown("a").await, before);
    assert_eq!(story.world.facts.lock().attaches, 1);
    story.unmount(&docker("a", "1")).await;
    assert!(!story.is_mounted("a"));
    story.world.assert_clean();
}

#[tokio::test]
async fn a_lost_journal_keeps_what_a_container_sees_and_stops_the_rest() {
    let story = Story::with_volume("a").await;
    story.define("b", &[]).await.unwrap();
    story.mount(&docker("a", "1")).await.unwrap();
    story.mount(&docker("b", "1")).await.unwrap();
    story.world.start_container(1, &key("a"));
    let Story { dir, world, registry } = story;
    registry.shutdown(Duration::from_secs(10)).await;
    drop(registry);
    std::fs::write(dir.path().join("state/registry.db"), [7; 5000]).unwrap();
    let registry = world.open(dir.path()).await;
    registry.ready().await;
    let story = Story { dir, world, registry };
    assert_eq!(story.shown("a").await, Some((MountState::Live, vec![])));
    assert!(!story.is_mounted("b"));
    // Its container goes on; a new request finds it.
    story.define("a", &[]).await.unwrap();
    story.mount(&docker("a", "2")).await.unwrap();
    assert_eq!(story.world.facts.lock().attaches, 2);
    story.world.assert_clean();
}

#[tokio::test]
async fn a_mount_that_died_with_the_daemon_is_cleaned_away_and_made_anew() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.world.kill(&key("a"));
    let story = story.restart().await;
    assert!(story.world.facts.lock().mounts.is_empty());
    assert_eq!(story.shown("a").await, Some((MountState::Absent, vec!["docker|a|1".into()])));
    story.mount(&docker("a", "1")).await.unwrap();
    assert_eq!(story.shown("a").await.unwrap().0, MountState::Live);
}

#[tokio::test]
async fn an_open_file_keeps_the_mount_and_it_goes_later() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    let device = story.world.facts.lock().served[&key("a")];
    story.world.facts.lock().busy.insert(device);
    story.unmount(&docker("a", "1")).await;
    assert_eq!(story.shown("a").await, Some((MountState::Live, vec![])));
    story.world.facts.lock().busy.clear();
    story.sweep(Duration::ZERO).await;
    assert!(!story.is_mounted("a"));
}

#[tokio::test]
async fn nothing_is_taken_down_while_nobody_can_say_who_sees_it() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.world.facts.lock().seen_fault = Some(FaultKind::DeadlineExceeded);
    story.unmount(&docker("a", "1")).await;
    story.sweep(LATER).await;
    assert!(story.is_mounted("a"));
    assert!(story.registry.remove(DRIVER, &name("a")).await.is_err());
    story.world.facts.lock().seen_fault = None;
    story.sweep(Duration::ZERO).await;
    assert!(!story.is_mounted("a"));
}

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
        let at = Target::Bind(bad.into());
        let got =
            story.registry.acquire(&spec("a"), &csi(bad), &at, &Caller { frontend: Frontend::Csi }).await;
        assert_eq!(got.unwrap_err().kind, FaultKind::InvalidArgument, "{bad}");
    }
    let inside = Target::Bind(story.dir.path().join("mounts/a"));
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
