//! The registry on the real kernel, as root: the backend mounts tmpfs, containers are processes in mount namespaces of
//! their own. Only what the registry asks of the kernel is tested here; its rules are tested on a fake world.

#![allow(clippy::unwrap_used)] // an integration test: all of it is test code

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use host::MountTable;
use host::command::Command;
use registry::{Registry, RegistryConfig};
use volume::{
    Backend, Caller, CvmfsSpec, Driver, Fault, FaultKind, Frontend, Inspection, MountKey, MountState,
    OptionMap, RefId, Resolved, Revision, Survivor, Target, VolumeName, VolumeService, VolumeSpec,
};

const LONG: Duration = Duration::from_secs(20);

struct Tmpfs {
    mount_dir: PathBuf,
}

fn failed(detail: impl ToString) -> Fault {
    Fault::new(FaultKind::Internal, "mount tmpfs", "", detail.to_string())
}

#[async_trait]
impl Backend for Tmpfs {
    fn driver(&self) -> Driver {
        Driver::Cvmfs
    }

    fn parse(
        &self,
        name: Option<&str>,
        _: &OptionMap,
        _: &volume::Form,
        _: &Caller,
    ) -> Result<VolumeSpec, Fault> {
        Ok(spec(name.unwrap_or_default()))
    }

    async fn resolve(&self, spec: &VolumeSpec, _: &Caller) -> Result<Resolved, Fault> {
        let VolumeSpec::Cvmfs(cvmfs) = spec else { return Err(failed("another kind")) };
        let key = MountKey::new(cvmfs.repository.clone()).ok_or_else(|| failed("no key"))?;
        Ok(Resolved { key, spec: spec.clone(), payload: serde_json::Value::Null })
    }

    async fn attach(&self, resolved: &Resolved, mountpoint: &Path) -> Result<(), Fault> {
        let command = Command::new("mount").arg("-t").arg("tmpfs").arg("none").arg(mountpoint);
        let output = command.run(LONG).map_err(failed)?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr)));
        }
        std::fs::write(mountpoint.join("name"), resolved.key.as_str()).map_err(failed)
    }

    async fn inspect(&self, _: &MountKey, mountpoint: &Path) -> Inspection {
        let table = MountTable::own().expect("the own table can be read");
        match table.at(mountpoint) {
            Some(_) => Inspection::Live(Box::default()),
            None => Inspection::Absent,
        }
    }

    async fn refresh(&self, _: &MountKey) -> Result<(), Fault> {
        Ok(())
    }

    async fn detach(&self, _: &MountKey, mountpoint: &Path) -> Result<(), Fault> {
        match host::mount::unmount(mountpoint) {
            Ok(()) | Err(host::mount::MountError::NotMounted(_)) => Ok(()),
            Err(host::mount::MountError::Busy(_)) => Err(Fault::new(FaultKind::InUse, "unmount", "", "busy")),
            Err(error) => Err(failed(error)),
        }
    }

    async fn survivors(&self) -> Vec<Survivor> {
        let table = MountTable::own().expect("the own table can be read");
        let below = table.entries().iter().filter(|e| e.mountpoint.parent() == Some(&self.mount_dir));
        below
            .filter_map(|entry| {
                let key = MountKey::new(entry.mountpoint.file_name()?.to_str()?)?;
                Some(Survivor { key, mountpoint: entry.mountpoint.clone(), alive: true })
            })
            .collect()
    }
}

fn spec(repository: &str) -> VolumeSpec {
    VolumeSpec::Cvmfs(CvmfsSpec {
        repository: repository.into(),
        revision: Revision::Trunk,
        parameters: BTreeMap::new(),
    })
}

/// All mounts below it go with it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Option<Place> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        if !status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        Some(Place(tempfile::tempdir().unwrap()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn open(&self) -> Arc<Registry> {
        let mut config = RegistryConfig::new(self.path("state"), self.path("run/mounts"));
        config.sweep_every = Duration::from_millis(50);
        let backend = Arc::new(Tmpfs { mount_dir: config.mount_dir.clone() });
        let registry = Registry::open(config, vec![backend]).await.unwrap();
        registry.ready().await;
        registry
    }

    fn mounts(&self) -> Vec<PathBuf> {
        let table = MountTable::own().expect("the own table can be read");
        let below = table.entries().iter().map(|entry| entry.mountpoint.clone());
        below.filter(|path| path.starts_with(self.0.path())).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in self.mounts().iter().rev() {
            let _ = host::mount::detach(path);
        }
    }
}

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
    let reference = RefId { frontend: Frontend::Csi, scope: target.display().to_string(), id: String::new() };
    let at = Target::Bind(volume::BindTarget::directory(target.clone()));
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
            RefId { frontend: Frontend::Csi, scope: target.display().to_string(), id: String::new() };
        let caller = Caller::admin(Frontend::Csi);
        let error = registry
            .acquire(&spec("repo"), &reference, &Target::Bind(volume::BindTarget::directory(target)), &caller)
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
