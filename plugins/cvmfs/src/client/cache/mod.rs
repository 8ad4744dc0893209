//! The node's cache of verified content, shared by all worker processes of one user.
//!
//! An object is cached inflated, so that a cached file can be handed to the kernel as it is (FUSE passthrough), while
//! its name is the hash of its *compressed* form. The name therefore cannot prove the content, and each object carries a
//! [seal](seal): a BLAKE3 digest over content and name, taken while the verified bytes were inflated. The first
//! time a process serves an object of the cache it reads it once and compares; a torn, flipped or misplaced file is removed
//! and fetched again. Nothing is ever fsynced: after a power cut the seal tells.
//!
//! Layout below the directory (mode 0700, owned by the worker's user, checked at open):
//!
//! ```text
//! objects/<2 hex>/<38 hex><tag><suffix>          inflated content; atime = last use (set explicitly, rarely)
//! objects/<2 hex>/<38 hex><tag><suffix>.seal     the seal, where the file system has no user xattrs
//! tmp/<pid>-<n>/                                 files being written; `lock` in it is flocked while its process lives
//! records/<fqrn>                                 last verified manifest and the like (see [`VerifiedRecord`])
//! usage                                          bytes in use, approximately (see `ledger`)
//! janitor.lock                                   flocked by the process that evicts
//! ```
//!
//! Opening is a handful of system calls whatever the cache holds. A disk that is full, read-only or broken costs the caching
//! and not the service: content then goes to anonymous memory within a budget, and [`Cache::trouble`] says so
//! until the disk takes bytes again.

mod incoming;
mod janitor;
mod ledger;
mod object;
mod recent;
mod records;
mod seal;
mod store;
mod verified;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use volume::Sample;

use super::hash::ObjectId;
pub(crate) use incoming::Incoming;
pub use object::Object;
pub use records::{RecordError, VerifiedRecord};
pub(crate) use store::Look;
use store::Store;

/// Where and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// The directory; made if its parent exists. All workers of a node use the same one.
    pub directory: PathBuf,
    /// Bytes the cache may use on disk; `None` is unlimited. A soft limit: eviction runs beside the readers and ends at three
    /// quarters of it.
    pub quota: Option<u64>,
    /// Most bytes held in anonymous memory while the disk takes none.
    pub memory_limit: u64,
    /// Most objects kept open for quick access (file descriptors).
    pub open_objects: usize,
}

impl CacheConfig {
    /// A cache in `directory` with a quota in bytes.
    pub fn new(directory: impl Into<PathBuf>, quota: Option<u64>) -> Self {
        CacheConfig { directory: directory.into(), quota, memory_limit: 64 << 20, open_objects: 512 }
    }

    /// The quota of `CVMFS_QUOTA_LIMIT`: MiB, negative is unlimited.
    pub fn quota_from_mib(mib: i64) -> Option<u64> {
        u64::try_from(mib).ok().map(|mib| mib.saturating_mul(1 << 20))
    }
}

/// Why a cache directory is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// Others could put unverified content into it.
    #[error("cache directory {path}: {detail}; it must be a directory owned by user {uid} with mode 0700")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
        /// The user of this process.
        uid: u32,
    },
    /// The janitor's thread could not be started.
    #[error("cannot start the cache janitor: {0}")]
    Thread(String),
}

/// Why content could be stored neither on disk nor in memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The disk does not take it and the memory budget is used up.
    #[error("the cache disk takes no data ({disk}) and {limit} bytes of memory in its place are used up")]
    Exhausted {
        /// What the disk said.
        disk: String,
        /// The budget.
        limit: u64,
    },
    /// Anonymous memory could not be had or written.
    #[error("the cache disk takes no data ({disk}) and anonymous memory neither: {memory}")]
    Memory {
        /// What the disk said.
        disk: String,
        /// What the kernel said.
        memory: String,
    },
    /// The content just written could not be read back.
    #[error("cached content cannot be read: {0}")]
    Unreadable(String),
}

/// The cache. Cheap to share; dropped with its last reference, which ends its janitor thread.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    janitor: Option<JoinHandle<()>>,
}

impl Cache {
    /// Opens or makes the cache. A disk that cannot be written is no error (see [`Cache::trouble`]).
    pub fn open(config: CacheConfig) -> Result<Arc<Cache>, CacheError> {
        let store = Arc::new(Store::open(config)?);
        let janitor =
            janitor::start(Arc::clone(&store)).map_err(|error| CacheError::Thread(error.to_string()))?;
        Ok(Arc::new(Cache { store, janitor: Some(janitor) }))
    }

    /// The object if it is at hand: open already, or cached and small or verified before. Quick and without waiting for
    /// other readers; meant for the thread that answers the kernel. `None` says nothing about whether it is cached; an
    /// object whose size is not `expected_size` is `None` too.
    pub fn cached(&self, id: &ObjectId, expected_size: Option<u64>) -> Option<Object> {
        self.store.at_hand(id).filter(|object| expected_size.is_none_or(|size| size == object.size()))
    }

    /// The object if it is cached, verified by reading all of it if need be. Blocks on the disk.
    pub fn load(&self, id: &ObjectId) -> Option<Object> {
        self.store.load(id)
    }

    /// Like [`cached`](Cache::cached), and tells whether [`load`](Cache::load) may help.
    pub(crate) fn look(&self, id: &ObjectId) -> Look {
        self.store.look(id)
    }

    /// Begins a new object. Nothing is visible to anybody before [`Incoming::commit`].
    pub(crate) fn incoming(&self, id: ObjectId) -> Incoming {
        Incoming::new(Arc::clone(&self.store), id)
    }

    /// Stores what a repository was last verified with. An older revision never replaces a newer one.
    pub fn save_verified(&self, fqrn: &str, record: &VerifiedRecord) -> Result<(), RecordError> {
        records::save(self.store.directory(), fqrn, record)
    }

    /// What a repository was last verified with; `None` if nothing (whole) is known.
    pub fn load_verified(&self, fqrn: &str) -> Option<VerifiedRecord> {
        records::load(self.store.directory(), fqrn)
    }

    /// Bytes in use on disk, approximately: exact after the janitor counted, else within what processes have not yet told.
    pub fn usage(&self) -> u64 {
        self.store.ledger.total()
    }

    /// The quota in bytes.
    pub fn quota(&self) -> Option<u64> {
        self.store.quota()
    }

    /// Removes what this process has under way, as at the end of its use; it may be used on. For processes that end
    /// without dropping the cache.
    pub fn leave(&self) {
        self.store.close();
    }

    /// What keeps the cache from caching, for people; `None` when nothing does.
    pub fn trouble(&self) -> Option<String> {
        self.store.disk.trouble()
    }

    /// Values for the metrics endpoint.
    pub fn samples(&self) -> Vec<Sample> {
        self.store.samples()
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.store.bell.stop();
        if let Some(janitor) = self.janitor.take() {
            // It looks at the bell between any two files.
            let _ = janitor.join();
        }
        self.store.close();
    }
}
