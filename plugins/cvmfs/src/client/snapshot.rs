//! The tree of catalogs of one revision.
//!
//! A snapshot remembers which nested catalogs were needed so far and where they are mounted; the catalogs themselves are in
//! [`Catalogs`], shared by all revisions. A path is resolved from the deepest known mount point downwards, so the usual lookup
//! touches one catalog.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::client::catalog::{
    Catalog, CatalogError, CatalogRef, Catalogs, Located, Nested, PATH_MAX, Tried, is_path,
};

/// Deepest nesting of catalogs.
const DEPTH_MAX: usize = 64;

/// One revision of a repository: a root catalog and, as they are needed, those nested in it.
#[derive(Debug)]
pub struct Snapshot {
    revision: u64,
    catalogs: Arc<Catalogs>,
    root: Arc<Mounted>,
    /// By mount point; never shrinks while the revision is current.
    mounted: RwLock<HashMap<Vec<u8>, Arc<Mounted>>>,
    /// All that the kernel knows was compared with this revision, by this process.
    settled: AtomicBool,
}

/// A catalog in the tree.
#[derive(Debug)]
pub(crate) struct Mounted {
    pub(crate) at: Arc<CatalogRef>,
    parent: Option<Arc<Mounted>>,
    depth: usize,
}

/// What is known of a path without fetching anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is in a catalog that was never needed.
    Unknown,
    /// There is no such entry.
    Nothing,
    /// The entry.
    Entry(Located),
}

/// What must be fetched before a walk can go on.
enum Walk {
    Arrived(Arc<Mounted>, Arc<Catalog>),
    Needs(CatalogRef),
}

impl Snapshot {
    /// A revision by its root catalog. Nothing is fetched.
    pub fn new(catalogs: Arc<Catalogs>, root: CatalogRef, revision: u64) -> Self {
        let root = Arc::new(Mounted { at: Arc::new(root), parent: None, depth: 0 });
        Snapshot { revision, catalogs, root, mounted: RwLock::default(), settled: AtomicBool::new(false) }
    }

    /// The same tree under another number.
    pub(crate) fn renumbered(other: &Snapshot, revision: u64) -> Self {
        Snapshot {
            revision,
            catalogs: Arc::clone(&other.catalogs),
            root: Arc::clone(&other.root),
            mounted: RwLock::new(other.mounted.read().clone()),
            settled: AtomicBool::new(other.is_settled()),
        }
    }

    /// Whether all that the kernel knows was compared with this revision.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Notes that the comparison is complete.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// The revision number.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The root catalog.
    pub fn root(&self) -> &CatalogRef {
        &self.root.at
    }

    /// All catalogs by digest.
    pub fn catalogs(&self) -> &Arc<Catalogs> {
        &self.catalogs
    }

    /// How many catalogs of this revision were needed so far, the root included.
    pub fn mounted_count(&self) -> usize {
        self.mounted.read().len() + 1
    }

    /// The entry of a path (`""` is the root directory), `None` when there is none. The mount point of a nested catalog is
    /// answered from its parent until the child was needed, then from the child.
    ///
    /// # Errors
    /// A catalog on the way cannot be used, or the entry makes no sense.
    pub fn try_lookup(&self, path: &[u8]) -> Result<Tried<Option<Located>>, CatalogError> {
        self.try_find(path, false)
    }

    /// As [`try_lookup`](Self::try_lookup), fetching catalogs if need be.
    ///
    /// # Errors
    /// As `try_lookup`, or a catalog cannot be fetched.
    pub async fn lookup(&self, path: &[u8]) -> Result<Option<Located>, CatalogError> {
        self.find(path, false).await
    }

    /// The entry of a directory in the catalog that holds its children: list it there with [`Catalogs::list`]. `None` when
    /// there is no such entry.
    ///
    /// # Errors
    /// As [`try_lookup`](Self::try_lookup).
    pub fn try_directory(&self, path: &[u8]) -> Result<Tried<Option<Located>>, CatalogError> {
        self.try_find(path, true)
    }

