//! The storage plugin as the registry sees it.
//!
//! It runs in the daemon, reads the node's configuration and key files, and hands workers what they need. It never
//! opens a repository itself: bytes from the network are the workers' business.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use volume::{
    Backend, Caller, CvmfsAllSpec, CvmfsSpec, Driver, Fault, FaultKind, Form, Inspection, LaunchRequest,
    MountKey, OptionMap, Resolved, Survivor, VolumeSpec, WorkerPool,
};

use crate::client::config::{
    ConfigError, ConfigTree, Origin, Parameters, SYSTEM_DIR, chain, read_setup, setup,
};
use crate::client::fqrn::Fqrn;
use crate::client::trust::TrustPolicy;
use crate::identity::mount_key;
use crate::options::{self, CONFIG_FILE, PodRules, vocabulary};
use crate::payload::{AllSetup, KeyText, Kind, Owner, Payload};

/// The parameter that bounds the cache.
const QUOTA: &str = "CVMFS_QUOTA_LIMIT";

/// What the daemon decides for all CVMFS volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CvmfsSettings {
    /// The node's configuration, usually `/etc/cvmfs`.
    pub config_dir: PathBuf,
    /// The cache that all workers of the node share.
    pub cache_dir: PathBuf,
    /// Size of the cache in MiB, where neither the site's configuration nor the volume sets `CVMFS_QUOTA_LIMIT`.
    pub quota_mib: Option<u64>,
    /// How long one request of a mount may take.
    pub deadline: Duration,
    /// What authors of pods may ask for.
    pub pods: PodRules,
}

/// CernVM-FS as a storage plugin.
pub struct CvmfsBackend {
    settings: CvmfsSettings,
    pool: Arc<dyn WorkerPool>,
}

impl CvmfsBackend {
    /// A backend whose mounts are served by this pool's workers.
    pub fn new(settings: CvmfsSettings, pool: Arc<dyn WorkerPool>) -> Self {
        CvmfsBackend { settings, pool }
    }
}

/// Reads all that a worker needs, and makes the mount's identity. Reads files, so it is called where that may block.
///
/// # Errors
/// Configuration, servers or keys are missing or wrong; the fault names the file to make or mend.
pub fn prepare(settings: &CvmfsSettings, spec: &VolumeSpec) -> Result<Resolved, Fault> {
    let (effective, (kind, owner)) = match spec {
        VolumeSpec::Cvmfs(one_of) => {
            let effective = with_config_file(settings, one_of)?;
            let parts = one(settings, &effective)?;
            (VolumeSpec::Cvmfs(effective), parts)
        }
        VolumeSpec::CvmfsAll(tree) => (spec.clone(), all(settings, tree)?),
        VolumeSpec::Rbd(_) => return Err(foreign(spec)),
    };
    let key = mount_key(&effective).ok_or_else(|| foreign(spec))?;
    let payload = Payload {
        kind,
        cache_dir: settings.cache_dir.clone(),
        deadline_ms: u64::try_from(settings.deadline.as_millis()).unwrap_or(u64::MAX),
        owner,
    };
    let payload = serde_json::to_value(payload)
        .map_err(|error| Fault::new(FaultKind::Internal, "write payload", "", error.to_string()))?;
    Ok(Resolved { key, spec: spec.clone(), payload })
}

fn foreign(spec: &VolumeSpec) -> Fault {
    Fault::new(FaultKind::Internal, "resolve", spec.driver().as_str(), "the volume belongs to another driver")
}

fn repository_name(spec: &CvmfsSpec) -> Result<Fqrn, Fault> {
    spec.repository.parse().map_err(|error| {
        Fault::new(FaultKind::InvalidArgument, "resolve", &spec.repository, format!("{error}"))
    })
}

/// The spec with what its file of configuration says in the file's place; other options of the volume win over it. So
/// volumes share a mount by what the file says now, not by its name.
fn with_config_file(settings: &CvmfsSettings, spec: &CvmfsSpec) -> Result<CvmfsSpec, Fault> {
    let mut effective = spec.clone();
    let Some(path) = effective.parameters.remove(CONFIG_FILE) else { return Ok(effective) };
    let fqrn = repository_name(spec)?;
    let tree = ConfigTree::new(&settings.config_dir);
    let said =
        chain::read_file(&tree, Path::new(&path), &fqrn).map_err(|error| config_fault(&fqrn, error))?;
    for (name, value) in said {
        effective.parameters.entry(name).or_insert(value);
    }
    Ok(effective)
}

