//! What only some backends can do with volumes: one small trait for each ability.
//!
//! A frontend offers exactly the abilities that are there ([`Abilities`]), so a backend switches a feature on by
//! implementing its trait. All calls are idempotent: the same request again answers the same thing; a request that
//! contradicts an earlier one is [`crate::FaultKind::AlreadyExists`]. Each has a deadline of its own and may be called several
//! times at once for the same volume; a call that would have to wait for another one answers
//! [`crate::FaultKind::Busy`]. The rules are those of the CSI specification, section "RPC Interface".

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Fault, Form, GroupSnapshots, OptionMap, Secrets, SnapshotExtents, Snapshots};

/// Bytes wanted: at least `required`, at most `limit`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SizeRange {
    /// At least so many; `None`: the backend's default.
    pub required: Option<u64>,
    /// At most so many.
    pub limit: Option<u64>,
}

impl SizeRange {
    /// Whether a volume of `size` bytes satisfies the range.
    pub fn contains(&self, size: u64) -> bool {
        self.required.is_none_or(|required| size >= required) && self.limit.is_none_or(|limit| size <= limit)
    }
}

/// Where the content of a new volume comes from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Id of a snapshot.
    Snapshot(String),
    /// Id of another volume (a clone).
    Volume(String),
}

/// A set of topology segments, `key -> value`: one place where a volume can be reached.
pub type Segments = OptionMap;

/// What a new volume shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVolume {
    /// The caller's name for it; the same name is the same volume.
    pub name: String,
    /// Wanted size.
    pub size: SizeRange,
    /// What the admin's StorageClass says.
    pub parameters: OptionMap,
    /// What the VolumeAttributesClass says; can be changed later ([`Modify`]).
    pub mutable_parameters: OptionMap,
    /// Content; `None`: empty.
    pub source: Option<Source>,
    /// How it will be used; at least one.
    pub forms: Vec<Form>,
    /// Places, best first, of which one must be able to reach it; empty: anywhere.
    pub places: Vec<Segments>,
}

/// A volume that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVolume {
    /// Its id, at most 128 bytes; what `delete` and the rest take.
    pub id: String,
    /// Size in bytes; 0: has none (CVMFS).
    pub size: u64,
    /// What a node needs to know to mount it; options for [`crate::Backend::parse`]. No secrets.
    pub context: OptionMap,
    /// What its content came from.
    pub source: Option<Source>,
    /// Where it can be reached; empty: anywhere.
    pub places: Vec<Segments>,
    /// Ids of the nodes that it is published to.
    pub nodes: Vec<String>,
    /// `None` is healthy.
    pub trouble: Option<Trouble>,
}

/// What is wrong with a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How bad.
    pub severity: Severity,
    /// For people, without secrets.
    pub detail: String,
}

/// How bad a volume's trouble is (CSI 1.13: DEGRADED, INACCESSIBLE, DATA_LOSS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Works, but not as it should.
    Degraded,
    /// Cannot be read or written now.
    Inaccessible,
    /// Content is lost.
    DataLoss,
}

/// A part of a long list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries, in the list's order.
    pub entries: Vec<T>,
    /// Where the next part begins; `None`: this was the last.
    pub next: Option<String>,
}

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// `next` of the part before; `None`: the first part. One that was never given out is
    /// [`crate::FaultKind::InvalidArgument`] (CSI: ABORTED).
    pub start: Option<String>,
    /// At most so many entries; 0: the backend's own limit.
    pub limit: usize,
}

/// Room for new volumes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// All volumes together may yet have so many.
    pub available: u64,
    /// One volume may have at most so many.
    pub largest: Option<u64>,
    /// One volume has at least so many.
    pub smallest: Option<u64>,
}

/// Volumes can be made and removed.
#[async_trait]
pub trait Provision: Send + Sync {
    /// Makes a volume. `AlreadyExists`: the name is taken by a volume that is not like this; `NotFound`: no such source;
    /// `InvalidArgument`: a parameter; `OutOfRange`: a size that no volume can have; `ResourceExhausted`: no room or no suitable place.
    async fn create(&self, wanted: &NewVolume, secrets: &Secrets) -> Result<StoredVolume, Fault>;

