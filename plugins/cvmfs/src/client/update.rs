//! What changed between two revisions, as far as the kernel can know of it.

use std::sync::Arc;

use crate::client::catalog::{CatalogError, CatalogRef};
use crate::client::snapshot::Snapshot;

/// From one revision to the next.
#[derive(Debug, Clone)]
pub struct Update {
    /// What was served.
    pub old: Arc<Snapshot>,
    /// What is served now.
    pub new: Arc<Snapshot>,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// It is gone.
    Removed,
    /// It was not there before.
    Added,
    /// Another type, content, target or device.
    Content,
    /// Owner, permissions, times, link count, extended attributes.
    Attributes,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    /// Path of the directory it is in (`""` is the root).
    pub parent: Vec<u8>,
    /// Its name; empty for the root directory itself.
    pub name: Vec<u8>,
    /// What happened.
    pub what: What,
}

impl Update {
    /// Streams the changed paths into `sink`, in no special order and perhaps more than once. Only catalogs that were
    /// loaded in the old revision, or are in `known` (what an earlier process let the kernel see), are compared; the kernel
    /// knows nothing of others.
    ///
    /// # Errors
    /// A catalog of the new revision cannot be had. What was streamed until then is true, but not all: the caller forgets
    /// all that the kernel knows.
    pub async fn changes(
        &self,
        _known: &[CatalogRef],
        _sink: &mut (dyn FnMut(Change) + Send),
    ) -> Result<(), CatalogError> {
        unimplemented!()
    }
}
