//! Which catalog an entry came from, so that a later process finds the same entry again without walking.

use crate::client::hash::{Digest, PathHash};

/// A catalog and where it is mounted: with a path below [`mountpoint`](Self::mountpoint) it names one entry for ever,
/// whatever the repository's current revision is.
///
/// Nested catalogs hold paths from the root of the repository, so `prefix` equals `mountpoint`. A catalog mounted by a bind
/// mount point (`/.cvmfs/snapshots/v1`) holds paths of its own: those are `prefix` and what follows the mount point.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct CatalogRef {
    /// The catalog's object.
    pub digest: Digest,
    /// Bytes of the inflated catalog as its parent or the manifest says, if it does. A bound for the fetch.
    pub size: Option<u64>,
    /// Where it is mounted: `""` for the root, else `/a/b` in raw bytes.
    pub mountpoint: Vec<u8>,
    /// What it calls its own root directory (its property `root_prefix`); empty for root catalogs.
    pub prefix: Vec<u8>,
}

impl CatalogRef {
    /// A repository's root catalog.
    pub fn root(digest: Digest, size: Option<u64>) -> Self {
        CatalogRef { digest, size, mountpoint: Vec::new(), prefix: Vec::new() }
    }

    /// What this catalog calls `path`; `None` when `path` is not at or below the mount point.
    pub fn inner_path(&self, path: &[u8]) -> Option<Vec<u8>> {
        let tail = tail(&self.mountpoint, path)?;
        Some([&self.prefix, tail].concat())
    }

    /// The inverse of [`inner_path`](Self::inner_path).
    pub fn outer_path(&self, inner: &[u8]) -> Option<Vec<u8>> {
        let tail = tail(&self.prefix, inner)?;
        Some([&self.mountpoint, tail].concat())
    }

    /// The key of `path` in this catalog's tables; `None` when `path` is not at or below the mount point.
    pub fn path_hash(&self, path: &[u8]) -> Option<PathHash> {
        if self.prefix == self.mountpoint {
            tail(&self.mountpoint, path).map(|_| PathHash::of(path))
        } else {
            self.inner_path(path).map(|inner| PathHash::of(&inner))
        }
    }
}

/// What follows `base` in `path`: nothing, or a slash and more. `None` when `path` is elsewhere.
pub(crate) fn tail<'a>(base: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    path.strip_prefix(base).filter(|tail| tail.is_empty() || tail[0] == b'/')
}
