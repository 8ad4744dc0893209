//! A world for tests: a backend and a kernel over one set of mounts, with containers that see them, faults, and
//! a daemon that dies at any step. It writes down every breach of the rules that hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use host::DeviceId;
use host::mount::place::{Found, Node};
use parking_lot::Mutex;
use tokio::sync::Notify;
use volume::{
    Backend, Caller, CvmfsSpec, Driver, Fault, FaultKind, Inspection, MountKey, OptionMap, Resolved,
    Revision, Survivor, VolumeSpec, WorkerReport,
};

use crate::kernel::{Asked, Kernel, Mounted, Spot};
use crate::{Registry, RegistryConfig};

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) facts: Mutex<Facts>,
    /// Wakes when the daemon dies, or when a call hangs that was told to.
    pub(crate) stopped: Notify,
    pub(crate) resume: Notify,
    /// Wakes at the step that `tells_in` names.
    pub(crate) told: Notify,
}

#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Our own mount namespace.
    pub(crate) mounts: BTreeMap<PathBuf, Mounted>,
    /// Workers that serve.
    pub(crate) served: BTreeMap<MountKey, DeviceId>,
    /// What each container sees.
    pub(crate) containers: BTreeMap<u32, DeviceId>,
    /// Open files of programs in our own namespace.
    pub(crate) busy: BTreeSet<DeviceId>,
    /// Mounts that must not be taken down while they are served.
    pub(crate) referred: BTreeSet<MountKey>,
    pub(crate) attach_fault: Option<FaultKind>,
    pub(crate) detach_fault: Option<FaultKind>,
    /// Of binds and unbinds.
    pub(crate) bind_fault: Option<FaultKind>,
    /// Of unbinds alone.
    pub(crate) unbind_fault: Option<FaultKind>,
    /// What the site's configuration adds to every key.
    pub(crate) key_suffix: String,
    pub(crate) seen_fault: Option<FaultKind>,
    /// The next attach waits for `resume`.
    pub(crate) attach_hangs: bool,
    /// The same for the next bind.
    pub(crate) bind_hangs: bool,
    /// Every bind that was made, in order, and whether it was read-only.
    pub(crate) binds: Vec<(Spot, bool)>,
    /// Directories and files that targets are.
    pub(crate) nodes: BTreeSet<PathBuf>,
    /// The daemon dies at its so many-th next step.
    pub(crate) dies_in: Option<usize>,
    /// `told` wakes at the so many-th next step, and things go on.
    pub(crate) tells_in: Option<usize>,
    pub(crate) attaches: usize,
    pub(crate) breaches: Vec<String>,
    minors: u32,
}

pub(crate) fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind, "pretend", "", "as the test wants it")
}

pub(crate) fn key(text: &str) -> MountKey {
    MountKey::new(text).unwrap()
}

pub(crate) fn spec(repository: &str) -> VolumeSpec {
    VolumeSpec::Cvmfs(CvmfsSpec {
        repository: repository.into(),
        revision: Revision::Trunk,
        parameters: OptionMap::new(),
    })
}

impl World {
    pub(crate) fn new() -> Arc<World> {
        Arc::default()
    }

    pub(crate) async fn open(self: &Arc<World>, dir: &Path) -> Arc<Registry> {
        self.open_with(dir, |_| ()).await
    }

    pub(crate) async fn open_with(
        self: &Arc<World>,
        dir: &Path,
        change: impl FnOnce(&mut RegistryConfig),
    ) -> Arc<Registry> {
        self.open_boot(dir, "boot", change).await.unwrap()
    }

    pub(crate) async fn open_boot(
        self: &Arc<World>,
        dir: &Path,
        boot: &str,
        change: impl FnOnce(&mut RegistryConfig),
    ) -> Result<Arc<Registry>, Fault> {
        let mut config = RegistryConfig::new(dir.join("state"), dir.join("mounts"));
        change(&mut config);
        let fake = |driver| Arc::new(Fake { world: self.clone(), driver });
        let backends: Vec<Arc<dyn Backend>> = vec![fake(Driver::Cvmfs), fake(Driver::Rbd)];
        Registry::open_on(config, backends, fake(Driver::Cvmfs), boot.into(), None).await
    }

