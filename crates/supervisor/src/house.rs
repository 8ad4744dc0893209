//! What all mounts of a pool share.

use std::path::PathBuf;
use std::time::Duration;

use crate::fdstore::FdStore;
use crate::origin::Origin;

/// Bounds of waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a new mount: fetching and verifying what is needed before the first byte can be read.
    pub prepare: Duration,
    /// The same from the cache, when a new worker takes over.
    pub prepare_offline: Duration,
    /// A worker that answers nothing for so long while requests wait is replaced.
    pub hang: Duration,
    /// How often a worker is asked how it is.
    pub ask_every: Duration,
    /// How long a mount waits for a nursery that has gone, before it is given up.
    pub nursery: Duration,
    /// How long a new mount waits for a nursery that is not there.
    pub nursery_at_launch: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            prepare: Duration::from_secs(60),
            prepare_offline: Duration::from_secs(20),
            hang: Duration::from_secs(15),
            ask_every: Duration::from_secs(10),
            nursery: Duration::from_secs(3600),
            nursery_at_launch: Duration::from_secs(3),
        }
    }
}

/// Shared by all keepers; nothing in it changes.
#[derive(Debug)]
pub(crate) struct House {
    /// `<run_dir>/workers`, mode 0700.
    pub(crate) directory: PathBuf,
    /// Who makes workers.
    pub(crate) origin: Origin,
    pub(crate) limits: Limits,
    pub(crate) store: FdStore,
}
