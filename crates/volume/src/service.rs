//! What a frontend can ask for. Only `registry` implements it.

use std::path::PathBuf;

use async_trait::async_trait;

use crate::{
    Abilities, BindTarget, Caller, Driver, Fault, Form, MountStatus, NodeAbilities, OptionMap, RefId,
    SizeRange, VolumeName, VolumeSpec, VolumeStats,
};

/// A defined volume.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: VolumeName,
    /// What it is.
    pub spec: VolumeSpec,
    /// The options it was defined with.
    pub options: OptionMap,
    /// When it was defined, seconds since the epoch, UTC.
    pub created_at: u64,
    /// Where it is mounted; `None` without a mount.
    pub mountpoint: Option<PathBuf>,
    /// The mount behind it, if it has one.
    pub mount: Option<MountStatus>,
}

/// Where the caller wants the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// At the mount's own place; the caller binds it itself (Docker).
    Shared,
    /// Bound onto a path by us (FlexVolume, CSI, `volplane mount`).
    Bind(BindTarget),
}

/// A successful acquire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquired {
    /// Absolute path that exists and shows the volume.
    pub path: PathBuf,
}

/// The registry as frontends see it.
///
/// Every method answers within the registry's deadlines. `get`, `list` and `mounts` answer from memory at
/// once, also while backends start or are ill.
#[async_trait]
pub trait VolumeService: Send + Sync {
    /// Defines a volume. Defining it again with the same options, or with none at all, succeeds and changes nothing;
    /// with other options it is [`crate::FaultKind::AlreadyExists`].
    async fn define(
        &self,
        driver: Driver,
        name: &VolumeName,
        options: &OptionMap,
        caller: &Caller,
    ) -> Result<VolumeInfo, Fault>;

    /// Forgets a volume and all references to it by name. [`crate::FaultKind::InUse`] while a mount namespace still
    /// shows it. Of an unknown one: [`crate::FaultKind::NotFound`].
    async fn remove(&self, driver: Driver, name: &VolumeName) -> Result<(), Fault>;

    /// One defined volume.
    async fn get(&self, driver: Driver, name: &VolumeName) -> Result<VolumeInfo, Fault>;

    /// All defined volumes of a driver, by name.
    async fn list(&self, driver: Driver) -> Result<Vec<VolumeInfo>, Fault>;

    /// Makes the named volume available and records `reference`. Idempotent per reference: a repeated one heals and
    /// answers the same path. On an error the reference is not held.
    async fn acquire_named(
        &self,
        driver: Driver,
        name: &VolumeName,
        reference: &RefId,
        target: &Target,
    ) -> Result<Acquired, Fault>;

    /// Makes an unnamed volume available and records `reference`. A repeat with the same spec heals what is dead and
    /// leaves alone what works, also when the node's configuration has changed since; with another spec (or another
    /// `read_only`) at the same target it is [`crate::FaultKind::AlreadyExists`] for FlexVolume and CSI. A target that
    /// another reference has, or on which something else is mounted, is that too; one that links lead to or that is not
    /// where [`BindTarget::beneath`] says is [`crate::FaultKind::InvalidArgument`]; for [`crate::Sharing::Single`] see there.
    ///
    /// FlexVolume's and CSI's references bear the target's path as their `id` and are ordered by themselves: a second
    /// request for one that is being worked on is [`crate::FaultKind::Busy`], those for other targets of the volume are not. A caller
    /// that drops the future gets a fresh bind taken back.
    async fn acquire(
        &self,
        spec: &VolumeSpec,
        reference: &RefId,
        target: &Target,
        caller: &Caller,
    ) -> Result<Acquired, Fault>;

    /// Gives a reference back (and removes its bind mount). Of an unknown one: success. The mount itself goes when
    /// nobody refers to it and no mount namespace shows it. An unknown FlexVolume or CSI reference whose target (its
    /// `id`) shows a file system of ours, because the journal was lost, is unmounted; what else is mounted there stays.
    /// [`crate::FaultKind::InUse`]: a program of the host has a file of the target open.
    async fn release(&self, reference: &RefId) -> Result<(), Fault>;

    /// Parses options into a spec with the driver's backend.
    fn parse(
        &self,
        driver: Driver,
        name: Option<&str>,
        options: &OptionMap,
        form: &Form,
        caller: &Caller,
    ) -> Result<VolumeSpec, Fault>;

    /// What can be done with volumes of the driver (create, grow, snapshot, …). A driver whose backend has no volumes of
    /// its own can make, list and delete named sets of options. [`crate::FaultKind::Unsupported`] when the daemon has no
    /// such backend.
    fn abilities(&self, driver: Driver) -> Result<Abilities, Fault>;

    /// What mounts of the driver can do on this node.
    fn node_abilities(&self, driver: Driver) -> Result<NodeAbilities, Fault>;

    /// The mount that a reference holds, as [`mounts`](VolumeService::mounts) shows it; `None` of an unknown one.
    async fn mount_of(&self, reference: &RefId) -> Option<MountStatus>;

    /// How full the volume behind a reference is. [`crate::FaultKind::NotFound`] of an unknown reference;
    /// [`crate::FaultKind::Unavailable`] when the mount is dead or gives no answer in time.
    async fn stats(&self, reference: &RefId) -> Result<VolumeStats, Fault>;

    /// Grows the volume behind a reference on this node; answers its size in bytes.
    async fn grow(&self, reference: &RefId, size: SizeRange) -> Result<u64, Fault>;

    /// Whether the comparison of books and world at start is over: acquires need not wait for it any more.
    async fn is_ready(&self) -> bool;

    /// All mounts, by key.
    async fn mounts(&self) -> Vec<MountStatus>;

    /// Looks for a new revision of every mount of the driver now.
    async fn refresh(&self, driver: Driver) -> Result<(), Fault>;
}
