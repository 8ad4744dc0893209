//! What a storage plugin does for the registry.

use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::{
    Abilities, Driver, Fault, FaultKind, Form, Frontend, MountKey, NodeAbilities, OptionMap, Secrets,
    SizeRange, VolumeSpec, VolumeStats, WorkerReport,
};

/// Who wrote the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Author {
    /// Whoever administers the node or the cluster: everything is allowed that the backend can do.
    Admin,
    /// The author of a pod (inline CSI and FlexVolume volumes): only what the admin's allow-list has.
    Pod,
}

/// Who asks. Decides which options are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The door.
    pub frontend: Frontend,
    /// Whose options these are.
    pub author: Author,
    /// Secrets that came with this call; never stored by the registry.
    pub secrets: Secrets,
}

impl Caller {
    /// An admin without secrets.
    pub const fn admin(frontend: Frontend) -> Self {
        Caller { frontend, author: Author::Admin, secrets: Secrets::new() }
    }

    /// The author of a pod, without secrets.
    pub const fn pod(frontend: Frontend) -> Self {
        Caller { frontend, author: Author::Pod, secrets: Secrets::new() }
    }

    /// The same caller with secrets.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }
}

/// A spec after everything that can change was looked up: configuration, identity.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resolved {
    /// Identity of the mount.
    pub key: MountKey,
    /// What was asked for.
    pub spec: VolumeSpec,
    /// What the worker needs to serve it; the backend's own JSON, opaque to the registry. No secrets.
    pub payload: serde_json::Value,
}

/// A mount found alive (a worker that survived the daemon) or dead (an entry of the mount table) at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// Identity of the mount.
    pub key: MountKey,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Whether it is served.
    pub alive: bool,
}

/// State of a mount as the backend sees it now, without asking the network.
#[derive(Debug, Clone, PartialEq)]
pub enum Inspection {
    /// Served; with the worker's newest report.
    Live(Box<WorkerReport>),
    /// Mounted, but nobody serves it and nobody will: detach and attach anew.
    Dead(String),
    /// Not there.
    Absent,
}

/// A storage plugin. All methods have deadlines of their own and may be called in parallel for different keys;
/// the registry never calls two of them at once for one key.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The driver name.
    fn driver(&self) -> Driver;

    /// Parses what a user typed. The one place where this backend looks at option texts; an unknown option is an
    /// error that names the nearest known one. `name` is the volume name, when the frontend has one.
    fn parse(
        &self,
        name: Option<&str>,
        options: &OptionMap,
        form: &Form,
        caller: &Caller,
    ) -> Result<VolumeSpec, Fault>;

    /// What it can do with volumes beside mounting them. A backend without volumes of its own (CVMFS) answers `None`;
    /// the registry then keeps "provisioned" volumes as named sets of options.
    fn abilities(&self) -> Option<Abilities> {
        None
    }

    /// What its mounts can do on a node.
    fn node_abilities(&self) -> NodeAbilities {
        NodeAbilities::default()
    }

    /// Fills what statfs on `mountpoint` cannot tell; `None`: statfs is the answer.
    async fn stats(&self, _key: &MountKey, _mountpoint: &Path) -> Option<Result<VolumeStats, Fault>> {
        None
    }

    /// Grows the attached volume (device and file system, online) to its provisioned size; answers the new size in
    /// bytes. [`FaultKind::OutOfRange`]: it cannot have such a size.
    async fn grow(&self, key: &MountKey, _mountpoint: &Path, _size: SizeRange) -> Result<u64, Fault> {
        let detail = "volumes of this driver have no size that could grow";
        Err(Fault::new(FaultKind::Unsupported, "grow", key.as_str(), detail))
    }

    /// Reads the node's configuration for the spec and makes the mount's identity. No network.
    async fn resolve(&self, spec: &VolumeSpec, caller: &Caller) -> Result<Resolved, Fault>;

    /// Mounts it at `mountpoint` (an existing empty directory). Returns when the first byte can be read. On an
    /// error nothing is left mounted and no process runs.
    async fn attach(&self, resolved: &Resolved, mountpoint: &Path) -> Result<(), Fault>;

    /// Looks at a mount. Bounded by a second.
    async fn inspect(&self, key: &MountKey, mountpoint: &Path) -> Inspection;

    /// Looks for a new revision now. What was resolved stays: changed configuration counts from the next attach on.
    async fn refresh(&self, key: &MountKey) -> Result<(), Fault>;

    /// Takes it down. [`crate::FaultKind::InUse`] if the kernel says that somebody uses it (nothing has changed
    /// then). Of what is not there: success.
    async fn detach(&self, key: &MountKey, mountpoint: &Path) -> Result<(), Fault>;

    /// What survived the daemon's last life, adopted where it is alive. Called once, at start.
    async fn survivors(&self) -> Vec<Survivor>;
}