    /// Removes a volume. Of one that is not there: success. `InUse` while it is published or has dependents.
    async fn delete(&self, id: &str, secrets: &Secrets) -> Result<(), Fault>;

    /// One volume; `NotFound` if there is none.
    async fn volume(&self, id: &str) -> Result<StoredVolume, Fault>;

    /// All volumes, in the order of their ids.
    async fn volumes(&self, page: &PageRequest) -> Result<Page<StoredVolume>, Fault>;

    /// Checks that a volume can be used so without making anything; `InvalidArgument` says why not.
    async fn check(&self, id: &str, forms: &[Form], parameters: &OptionMap) -> Result<(), Fault>;
}

/// Room can be told.
#[async_trait]
pub trait TellCapacity: Send + Sync {
    /// Room for volumes with these parameters at this place.
    async fn capacity(&self, parameters: &OptionMap, place: Option<&Segments>) -> Result<Capacity, Fault>;
}

/// Volumes must be opened to a node before it can mount them (attach).
#[async_trait]
pub trait Publish: Send + Sync {
    /// Opens a volume to a node. Answers what the node needs beside the context. `NotFound`: no such volume or node;
    /// `InUse`: published elsewhere and not shareable; `AlreadyExists`: published there in another way;
    /// `ResourceExhausted`: the node has its fill.
    async fn publish(
        &self,
        id: &str,
        node: &str,
        read_only: bool,
        single_node: bool,
        secrets: &Secrets,
    ) -> Result<OptionMap, Fault>;

    /// Closes it again; `None`: for all nodes. Success if it was not open.
    async fn unpublish(&self, id: &str, node: Option<&str>, secrets: &Secrets) -> Result<(), Fault>;
}

/// Volumes can grow.
#[async_trait]
pub trait Grow: Send + Sync {
    /// Makes it larger. Answers the new size in bytes, and whether the node has to do its part
    /// ([`crate::VolumeService::grow`]). A size that it has already, or a larger one
    /// within the range, is success; `OutOfRange`: it cannot have such a size.
    async fn grow(&self, id: &str, size: SizeRange, secrets: &Secrets) -> Result<(u64, bool), Fault>;
}

/// Volumes have parameters that can change while they are used.
#[async_trait]
pub trait Modify: Send + Sync {
    /// Sets them; `InvalidArgument` names one that is not known, and nothing is changed then.
    async fn modify(&self, id: &str, parameters: &OptionMap, secrets: &Secrets) -> Result<(), Fault>;
}

/// What a backend can do with volumes.
#[derive(Clone)]
pub struct Abilities {
    /// Make, remove, list.
    pub provision: Arc<dyn Provision>,
    /// Whether a volume can begin as a copy of another one.
    pub clone: bool,
    /// Open to nodes; `None`: a node can mount without.
    pub publish: Option<Arc<dyn Publish>>,
    /// Tell room.
    pub capacity: Option<Arc<dyn TellCapacity>>,
    /// Grow.
    pub grow: Option<Arc<dyn Grow>>,
    /// Change parameters.
    pub modify: Option<Arc<dyn Modify>>,
    /// Snapshots.
    pub snapshots: Option<Arc<dyn Snapshots>>,
    /// Snapshots of several volumes at one instant.
    pub group_snapshots: Option<Arc<dyn GroupSnapshots>>,
    /// Which blocks a snapshot has, and what changed between two.
    pub extents: Option<Arc<dyn SnapshotExtents>>,
}

/// What a backend's mounts can do on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeAbilities {
    /// Can be written; else every mount is read-only.
    pub writable: bool,
    /// Can be written from several nodes at once.
    pub many_writers: bool,
    /// [`Form::Block`] is possible.
    pub block: bool,
    /// Can grow while mounted.
    pub grow: bool,
    /// Honours the `group` of [`Form::Filesystem`].
    pub group: bool,
}

/// How full a volume is. `None`: the file system does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VolumeStats {
    /// Size, used and available bytes.
    pub bytes: Option<Usage>,
    /// The same for inodes.
    pub inodes: Option<Usage>,
}

/// Parts of a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All.
    pub total: u64,
    /// Taken.
    pub used: u64,
    /// Free for users without privilege.
    pub available: u64,
}