fn one(settings: &CvmfsSettings, spec: &CvmfsSpec) -> Result<(Kind, Owner), Fault> {
    let fqrn = repository_name(spec)?;
    let tree = ConfigTree::new(&settings.config_dir);
    let fault = |error| config_fault(&fqrn, error);
    let (overrides, keys) = own_keys(&tree, &spec.parameters).map_err(fault)?;
    let mut setup = read_setup(&tree, &fqrn, &spec.revision, &overrides, &keys).map_err(fault)?;
    TrustPolicy::from_setup(&setup)?;
    if let (Some(mib), None) = (settings.quota_mib, setup.parameters.get(QUOTA)) {
        setup.parameters.set(QUOTA, mib.to_string(), Origin::file("cvmfs.quota_mib of the daemon", 0));
        setup.client_config().map_err(|error| fault(error.into()))?;
    }
    let owner = owner(&setup.parameters);
    Ok((Kind::One(Box::new(setup)), owner))
}

fn all(settings: &CvmfsSettings, spec: &CvmfsAllSpec) -> Result<(Kind, Owner), Fault> {
    let tree = ConfigTree::new(&settings.config_dir);
    let fault = |error: ConfigError| config_fault("all repositories", error);
    let (mut overrides, master_keys) = own_keys(&tree, &spec.parameters).map_err(fault)?;
    let configured = chain::configured(&tree).map_err(fault)?;
    let node = chain::read(&tree, None, &OptionMap::new()).map_err(fault)?;
    // The worker opens the cache before it reads any repository's configuration.
    let quota = node.get(QUOTA).map(str::to_owned).or(settings.quota_mib.map(|mib| mib.to_string()));
    if let Some(quota) = quota {
        overrides.entry(QUOTA.to_owned()).or_insert(quota);
    }
    let setup = AllSetup { config_dir: settings.config_dir.clone(), overrides, master_keys, configured };
    Ok((Kind::All(setup), owner(&node)))
}

/// Reads the keys that a volume names itself; what remains are its other parameters. A worker cannot read the files.
fn own_keys(tree: &ConfigTree, parameters: &OptionMap) -> Result<(OptionMap, Vec<KeyText>), ConfigError> {
    let mut rest = parameters.clone();
    let mut keys = Vec::new();
    if let Some(value) = rest.remove("CVMFS_PUBLIC_KEY") {
        if vocabulary::is_inline_key(&value) {
            keys.push(KeyText { origin: "option public_key".to_owned(), pem: value });
        } else {
            for path in value.split(':').filter(|path| !path.is_empty()) {
                keys.push(setup::read_key(tree, Path::new(path))?);
            }
        }
    }
    if let Some(directory) = rest.remove("CVMFS_KEYS_DIR") {
        let files = tree.list(Path::new(&directory), ".pub");
        if files.is_empty() && setup::is_packaged_keys(Path::new(&directory)) {
            // What the package of the C++ client brings is built in, and the node's own keys are looked for.
            return Ok((rest, keys));
        }
        if files.is_empty() {
            let error = std::io::Error::other("it has no *.pub file");
            return Err(ConfigError::Unreadable { path: directory.into(), error });
        }
        for path in files {
            keys.push(setup::read_key(tree, &path)?);
        }
    }
    Ok((rest, keys))
}

/// A configuration error as a user sees it.
fn config_fault(subject: impl ToString, error: ConfigError) -> Fault {
    let kind = match &error {
        ConfigError::Parameter(wrong) if wrong.origin == Origin::volume_option() => {
            FaultKind::InvalidArgument
        }
        ConfigError::Shell(_)
        | ConfigError::Parameter(_)
        | ConfigError::Unreadable { .. }
        | ConfigError::NoServer { .. }
        | ConfigError::NoKey { .. } => FaultKind::Unsupported,
    };
    Fault::new(kind, "read configuration of", subject.to_string(), error.to_string())
}

