//! A [`VolumeService`] in memory, for the unit tests of frontends only.
//!
//! It keeps the contract of the trait (idempotent references, `define` that never overwrites) and can be told to
//! fail or to be slow. It mounts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    Abilities, Acquired, Caller, CvmfsSpec, Driver, Fault, FaultKind, Form, MountKey, MountState,
    MountStatus, NodeAbilities, OptionMap, RefId, Revision, SizeRange, Target, VolumeInfo, VolumeName,
    VolumeService, VolumeSpec, VolumeStats,
};

/// What the fake holds; tests look at it and change it.
#[derive(Default)]
pub struct Inner {
    /// Defined volumes and their options.
    pub volumes: BTreeMap<VolumeName, OptionMap>,
    /// References held.
    pub references: BTreeSet<RefId>,
    /// The fault that the next acquires answer.
    pub acquire_fault: Option<Fault>,
    /// How long an acquire takes.
    pub acquire_delay: Duration,
    /// What can be done with volumes.
    pub abilities: Option<Abilities>,
    /// What mounts can do.
    pub node_abilities: NodeAbilities,
    /// What `mounts` answers.
    pub mounts: Vec<MountStatus>,
    /// Acquires begun.
    pub acquires: usize,
}

/// The service in memory.
#[derive(Default)]
pub struct FakeService {
    /// Its content.
    pub inner: Mutex<Inner>,
}

impl FakeService {
    fn info(&self, name: &VolumeName) -> Result<VolumeInfo, Fault> {
        let inner = self.inner.lock();
        let options = inner
            .volumes
            .get(name)
            .ok_or_else(|| Fault::new(FaultKind::NotFound, "get", name.as_str(), "no such volume"))?;
        let used = inner.references.iter().any(|reference| reference.scope == name.as_str());
        Ok(VolumeInfo {
            name: name.clone(),
            spec: spec(name.as_str()),
            options: options.clone(),
            created_at: 1_767_323_045,
            mountpoint: used.then(|| PathBuf::from("/run/fake").join(name.as_str())),
            mount: None,
        })
    }
}

fn spec(name: &str) -> VolumeSpec {
    VolumeSpec::Cvmfs(CvmfsSpec {
        repository: name.to_owned(),
        revision: Revision::Trunk,
        parameters: OptionMap::new(),
    })
}

#[async_trait]
impl VolumeService for FakeService {
    async fn define(
        &self,
        driver: Driver,
        name: &VolumeName,
        options: &OptionMap,
        caller: &Caller,
    ) -> Result<VolumeInfo, Fault> {
        self.parse(driver, Some(name.as_str()), options, &Form::default(), caller)?;
        {
            let mut inner = self.inner.lock();
            let old = inner.volumes.entry(name.clone()).or_insert_with(|| options.clone());
            if old != options && !options.is_empty() {
                let detail = "it is defined with other options; remove it first";
                return Err(Fault::new(FaultKind::AlreadyExists, "create", name.as_str(), detail));
            }
        }
        self.info(name)
    }

    async fn remove(&self, _driver: Driver, name: &VolumeName) -> Result<(), Fault> {
        let mut inner = self.inner.lock();
        if inner.references.iter().any(|reference| reference.scope == name.as_str()) {
            return Err(Fault::new(FaultKind::InUse, "remove", name.as_str(), "a container uses it"));
        }
        let gone = inner.volumes.remove(name);
        gone.map(drop)
            .ok_or_else(|| Fault::new(FaultKind::NotFound, "remove", name.as_str(), "no such volume"))
    }

    async fn get(&self, _driver: Driver, name: &VolumeName) -> Result<VolumeInfo, Fault> {
        self.info(name)
    }

    async fn list(&self, _driver: Driver) -> Result<Vec<VolumeInfo>, Fault> {
        let names: Vec<VolumeName> = self.inner.lock().volumes.keys().cloned().collect();
        names.iter().map(|name| self.info(name)).collect()
    }