    /// As [`try_directory`](Self::try_directory), fetching catalogs if need be.
    ///
    /// # Errors
    /// As `try_directory`, or a catalog cannot be fetched.
    pub async fn directory(&self, path: &[u8]) -> Result<Option<Located>, CatalogError> {
        self.find(path, true).await
    }

    fn try_find(&self, path: &[u8], enter: bool) -> Result<Tried<Option<Located>>, CatalogError> {
        // No entry can have a longer path, so there is nothing to ask.
        if path.len() > PATH_MAX {
            return Ok(Tried::Ready(None));
        }
        match self.walk(path, enter)? {
            Walk::Needs(catalog) => Ok(Tried::NeedsCatalog(catalog)),
            Walk::Arrived(mounted, catalog) => {
                let found = self.catalogs.entry_in(&mounted.at, path, &catalog)?;
                Ok(Tried::Ready(found.map(|dirent| Located { catalog: Arc::clone(&mounted.at), dirent })))
            }
        }
    }

    async fn find(&self, path: &[u8], enter: bool) -> Result<Option<Located>, CatalogError> {
        loop {
            match self.try_find(path, enter)? {
                Tried::Ready(found) => return Ok(found),
                Tried::NeedsCatalog(at) => self.mount(path, enter, &at).await?,
            }
        }
    }

    /// The catalog that holds the children of `path` and is mounted nowhere above than must be, with its reference.
    pub(crate) async fn catalog_of(
        &self,
        path: &[u8],
    ) -> Result<(Arc<CatalogRef>, Arc<Catalog>), CatalogError> {
        loop {
            match self.walk(path, true)? {
                Walk::Arrived(mounted, catalog) => return Ok((Arc::clone(&mounted.at), catalog)),
                Walk::Needs(at) => self.mount(path, true, &at).await?,
            }
        }
    }

    /// Fetches what a walk needs. The walk after it finds the catalog open, or opened again at once from the cache; when
    /// neither holds (a full disk and many catalogs at a time), it is fetched once more.
    async fn mount(&self, path: &[u8], enter: bool, needed: &CatalogRef) -> Result<(), CatalogError> {
        let open = self.catalogs.open(needed).await?;
        // Walks on while the catalog is surely there, so that the mount point is known from now on.
        self.walk(path, enter)?;
        drop(open);
        Ok(())
    }

    /// The catalog mounted at exactly this point, if it was needed so far.
    pub(crate) fn mounted_at(&self, mountpoint: &[u8]) -> Option<Arc<CatalogRef>> {
        if mountpoint.is_empty() {
            return Some(Arc::clone(&self.root.at));
        }
        self.mounted.read().get(mountpoint).map(|mounted| Arc::clone(&mounted.at))
    }

    /// Takes over what an older snapshot had mounted below `mountpoint`, where both have the same catalog.
    pub(crate) fn inherit(&self, old: &Snapshot, mountpoint: &[u8]) {
        let below = |path: &[u8]| path.strip_prefix(mountpoint).is_some_and(|tail| tail.starts_with(b"/"));
        let same: Vec<_> = {
            let mounted = old.mounted.read();
            let same = mounted.iter().filter(|(path, _)| below(path));
            same.map(|(path, mounted)| (path.clone(), Arc::clone(mounted))).collect()
        };
        let mut mounted = self.mounted.write();
        for (path, catalog) in same {
            mounted.entry(path).or_insert(catalog);
        }
    }

    /// The entry of a path as far as the catalogs needed so far tell.
    pub(crate) async fn known(&self, path: &[u8]) -> Result<Known, CatalogError> {
        let mounted = self.deepest_mounted(path);
        let catalog = self.catalogs.open(&mounted.at).await?;
        let inner = mounted.at.inner_path(path).ok_or_else(|| CatalogError::Path(path.to_vec()))?;
        if catalog.nested_towards(&inner).is_some_and(|nested| nested.path != inner) {
            return Ok(Known::Unknown);
        }
        Ok(match self.catalogs.entry(&mounted.at, path).await? {
            Some(dirent) => Known::Entry(Located { catalog: Arc::clone(&mounted.at), dirent }),
            None => Known::Nothing,
        })
    }

