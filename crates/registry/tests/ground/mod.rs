//! A backend that mounts tmpfs, and a directory whose mounts go with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use host::MountTable;
use parking_lot::Mutex;
use registry::{Registry, RegistryConfig};
use volume::{
    Backend, Caller, CvmfsSpec, Driver, Fault, FaultKind, Inspection, MountKey, OptionMap, Resolved,
    Revision, Survivor, VolumeSpec,
};

pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Tmpfs {
    mount_dir: PathBuf,
    hung: Connections,
}

/// Of FUSE file systems that nobody serves: a question to one hangs until its descriptor is closed.
type Connections = Arc<Mutex<Vec<File>>>;

/// The repository whose mount hangs.
pub(crate) const HUNG: &str = "hung";

impl Tmpfs {
    fn mount_hung(&self, mountpoint: &Path) -> Result<(), Fault> {
        let device = File::options().read(true).write(true).open("/dev/fuse").map_err(failed)?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = nix::mount::MsFlags::MS_NOSUID | nix::mount::MsFlags::MS_NODEV;
        nix::mount::mount(Some(HUNG), mountpoint, Some("fuse.volplane"), flags, Some(options.as_str()))
            .map_err(failed)?;
        self.hung.lock().push(device);
        Ok(())
    }
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
        if resolved.key.as_str() == HUNG {
            return self.mount_hung(mountpoint);
        }
        nix::mount::mount(
            Some("none"),
            mountpoint,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .map_err(failed)?;
        std::fs::write(mountpoint.join("name"), resolved.key.as_str()).map_err(failed)
    }

    async fn inspect(&self, _: &MountKey, mountpoint: &Path) -> Inspection {
        match host::mount::place::device_at(mountpoint).expect("our own directory can be looked at") {
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

pub(crate) fn spec(repository: &str) -> VolumeSpec {
    VolumeSpec::Cvmfs(CvmfsSpec {
        repository: repository.into(),
        revision: Revision::Trunk,
        parameters: BTreeMap::new(),
    })
}

/// All mounts below it go with it.
pub(crate) struct Place(tempfile::TempDir, Connections);

impl Place {
    pub(crate) fn new() -> Option<Place> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        if !status.lines().any(|line| line.starts_with("Uid:\t0\t")) {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        Some(Place(tempfile::tempdir().unwrap(), Connections::default()))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) async fn open(&self) -> Arc<Registry> {
        let mut config = RegistryConfig::new(self.path("state"), self.path("run/mounts"));
        config.sweep_every = Duration::from_millis(50);
        let backend = Arc::new(Tmpfs { mount_dir: config.mount_dir.clone(), hung: self.1.clone() });
        let registry = Registry::open(config, vec![backend]).await.unwrap();
        registry.ready().await;
        registry
    }

    /// What hangs answers with an error from now on.
    #[allow(dead_code)] // not by every test program
    pub(crate) fn end_connections(&self) {
        self.1.lock().clear();
    }

    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = MountTable::own().expect("the own table can be read");
        let below = table.entries().iter().map(|entry| entry.mountpoint.clone());
        below.filter(|path| path.starts_with(self.0.path())).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.1.lock().clear();
        for path in self.mounts().iter().rev() {
            let _ = host::mount::detach(path);
        }
    }
}