/// What the pool is asked for.
///
/// # Errors
/// The payload is not one of ours.
pub fn launch_request(resolved: &Resolved, mountpoint: &Path) -> Result<LaunchRequest, Fault> {
    let payload: Payload = serde_json::from_value(resolved.payload.clone()).map_err(|error| {
        Fault::new(FaultKind::Internal, "read payload of", resolved.key.as_str(), error.to_string())
    })?;
    let (suid, fs_name, readable) = match &payload.kind {
        Kind::One(setup) => {
            let config =
                setup.client_config().map_err(|error| config_fault(&setup.repository, error.into()))?;
            (config.suid, setup.repository.clone(), Vec::new())
        }
        Kind::All(setup) => {
            let tree = ConfigTree::new(&setup.config_dir);
            let node = chain::read(&tree, None, &setup.overrides)
                .map_err(|error| config_fault("all repositories", error))?;
            let suid = node.get("CVMFS_SUID").is_some_and(|value| value.eq_ignore_ascii_case("yes"));
            (suid, "cvmfs".to_owned(), readable_for_all(&setup.config_dir, node.get("CVMFS_KEYS_DIR")))
        }
    };
    Ok(LaunchRequest {
        key: resolved.key.clone(),
        driver: Driver::Cvmfs,
        mountpoint: mountpoint.to_owned(),
        payload: resolved.payload.clone(),
        writable: vec![payload.cache_dir],
        readable,
        suid,
        fs_name,
    })
}

/// Directories in which a worker for all repositories looks for configuration at their first lookup.
fn readable_for_all(config_dir: &Path, keys_dir: Option<&str>) -> Vec<PathBuf> {
    let mut paths = vec![config_dir.to_owned()];
    paths.extend(keys_dir.map(PathBuf::from));
    paths.push(SYSTEM_DIR.into());
    paths.retain(|path| path.is_absolute() && path.is_dir());
    paths.dedup();
    paths
}

/// Who files belong to where the configuration claims them all for one user: the caller when it is not root, else
/// `CVMFS_USER` where the node has it (as with the C++ client), else root.
fn owner(parameters: &Parameters) -> Owner {
    let own = nix::unistd::geteuid();
    if !own.is_root() {
        return Owner { uid: own.as_raw(), gid: nix::unistd::getegid().as_raw() };
    }
    let user =
        parameters.get("CVMFS_USER").and_then(|name| nix::unistd::User::from_name(name).ok().flatten());
    user.map_or(Owner { uid: 0, gid: 0 }, |user| Owner { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

#[async_trait]
impl Backend for CvmfsBackend {
    fn driver(&self) -> Driver {
        Driver::Cvmfs
    }

    fn parse(
        &self,
        name: Option<&str>,
        options: &OptionMap,
        form: &Form,
        caller: &Caller,
    ) -> Result<VolumeSpec, Fault> {
        let spec = options::parse(name, options, caller, &self.settings.pods)?;
        options::form::check(form, &spec)?;
        Ok(spec)
    }

    async fn resolve(&self, spec: &VolumeSpec, _caller: &Caller) -> Result<Resolved, Fault> {
        let (settings, spec) = (self.settings.clone(), spec.clone());
        blocking(move || prepare(&settings, &spec)).await
    }

    async fn attach(&self, resolved: &Resolved, mountpoint: &Path) -> Result<(), Fault> {
        let (resolved, mountpoint) = (resolved.clone(), mountpoint.to_owned());
        let request = blocking(move || launch_request(&resolved, &mountpoint)).await?;
        self.pool.launch(request).await.map(|_| ())
    }

    async fn inspect(&self, key: &MountKey, mountpoint: &Path) -> Inspection {
        match self.pool.report(key).await {
            Some(Ok(report)) => Inspection::Live(Box::new(report)),
            Some(Err(fault)) => Inspection::Dead(fault.to_string()),
            None if is_fuse_mount(mountpoint) => {
                Inspection::Dead("it is mounted, but no worker of this daemon serves it".to_owned())
            }
            None => Inspection::Absent,
        }
    }

    async fn refresh(&self, key: &MountKey) -> Result<(), Fault> {
        self.pool.refresh(key).await
    }

    async fn detach(&self, key: &MountKey, mountpoint: &Path) -> Result<(), Fault> {
        self.pool.stop(key, mountpoint).await
    }

    async fn survivors(&self) -> Vec<Survivor> {
        self.pool.survivors(Driver::Cvmfs).await
    }
}

/// Runs what reads files away from the threads that answer requests.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let broken =
        |error: tokio::task::JoinError| Fault::new(FaultKind::Internal, "resolve", "", error.to_string());
    tokio::task::spawn_blocking(work).await.map_err(broken)?
}

/// Whether a FUSE file system is mounted at exactly this path; from the mount table, so a dead one cannot hang us.
fn is_fuse_mount(mountpoint: &Path) -> bool {
    let table = host::mountinfo::MountTable::own();
    table.is_ok_and(|table| table.at(mountpoint).is_some_and(|entry| entry.fs_type.starts_with("fuse")))
}

#[cfg(test)]
mod tests;
