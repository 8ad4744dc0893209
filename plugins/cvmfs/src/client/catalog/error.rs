//! What can go wrong with a catalog or an entry of it.

use std::sync::Arc;

use super::{BadEntry, CatalogRef};
use crate::client::hash::Digest;

/// Why a lookup or a listing has no answer. Everything here is EIO to an application, but for
/// [`Fetch`](Self::Fetch), which knows more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogError {
    /// The catalog could not be had: server, proxy, hash, cache.
    #[error("catalog {digest} mounted at {:?}: {source}", String::from_utf8_lossy(.mountpoint))]
    Fetch {
        /// Which catalog.
        digest: Digest,
        /// Where it is mounted.
        mountpoint: Vec<u8>,
        /// What the source said.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The catalog arrived as published, but is none.
    #[error("catalog {digest} is no catalog that can be used: {reason}")]
    Malformed {
        /// Which catalog.
        digest: Digest,
        /// What is wrong, for people.
        reason: String,
    },
    /// Reading the catalog's local file failed.
    #[error("reading catalog {digest}: {source}")]
    Read {
        /// Which catalog.
        digest: Digest,
        /// What the kernel said.
        source: Arc<std::io::Error>,
    },
    /// The catalogs contradict each other: nested too deep, in themselves, or elsewhere than they say.
    #[error("nested catalog {digest} at {:?}: {reason}", String::from_utf8_lossy(.mountpoint))]
    Nesting {
        /// Which catalog.
        digest: Digest,
        /// Where its parent mounts it.
        mountpoint: Vec<u8>,
        /// What is wrong, for people.
        reason: &'static str,
    },
    /// One entry makes no sense; others of the same catalog may.
    #[error("{0}")]
    Entry(#[from] BadEntry),
    /// The path is not below the catalog's mount point, too long, or not a path.
    #[error("{:?} is no path in a repository", String::from_utf8_lossy(.0))]
    Path(Vec<u8>),
}

/// The answer of what must not wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tried<T> {
    /// The answer.
    Ready(T),
    /// This catalog must be fetched first: ask the asynchronous twin of the same question.
    NeedsCatalog(CatalogRef),
}