    /// A step of the daemon. It may be its last: then it never goes on.
    async fn step(&self) {
        let dead = {
            let mut facts = self.facts.lock();
            match &mut facts.tells_in {
                Some(0) | None => {}
                Some(left) => {
                    *left -= 1;
                    if *left == 0 {
                        self.told.notify_one();
                    }
                }
            }
            match &mut facts.dies_in {
                None => false,
                Some(0) => true,
                Some(left) => {
                    *left -= 1;
                    *left == 0
                }
            }
        };
        if dead {
            self.stopped.notify_waiters();
            self.stopped.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// A container binds what is mounted for the key now.
    pub(crate) fn start_container(&self, number: u32, key: &MountKey) -> bool {
        let mut facts = self.facts.lock();
        let Some(device) = facts.served.get(key).copied() else { return false };
        facts.containers.insert(number, device);
        true
    }

    pub(crate) fn stop_container(&self, number: u32) {
        self.facts.lock().containers.remove(&number);
    }

    /// The worker dies and nobody starts another: the mount stays, dead.
    pub(crate) fn kill(&self, key: &MountKey) {
        self.facts.lock().served.remove(key);
    }

    pub(crate) fn assert_clean(&self) {
        let breaches = std::mem::take(&mut self.facts.lock().breaches);
        assert!(breaches.is_empty(), "{breaches:#?}");
    }
}

pub(crate) struct Fake {
    world: Arc<World>,
    driver: Driver,
}

#[async_trait]
impl Backend for Fake {
    fn driver(&self) -> Driver {
        self.driver
    }

    fn parse(
        &self,
        name: Option<&str>,
        options: &OptionMap,
        _: &volume::Form,
        _: &Caller,
    ) -> Result<VolumeSpec, Fault> {
        if let Some(unknown) = options.keys().find(|key| *key != "repository") {
            return Err(Fault::new(FaultKind::InvalidArgument, "parse", unknown.as_str(), "is no option"));
        }
        let repository = options.get("repository").map(String::as_str).or(name);
        repository.map(spec).ok_or_else(|| fault(FaultKind::InvalidArgument))
    }

    async fn resolve(&self, spec: &VolumeSpec, _: &Caller) -> Result<Resolved, Fault> {
        let name = match spec {
            VolumeSpec::Cvmfs(cvmfs) => &cvmfs.repository,
            VolumeSpec::Rbd(rbd) => &rbd.volume,
            VolumeSpec::CvmfsAll(_) => return Err(fault(FaultKind::Unsupported)),
        };
        let key = key(&format!("{name}{}", self.world.facts.lock().key_suffix));
        Ok(Resolved { key, spec: spec.clone(), payload: serde_json::Value::Null })
    }

    async fn attach(&self, resolved: &Resolved, mountpoint: &Path) -> Result<(), Fault> {
        self.world.step().await;
        let hangs = std::mem::take(&mut self.world.facts.lock().attach_hangs);
        if hangs {
            self.world.stopped.notify_one();
            self.world.resume.notified().await;
        }
        {
            let mut facts = self.world.facts.lock();
            facts.attaches += 1;
            if let Some(kind) = facts.attach_fault {
                return Err(fault(kind));
            }
            if facts.mounts.contains_key(mountpoint) || facts.served.contains_key(&resolved.key) {
                facts.breaches.push(format!("{} was attached over what is there", resolved.key));
            }
            facts.minors += 1;
            let device = DeviceId { major: 0, minor: facts.minors };
            let mounted = Mounted { path: mountpoint.into(), device, fs_type: "fuse.volplane".into() };
            facts.mounts.insert(mountpoint.into(), mounted);
            facts.served.insert(resolved.key.clone(), device);
        }
        self.world.step().await;
        Ok(())
    }

    async fn inspect(&self, key: &MountKey, mountpoint: &Path) -> Inspection {
        self.world.step().await;
        let facts = self.world.facts.lock();
        match (facts.served.contains_key(key), facts.mounts.contains_key(mountpoint)) {
            (true, _) => Inspection::Live(Box::new(WorkerReport { pid: 1, ..WorkerReport::default() })),
            (false, true) => Inspection::Dead("its worker is gone".into()),
            (false, false) => Inspection::Absent,
        }
    }

    async fn refresh(&self, _: &MountKey) -> Result<(), Fault> {
        Ok(())
    }

    async fn detach(&self, key: &MountKey, mountpoint: &Path) -> Result<(), Fault> {
        self.world.step().await;
        {
            let mut facts = self.world.facts.lock();
            if let Some(kind) = facts.detach_fault {
                return Err(fault(kind));
            }
            if let Some(device) = facts.served.get(key).copied() {
                if facts.busy.contains(&device) {
                    return Err(fault(FaultKind::InUse));
                }
                if facts.mounts.contains_key(mountpoint) && facts.containers.values().any(|d| *d == device) {
                    facts.breaches.push(format!("{key} was detached while a container sees it"));
                }
                if facts.mounts.contains_key(mountpoint) && facts.referred.contains(key) {
                    facts.breaches.push(format!("{key} was detached while it is referred to"));
                }
            }
            facts.served.remove(key);
            facts.mounts.remove(mountpoint);
        }
        self.world.step().await;
        Ok(())
    }

    async fn survivors(&self) -> Vec<Survivor> {
        if self.driver != Driver::Cvmfs {
            return Vec::new();
        }
        self.world.step().await;
        let facts = self.world.facts.lock();
        let survivor = |mounted: &Mounted| {
            let key = MountKey::new(mounted.path.file_name()?.to_str()?)?;
            let alive = facts.served.get(&key) == Some(&mounted.device);
            Some(Survivor { key, mountpoint: mounted.path.clone(), alive })
        };
        let below = facts.mounts.values().filter(|m| m.path.parent().is_some_and(|p| p.ends_with("mounts")));
        below.filter_map(survivor).collect()
    }
}

#[async_trait]
impl Kernel for Fake {
    async fn mounts(&self) -> Result<Vec<Mounted>, Fault> {
        self.world.step().await;
        Ok(self.world.facts.lock().mounts.values().cloned().collect())
    }

    async fn seen(&self, asked: &[Asked]) -> Result<Vec<Option<String>>, Fault> {
        self.world.step().await;
        let facts = self.world.facts.lock();
        if let Some(kind) = facts.seen_fault {
            return Err(fault(kind));
        }
        let who = |asked: &Asked| {
            let device = facts.mounts.get(&asked.primary).map(|mounted| mounted.device).or(asked.device)?;
            let container = facts.containers.iter().find(|(_, seen)| **seen == device);
            let bind = facts.mounts.values().find(|m| m.device == device && m.path != asked.primary);
            container
                .map(|(number, _)| format!("container {number}"))
                .or(bind.map(|m| m.path.display().to_string()))
        };
        Ok(asked.iter().map(who).collect())
    }

    async fn make_mountpoint(&self, _: &Path) -> Result<(), Fault> {
        self.world.step().await;
        Ok(())
    }

    async fn remove_mountpoint(&self, _: &Path) {
        self.world.step().await;
    }

    async fn device_at(&self, path: &Path) -> Result<Option<DeviceId>, Fault> {
        self.world.step().await;
        Ok(self.world.facts.lock().mounts.get(path).map(|mounted| mounted.device))
    }

    async fn find(&self, spot: &Spot) -> Result<Found, Fault> {
        self.world.step().await;
        let facts = self.world.facts.lock();
        Ok(match facts.mounts.get(&spot.path) {
            Some(mounted) => Found::Mount(mounted.device),
            None if facts.nodes.contains(&spot.path) => Found::Plain,
            None => Found::Nothing,
        })
    }

    async fn bind(
        &self,
        source: &Path,
        device: DeviceId,
        spot: &Spot,
        read_only: bool,
    ) -> Result<bool, Fault> {
        self.world.step().await;
        let hangs = std::mem::take(&mut self.world.facts.lock().bind_hangs);
        if hangs {
            self.world.stopped.notify_one();
            self.world.resume.notified().await;
        }
        let made = {
            let mut facts = self.world.facts.lock();
            if let Some(kind) = facts.bind_fault {
                return Err(fault(kind));
            }
            let mountpoint = match spot.node {
                Node::Directory => source,
                Node::File => source.parent().unwrap(),
            };
            let mounted = facts.mounts.get(mountpoint).filter(|mounted| mounted.device == device).cloned();
            let Some(mut mounted) = mounted else { return Err(fault(FaultKind::Unavailable)) };
            if facts.mounts.contains_key(&spot.path) {
                facts.breaches.push(format!("a second mount was bound onto {}", spot.path.display()));
            }
            mounted.path.clone_from(&spot.path);
            facts.mounts.insert(spot.path.clone(), mounted);
            facts.binds.push((spot.clone(), read_only));
            facts.nodes.insert(spot.path.clone())
        };
        self.world.step().await;
        Ok(made)
    }

    async fn unbind(&self, spot: &Spot, _dead: bool, remove: bool) -> Result<(), Fault> {
        self.world.step().await;
        {
            let mut facts = self.world.facts.lock();
            if let Some(kind) = facts.bind_fault.or(facts.unbind_fault) {
                return Err(fault(kind));
            }
            facts.mounts.remove(&spot.path);
            if remove {
                facts.nodes.remove(&spot.path);
            }
        }
        self.world.step().await;
        Ok(())
    }

    async fn remove(&self, spot: &Spot) -> Result<(), Fault> {
        self.world.step().await;
        self.world.facts.lock().nodes.remove(&spot.path);
        Ok(())
    }
}
