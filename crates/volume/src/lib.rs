//! The domain of volplane, without any I/O: what a volume is, who refers to it, what can go wrong,
//! and the two traits that everything else hangs from.
//!
//! A frontend (Docker, FlexVolume, CSI) sees only [`VolumeService`]; a storage plugin implements only
//! [`Backend`]; `registry` stands between them. Types here are plain data: what a user typed
//! ([`OptionMap`]) becomes a [`VolumeSpec`] in one place per backend, a `VolumeSpec` becomes a
//! [`Resolved`] mount, and nothing below that point looks at text again.

#![forbid(unsafe_code)]

mod backend;
#[cfg(feature = "fake")]
pub mod fake;
mod fault;
mod name;
mod options;
mod provision;
mod reference;
mod secret;
mod service;
mod snapshot;
mod spec;
mod status;
mod target;
mod worker;

pub use backend::{Author, Backend, Caller, Inspection, Resolved, Survivor};
pub use fault::{Fault, FaultKind, Retry};
pub use name::{NameError, VolumeName};
pub use options::{OptionMap, nearest};
pub use provision::{
    Abilities, Capacity, Grow, Modify, NewVolume, NodeAbilities, Page, PageRequest, Provision, Publish,
    Segments, Severity, SizeRange, Source, StoredVolume, TellCapacity, Trouble, Usage, VolumeStats,
};
pub use reference::{Frontend, RefId, RefIdError};
pub use secret::{Secret, Secrets};
pub use service::{Acquired, Target, VolumeInfo, VolumeService};
pub use snapshot::{
    Extent, Extents, GroupSnapshots, SnapshotExtents, SnapshotFilter, Snapshots, StoredGroup, StoredSnapshot,
};
pub use spec::{CvmfsAllSpec, CvmfsSpec, Driver, MountKey, RbdSpec, Revision, UnknownDriver, VolumeSpec};
pub use status::{MountState, MountStatus, Sample};
pub use target::{BindTarget, DEVICE_NODE, Form, Sharing};
pub use worker::{LaunchRequest, Launched, Released, WorkerPool, WorkerReport};
