//! Abilities of backends with snapshots.

use std::time::SystemTime;

use async_trait::async_trait;

use crate::{Fault, OptionMap, Page, PageRequest, Secrets, Segments};

/// A snapshot that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSnapshot {
    /// Its id, at most 128 bytes.
    pub id: String,
    /// Id of the volume it was taken of.
    pub volume: String,
    /// Size in bytes of the smallest volume that can be made of it.
    pub size: u64,
    /// When it was taken.
    pub created_at: SystemTime,
    /// Whether volumes can be made of it now.
    pub ready: bool,
    /// Id of the group snapshot that it belongs to.
    pub group: Option<String>,
    /// Where volumes can be made of it; empty: anywhere.
    pub places: Vec<Segments>,
}

/// Which snapshots are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Only this one.
    pub id: Option<String>,
    /// Only those of this volume.
    pub volume: Option<String>,
}

/// Snapshots of one volume.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Whether snapshots are bound to places. Only then `snapshot` is asked for some.
    fn are_placed(&self) -> bool {
        false
    }

    /// Takes a snapshot. The same name is the same snapshot; `AlreadyExists` if it is of another volume;
    /// `ResourceExhausted`: it would be usable in none of `places` (best first; empty: anywhere will do).
    async fn snapshot(
        &self,
        name: &str,
        volume: &str,
        places: &[Segments],
        parameters: &OptionMap,
        secrets: &Secrets,
    ) -> Result<StoredSnapshot, Fault>;

    /// Removes one. Of one that is not there: success. `InUse`: volumes depend on it, or it belongs to a group.
    async fn delete_snapshot(&self, id: &str, secrets: &Secrets) -> Result<(), Fault>;

    /// Those that the filter lets through, in the order of their ids. An unknown id is an empty list.
    async fn snapshots(
        &self,
        filter: &SnapshotFilter,
        page: &PageRequest,
    ) -> Result<Page<StoredSnapshot>, Fault>;

    /// One snapshot; `NotFound` if there is none.
    async fn snapshot_of_id(&self, id: &str) -> Result<StoredSnapshot, Fault>;
}

/// Snapshots of several volumes, taken at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredGroup {
    /// Its id, at most 128 bytes.
    pub id: String,
    /// One of each volume.
    pub snapshots: Vec<StoredSnapshot>,
    /// When it was taken.
    pub created_at: SystemTime,
    /// Whether all are ready.
    pub ready: bool,
}

/// Snapshots of several volumes at once.
#[async_trait]
pub trait GroupSnapshots: Send + Sync {
    /// Takes one; nothing is left of it on an error.
    async fn snapshot_group(
        &self,
        name: &str,
        volumes: &[String],
        parameters: &OptionMap,
        secrets: &Secrets,
    ) -> Result<StoredGroup, Fault>;

    /// Removes it with its snapshots; success if it is not there. `snapshots` are the ids the caller knows of it;
    /// `InvalidArgument` if they are not its own.
    async fn delete_group(&self, id: &str, snapshots: &[String], secrets: &Secrets) -> Result<(), Fault>;

    /// One group; `NotFound` if there is none.
    async fn group(&self, id: &str, snapshots: &[String], secrets: &Secrets) -> Result<StoredGroup, Fault>;
}

/// A run of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// Extents of a snapshot from some offset on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extents {
    /// Size of the volume in bytes.
    pub size: u64,
    /// In order, without overlap; at most as many as were asked for.
    pub extents: Vec<Extent>,
}

/// Which blocks hold data.
#[async_trait]
pub trait SnapshotExtents: Send + Sync {
    /// Allocated extents of a snapshot that end after `from`, at most `limit`. `OutOfRange`: `from` is
    /// beyond the end.
    async fn allocated(
        &self,
        snapshot: &str,
        from: u64,
        limit: usize,
        secrets: &Secrets,
    ) -> Result<Extents, Fault>;

    /// Extents that differ between two snapshots of one volume.
    async fn changed(
        &self,
        base: &str,
        target: &str,
        from: u64,
        limit: usize,
        secrets: &Secrets,
    ) -> Result<Extents, Fault>;
}