    async fn acquire_named(
        &self,
        _driver: Driver,
        name: &VolumeName,
        reference: &RefId,
        target: &Target,
    ) -> Result<Acquired, Fault> {
        self.info(name)?;
        let caller = Caller::admin(reference.frontend);
        self.acquire(&spec(name.as_str()), reference, target, &caller).await
    }

    async fn acquire(
        &self,
        spec: &VolumeSpec,
        reference: &RefId,
        target: &Target,
        _caller: &Caller,
    ) -> Result<Acquired, Fault> {
        let delay = {
            let mut inner = self.inner.lock();
            inner.acquires += 1;
            inner.acquire_delay
        };
        // The fake has no runtime of its own; a delay is a future that the test's clock drives.
        if !delay.is_zero() {
            std::future::pending::<()>().await;
        }
        let mut inner = self.inner.lock();
        if let Some(fault) = &inner.acquire_fault {
            return Err(fault.clone());
        }
        inner.references.insert(reference.clone());
        let VolumeSpec::Cvmfs(CvmfsSpec { repository, .. }) = spec else {
            return Ok(Acquired { path: PathBuf::from("/run/fake/all") });
        };
        let path = match target {
            Target::Shared => PathBuf::from("/run/fake").join(repository),
            Target::Bind(target) => target.path.clone(),
        };
        Ok(Acquired { path })
    }

    async fn release(&self, reference: &RefId) -> Result<(), Fault> {
        self.inner.lock().references.remove(reference);
        Ok(())
    }

    fn parse(
        &self,
        _driver: Driver,
        name: Option<&str>,
        options: &OptionMap,
        _form: &Form,
        _caller: &Caller,
    ) -> Result<VolumeSpec, Fault> {
        if let Some(bad) = options.keys().find(|key| *key != "repository" && *key != "tag") {
            let detail = format!("unknown option {bad:?}; known: repository, tag");
            return Err(Fault::new(
                FaultKind::InvalidArgument,
                "parse options of",
                name.unwrap_or(""),
                detail,
            ));
        }
        Ok(spec(options.get("repository").map_or(name.unwrap_or(""), String::as_str)))
    }

    fn abilities(&self, driver: Driver) -> Result<Abilities, Fault> {
        self.inner.lock().abilities.clone().ok_or_else(|| {
            Fault::new(
                FaultKind::Unsupported,
                "provision",
                driver.as_str(),
                "the fake has been given no abilities",
            )
        })
    }

    fn node_abilities(&self, _driver: Driver) -> Result<NodeAbilities, Fault> {
        Ok(self.inner.lock().node_abilities)
    }

    async fn mount_of(&self, reference: &RefId) -> Option<MountStatus> {
        self.inner.lock().references.contains(reference).then(|| MountStatus {
            key: MountKey::new("fake").expect("a key"),
            backend: Driver::Cvmfs,
            state: MountState::Live,
            mountpoint: PathBuf::from("/run/fake"),
            worker_pid: None,
            references: vec![reference.clone()],
            in_use_without_reference: false,
            last_error: None,
            revision: None,
            health: "healthy".to_owned(),
            restarts: 0,
            details: BTreeMap::new(),
        })
    }

    async fn stats(&self, reference: &RefId) -> Result<VolumeStats, Fault> {
        if self.inner.lock().references.contains(reference) {
            return Ok(VolumeStats::default());
        }
        Err(Fault::new(FaultKind::NotFound, "look at", reference.scope.clone(), "not mounted there"))
    }

    async fn grow(&self, reference: &RefId, size: SizeRange) -> Result<u64, Fault> {
        self.stats(reference).await.map(|_| size.required.unwrap_or(0))
    }

    async fn is_ready(&self) -> bool {
        true
    }

    async fn mounts(&self) -> Vec<MountStatus> {
        self.inner.lock().mounts.clone()
    }

    async fn refresh(&self, _driver: Driver) -> Result<(), Fault> {
        Ok(())
    }
}