    /// Whether what is below `path` is in a catalog that was needed so far.
    pub(crate) async fn is_known_below(&self, path: &[u8]) -> Result<bool, CatalogError> {
        let mounted = self.deepest_mounted(path);
        let catalog = self.catalogs.open(&mounted.at).await?;
        let inner = mounted.at.inner_path(path).ok_or_else(|| CatalogError::Path(path.to_vec()))?;
        Ok(catalog.nested_towards(&inner).is_none())
    }

    /// Finds the catalog for `path` as far as that needs no waiting. `enter`: a mount point at `path` itself is gone through.
    fn walk(&self, path: &[u8], enter: bool) -> Result<Walk, CatalogError> {
        if !path.is_empty() && !is_path(path) {
            return Err(CatalogError::Path(path.to_vec()));
        }
        let mut mounted = self.deepest_mounted(path);
        loop {
            let Some(catalog) = self.catalogs.try_open(&mounted.at)? else {
                return Ok(Walk::Needs(CatalogRef::clone(&mounted.at)));
            };
            let at = &mounted.at;
            if catalog.properties().root_prefix != at.prefix {
                return Err(nesting(at, "it says that it belongs elsewhere"));
            }
            let inner = at.inner_path(path).ok_or_else(|| CatalogError::Path(path.to_vec()))?;
            let Some(nested) = catalog.nested_towards(&inner) else {
                return Ok(Walk::Arrived(mounted, catalog));
            };
            let mountpoint =
                at.outer_path(&nested.path).ok_or_else(|| CatalogError::Path(nested.path.clone()))?;
            if mountpoint == path && !enter {
                return Ok(Walk::Arrived(mounted, catalog));
            }
            match self.descend(&mounted, nested, mountpoint)? {
                Ok(child) => mounted = child,
                Err(needed) => return Ok(Walk::Needs(needed)),
            }
        }
    }

    fn deepest_mounted(&self, path: &[u8]) -> Arc<Mounted> {
        let known = self.mounted.read();
        if !known.is_empty() {
            let mut end = path.len();
            while end > 0 {
                if let Some(mounted) = known.get(&path[..end]) {
                    return Arc::clone(mounted);
                }
                end = path[..end].iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            }
        }
        Arc::clone(&self.root)
    }

    /// The child catalog, mounted from now on; `Err` inside when it must be fetched first.
    fn descend(
        &self,
        parent: &Arc<Mounted>,
        nested: &Nested,
        mountpoint: Vec<u8>,
    ) -> Result<Result<Arc<Mounted>, CatalogRef>, CatalogError> {
        let Some(digest) = nested.digest else {
            let at = CatalogRef { mountpoint, ..CatalogRef::clone(&parent.at) };
            return Err(nesting(&at, "its parent catalog has no hash for it"));
        };
        // What a bind mount point leads to has paths of its own; which ones is known once it is open.
        let prefix = if nested.bind { Vec::new() } else { nested.path.clone() };
        let mut at = CatalogRef { digest, size: nested.size, mountpoint, prefix };
        let mut above = Some(parent);
        while let Some(mounted) = above {
            if mounted.at.digest == digest {
                return Err(nesting(&at, "it is nested in itself"));
            }
            above = mounted.parent.as_ref();
        }
        if parent.depth >= DEPTH_MAX {
            return Err(nesting(&at, "it is nested too deep"));
        }
        let Some(catalog) = self.catalogs.try_open(&at)? else {
            return Ok(Err(at));
        };
        let prefix = &catalog.properties().root_prefix;
        if nested.bind {
            at.prefix.clone_from(prefix);
        } else if at.prefix != *prefix {
            return Err(nesting(&at, "it says that it belongs elsewhere"));
        }
        let mountpoint = at.mountpoint.clone();
        let child = Mounted { at: Arc::new(at), parent: Some(Arc::clone(parent)), depth: parent.depth + 1 };
        Ok(Ok(Arc::clone(self.mounted.write().entry(mountpoint).or_insert_with(|| Arc::new(child)))))
    }
}

fn nesting(at: &CatalogRef, reason: &'static str) -> CatalogError {
    CatalogError::Nesting { digest: at.digest, mountpoint: at.mountpoint.clone(), reason }
}

#[cfg(test)]
pub(crate) mod tests;
