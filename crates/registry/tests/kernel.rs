//! The registry on the real kernel, as root: the backend mounts tmpfs, containers are processes in mount namespaces of
//! their own. Only what the registry asks of the kernel is tested here; its rules are tested on a fake world.

#![allow(clippy::unwrap_used)] // an integration test: all of it is test code

mod ground;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use registry::{Registry, RegistryConfig};
use volume::{
    BindTarget, Caller, Driver, FaultKind, Frontend, MountState, OptionMap, RefId, Target, VolumeName,
    VolumeService,
};

use self::ground::{HUNG, LONG, Place, spec};

/// A process in a mount namespace of its own that has bound `source` onto `target` there.
struct Container(Child);

impl Container {
    fn start(source: &Path, target: &Path) -> Container {
        let script = format!("mount --bind {} {}; echo ready; exec cat", source.display(), target.display());
        let mut child = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        Container(child)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !condition().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn docker(id: &str) -> RefId {
    RefId { frontend: Frontend::Docker, scope: "repo".into(), id: id.into() }
}

#[tokio::test]
async fn a_mount_that_a_container_sees_outlives_its_references_and_the_registry() {
    let Some(place) = Place::new() else { return };
    let registry = place.open().await;
    let name: VolumeName = "repo".parse().unwrap();
    let caller = Caller::admin(Frontend::Docker);
    registry.define(Driver::Cvmfs, &name, &OptionMap::new(), &caller).await.unwrap();
    let acquired = registry.acquire_named(Driver::Cvmfs, &name, &docker("1"), &Target::Shared).await.unwrap();
    assert_eq!(acquired.path, place.path("run/mounts/repo"));
    std::fs::create_dir(place.path("rootfs")).unwrap();
    let container = Container::start(&acquired.path, &place.path("rootfs"));
    // What `docker cp` does.
    registry.release(&docker("1")).await.unwrap();
    let mount = registry.mounts().await.remove(0);
    assert!(mount.in_use_without_reference && mount.state == MountState::Live, "{mount:?}");
    let error = registry.remove(Driver::Cvmfs, &name).await.unwrap_err();
    assert_eq!(error.kind, FaultKind::InUse);

    registry.shutdown(LONG).await;
    drop(registry);
    let registry = place.open().await;
    assert_eq!(std::fs::read(acquired.path.join("name")).unwrap(), b"repo");
    assert!(registry.mounts().await.remove(0).in_use_without_reference);

    drop(container);
    until("the sweep finds that nobody sees it", async || registry.mounts().await.is_empty()).await;
    until("its directory is removed", async || place.mounts().is_empty() && !acquired.path.exists()).await;
    registry.remove(Driver::Cvmfs, &name).await.unwrap();
    registry.shutdown(LONG).await;
}

#[tokio::test]
async fn a_target_shows_the_volume_read_only_and_goes_with_its_reference() {
    let Some(place) = Place::new() else { return };
    let registry = place.open().await;
    let target = place.path("pod");
    let caller = Caller::admin(Frontend::Csi);
    let reference = RefId { frontend: Frontend::Csi, scope: "pv".into(), id: target.display().to_string() };
    let at = Target::Bind(BindTarget::directory(target.clone()));
    for _ in 0..2 {
        registry.acquire(&spec("repo"), &reference, &at, &caller).await.unwrap();
        assert_eq!(std::fs::read(target.join("name")).unwrap(), b"repo");
        assert!(std::fs::write(target.join("new"), b"").is_err());
    }
    assert_eq!(place.mounts().len(), 2);

    registry.shutdown(LONG).await;
    drop(registry);
    let registry = place.open().await;
    assert_eq!(registry.mounts().await.remove(0).references, std::slice::from_ref(&reference));
    registry.release(&reference).await.unwrap();
    assert!(!target.exists());
    // A process of another test that cloned our namespace meanwhile sees the mount too, until it ends.
    until("the mount goes", async || place.mounts().is_empty()).await;
    registry.shutdown(LONG).await;
}

#[tokio::test]
async fn links_on_the_way_to_a_target_are_refused() {
    let Some(place) = Place::new() else { return };
    let registry = place.open().await;
    std::fs::create_dir(place.path("real")).unwrap();
    std::os::unix::fs::symlink(place.path("real"), place.path("link")).unwrap();
    for target in [place.path("link"), place.path("link/x")] {
        let reference =
            RefId { frontend: Frontend::Csi, scope: "pv".into(), id: target.display().to_string() };
        let caller = Caller::admin(Frontend::Csi);
        let error = registry
            .acquire(&spec("repo"), &reference, &Target::Bind(BindTarget::directory(target)), &caller)
            .await
            .unwrap_err();
        assert_eq!(error.kind, FaultKind::InvalidArgument, "{error}");
    }
    until("nothing stays", async || place.mounts().is_empty() && registry.mounts().await.is_empty()).await;
    registry.shutdown(LONG).await;
}

#[tokio::test]
async fn two_registries_on_one_state_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = RegistryConfig::new(dir.path().join("state"), dir.path().join("mounts"));
    let _registry = Registry::open(config.clone(), Vec::new()).await.unwrap();
    let second = Registry::open(config, Vec::new()).await.map(|_| ());
    assert_eq!(second.unwrap_err().kind, FaultKind::InUse);
}

fn csi(path: &Path) -> RefId {
    RefId { frontend: Frontend::Csi, scope: "pv".into(), id: path.display().to_string() }
}

#[tokio::test]
async fn a_place_swapped_for_a_link_between_two_calls_is_left_alone() {
    let Some(place) = Place::new() else { return };
    let registry = place.open().await;
    let (root, victim) = (place.path("kubelet"), place.path("victim"));
    std::fs::create_dir_all(root.join("pod")).unwrap();
    std::fs::create_dir_all(victim.join("mount")).unwrap();
    let path = root.join("pod/mount");
    let caller = Caller::admin(Frontend::Csi);
    let at = BindTarget { beneath: Some(root.clone()), ..BindTarget::directory(path.clone()) };
    let at = Target::Bind(at);
    registry.acquire(&spec("repo"), &csi(&path), &at, &caller).await.unwrap();
    // What stands at the victim's must stay; what was bound is reachable by no path that we were told.
    let victims = BindTarget::directory(victim.join("mount"));
    let other = csi(&victim.join("mount"));
    registry.acquire(&spec("repo"), &other, &Target::Bind(victims), &caller).await.unwrap();
    std::fs::rename(root.join("pod"), root.join("moved")).unwrap();
    std::os::unix::fs::symlink(&victim, root.join("pod")).unwrap();
    let again = registry.acquire(&spec("repo"), &csi(&path), &at, &caller).await.unwrap_err();
    assert_eq!(again.kind, FaultKind::InvalidArgument, "{again}");
    assert!(again.to_string().contains(path.to_str().unwrap()), "{again}");
    registry.release(&csi(&path)).await.unwrap();
    assert_eq!(std::fs::read(victim.join("mount/name")).unwrap(), b"repo");
    assert_eq!(std::fs::read(root.join("moved/mount/name")).unwrap(), b"repo");
    registry.release(&other).await.unwrap();
    let mount = registry.mounts().await.remove(0);
    assert!(mount.in_use_without_reference, "{mount:?}");
    host::mount::detach(&root.join("moved/mount")).unwrap();
    until("the sweep finds that nobody sees it", async || registry.mounts().await.is_empty()).await;
    registry.shutdown(LONG).await;
}

#[tokio::test]
async fn a_target_outside_of_kubelets_directory_is_refused() {
    let Some(place) = Place::new() else { return };
    let registry = place.open().await;
    let root = place.path("kubelet");
    std::fs::create_dir_all(root.join("pods")).unwrap();
    std::fs::create_dir(place.path("outside")).unwrap();
    std::os::unix::fs::symlink(place.path("outside"), root.join("pods/out")).unwrap();
    let caller = Caller::admin(Frontend::Csi);
    let outside = place.path("outside/x");
    for path in
        [outside, root.clone(), root.join("pods/out/x"), root.join("pods/out"), root.join("pods/../../x")]
    {
        let at = BindTarget { beneath: Some(root.clone()), ..BindTarget::directory(path.clone()) };
        let error =
            registry.acquire(&spec("repo"), &csi(&path), &Target::Bind(at), &caller).await.unwrap_err();
        assert_eq!(error.kind, FaultKind::InvalidArgument, "{error}");
    }
    assert_eq!(std::fs::read_dir(place.path("outside")).unwrap().count(), 0);
    until("nothing stays", async || place.mounts().is_empty() && registry.mounts().await.is_empty()).await;
    registry.shutdown(LONG).await;
}

#[tokio::test]
async fn one_volume_is_writable_here_and_read_only_there() {
    let Some(place) = Place::new() else { return };
    let registry = place.open().await;
    let caller = Caller::admin(Frontend::Csi);
    for (name, read_only) in [("ro", true), ("rw", false)] {
        let at = BindTarget { read_only, ..BindTarget::directory(place.path(name)) };
        registry.acquire(&spec("repo"), &csi(&place.path(name)), &Target::Bind(at), &caller).await.unwrap();
    }
    std::fs::write(place.path("rw/new"), b"x").unwrap();
    assert!(std::fs::write(place.path("ro/new"), b"y").is_err());
    assert_eq!(std::fs::read(place.path("ro/new")).unwrap(), b"x");
    assert!(registry.stats(&csi(&place.path("ro"))).await.unwrap().inodes.is_some());
    for name in ["ro", "rw"] {
        registry.release(&csi(&place.path(name))).await.unwrap();
        assert!(!place.path(name).exists());
    }
    registry.shutdown(LONG).await;
}

#[tokio::test]
async fn a_mount_that_hangs_costs_a_deadline_and_one_thread() {
    let Some(place) = Place::new() else { return };
    if !Path::new("/dev/fuse").exists() {
        eprintln!("skipped: no /dev/fuse");
        return;
    }
    let registry = place.open().await;
    let (target, caller) = (place.path("pod"), Caller::admin(Frontend::Csi));
    let at = Target::Bind(BindTarget::directory(target.clone()));
    registry.acquire(&spec(HUNG), &csi(&target), &at, &caller).await.unwrap();
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks
            .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|c| c == "statfs\n"))
            .count()
    };
    for _ in 0..2 {
        let error = registry.stats(&csi(&target)).await.unwrap_err();
        assert_eq!(error.kind, FaultKind::Unavailable, "{error}");
        assert_eq!(threads(), 1, "the second question did not start another thread");
    }
    assert_eq!(registry.mount_of(&csi(&target)).await.unwrap().key.as_str(), HUNG);
    registry.release(&csi(&target)).await.unwrap();
    assert!(!target.exists());
    place.end_connections();
    until("the mount goes", async || place.mounts().is_empty()).await;
    until("the thread ends", async || threads() == 0).await;
    registry.shutdown(LONG).await;
}
