//! The open catalogs of one repository, of whatever revision, by digest.
//!
//! Finding an open catalog takes a read lock for the time of one hash lookup; the query itself runs without any. Only so many
//! catalogs are open at once (each holds a file descriptor and its list of nested catalogs): the least recently used
//! one is closed, and opened again from the cache when it is needed.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use super::{
    BadEntry, Catalog, CatalogError, CatalogFileError, CatalogRef, Chunk, DatabaseFile, Dirent, FileContent,
    Kind, Row, Tried,
};
use crate::client::hash::Digest;

/// Most catalogs that are open at once.
const OPEN_MAX: usize = 64;
/// Most catalogs that are fetched at once.
const FETCHES_MAX: usize = 16;

/// Where catalogs come from: verified and inflated.
#[async_trait]
pub trait CatalogSource: Send + Sync + fmt::Debug {
    /// The catalog if it is at hand without waiting.
    fn cached(&self, digest: &Digest, size: Option<u64>) -> Option<Arc<dyn DatabaseFile>>;

    /// The catalog, from wherever it must be fetched. `size` is what its parent says it has.
    async fn fetch(&self, digest: &Digest, size: Option<u64>) -> Result<Arc<dyn DatabaseFile>, SourceError>;
}

/// What a [`CatalogSource`] says when it has nothing.
pub type SourceError = Arc<dyn std::error::Error + Send + Sync>;

/// Content-addressed access to catalogs: answers mean the same for ever.
///
/// Paths are those of the mounted repository: `""` for the root, `/a/b` below.
#[derive(Debug)]
pub struct Catalogs {
    source: Arc<dyn CatalogSource>,
    open: RwLock<HashMap<Digest, Slot>>,
    /// Counts uses; a slot's last use is its value then.
    clock: AtomicU64,
    fetches: Semaphore,
}

#[derive(Debug)]
struct Slot {
    catalog: Arc<Catalog>,
    used: AtomicU64,
}

impl Catalogs {
    /// A store without any open catalog.
    pub fn new(source: Arc<dyn CatalogSource>) -> Arc<Self> {
        Arc::new(Catalogs {
            source,
            open: RwLock::default(),
            clock: AtomicU64::new(0),
            fetches: Semaphore::new(FETCHES_MAX),
        })
    }

    /// How many catalogs are open now.
    pub fn open_count(&self) -> usize {
        self.open.read().len()
    }

    /// The catalog if it is open or can be opened without waiting. Its prefix is not compared.
    ///
    /// # Errors
    /// What is at hand is no catalog.
    pub fn try_open(&self, at: &CatalogRef) -> Result<Option<Arc<Catalog>>, CatalogError> {
        if let Some(slot) = self.open.read().get(&at.digest) {
            slot.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
            return Ok(Some(Arc::clone(&slot.catalog)));
        }
        match self.source.cached(&at.digest, at.size) {
            Some(file) => self.insert(at, file).map(Some),
            None => Ok(None),
        }
    }

    /// The catalog, fetched if need be. Its prefix is not compared.
    ///
    /// # Errors
    /// It cannot be fetched, or is no catalog.
    pub async fn open(&self, at: &CatalogRef) -> Result<Arc<Catalog>, CatalogError> {
        if let Some(catalog) = self.try_open(at)? {
            return Ok(catalog);
        }
        let _permit = self.fetches.acquire().await;
        // Whoever waited for a permit may find it there; simultaneous fetches of one object are one transfer.
        if let Some(catalog) = self.try_open(at)? {
            return Ok(catalog);
        }
        let file = self.source.fetch(&at.digest, at.size).await.map_err(|source| CatalogError::Fetch {
            digest: at.digest,
            mountpoint: at.mountpoint.clone(),
            source,
        })?;
        self.insert(at, file)
    }

    fn insert(&self, at: &CatalogRef, file: Arc<dyn DatabaseFile>) -> Result<Arc<Catalog>, CatalogError> {
        let catalog = Arc::new(Catalog::open(file).map_err(|error| explain(at, error))?);
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        let mut open = self.open.write();
        let mut closed = None;
        if open.len() >= OPEN_MAX {
            let oldest = open.iter().min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed));
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                closed = open.remove(&oldest);
            }
        }
        let slot = open.entry(at.digest).or_insert(Slot { catalog, used });
        let catalog = Arc::clone(&slot.catalog);
        drop(open);
        // Closing is a system call: not under the lock.
        drop(closed);
        Ok(catalog)
    }

    fn answer<T>(
        &self,
        at: &CatalogRef,
        path: &[u8],
        catalog: &Catalog,
        query: impl FnOnce(&Catalog, &[u8]) -> Result<T, CatalogFileError>,
    ) -> Result<T, CatalogError> {
        if catalog.properties().root_prefix != at.prefix {
            return Err(CatalogError::Nesting {
                digest: at.digest,
                mountpoint: at.mountpoint.clone(),
                reason: "it says that it belongs elsewhere",
            });
        }
        let inner = at.inner_path(path).ok_or_else(|| CatalogError::Path(path.to_vec()))?;
        query(catalog, &inner).map_err(|error| explain(at, error))
    }

    fn tried<T>(
        &self,
        at: &CatalogRef,
        path: &[u8],
        query: impl FnOnce(&Catalog, &[u8]) -> Result<T, CatalogFileError>,
    ) -> Result<Tried<T>, CatalogError> {
        match self.try_open(at)? {
            Some(catalog) => self.answer(at, path, &catalog, query).map(Tried::Ready),
            None => Ok(Tried::NeedsCatalog(at.clone())),
        }
    }

    /// The entry of `path` in this very catalog (not in those nested in it).
    ///
    /// # Errors
    /// The catalog cannot be read, or the entry makes no sense.
    pub fn try_entry(&self, at: &CatalogRef, path: &[u8]) -> Result<Tried<Option<Dirent>>, CatalogError> {
        match self.tried(at, path, Catalog::lookup)? {
            Tried::Ready(found) => Ok(Tried::Ready(named(path, found)?)),
            Tried::NeedsCatalog(at) => Ok(Tried::NeedsCatalog(at)),
        }
    }

    /// The entry of `path` in a catalog that is open already.
    pub(crate) fn entry_in(
        &self,
        at: &CatalogRef,
        path: &[u8],
        catalog: &Catalog,
    ) -> Result<Option<Dirent>, CatalogError> {
        Ok(named(path, self.answer(at, path, catalog, Catalog::lookup)?)?)
    }

    /// As [`try_entry`](Self::try_entry), fetching the catalog if need be.
    ///
    /// # Errors
    /// As `try_entry`, or the catalog cannot be fetched.
    pub async fn entry(&self, at: &CatalogRef, path: &[u8]) -> Result<Option<Dirent>, CatalogError> {
        let catalog = self.open(at).await?;
        self.entry_in(at, path, &catalog)
    }

    /// At most `max` rows of directory `path` after cookie `after` (0 is the beginning), in the order of cookies.
    /// Hidden entries are left out. Fewer rows than `max` mean the end.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn try_list(
        &self,
        at: &CatalogRef,
        path: &[u8],
        after: i64,
        max: usize,
    ) -> Result<Tried<Vec<Row>>, CatalogError> {
        self.tried(at, path, |catalog, path| catalog.list(path, after, max))
    }

    /// As [`try_list`](Self::try_list), fetching the catalog if need be.
    ///
    /// # Errors
    /// As `try_list`, or the catalog cannot be fetched.
    pub async fn list(
        &self,
        at: &CatalogRef,
        path: &[u8],
        after: i64,
        max: usize,
    ) -> Result<Vec<Row>, CatalogError> {
        let catalog = self.open(at).await?;
        self.answer(at, path, &catalog, |catalog, path| catalog.list(path, after, max))
    }

    /// The chunks of a chunked file, without gaps from 0 to its size.
    ///
    /// # Errors
    /// The catalog cannot be read, or the rows leave gaps, overlap or are too many.
    pub fn try_chunks(
        &self,
        at: &CatalogRef,
        path: &[u8],
        content: &FileContent,
    ) -> Result<Tried<Vec<Chunk>>, CatalogError> {
        match self.tried(at, path, |catalog, path| catalog.chunks(path, content))? {
            Tried::Ready(chunks) => Ok(Tried::Ready(chunks?)),
            Tried::NeedsCatalog(at) => Ok(Tried::NeedsCatalog(at)),
        }
    }

    /// As [`try_chunks`](Self::try_chunks), fetching the catalog if need be.
    ///
    /// # Errors
    /// As `try_chunks`, or the catalog cannot be fetched.
    pub async fn chunks(
        &self,
        at: &CatalogRef,
        path: &[u8],
        content: &FileContent,
    ) -> Result<Vec<Chunk>, CatalogError> {
        let catalog = self.open(at).await?;
        Ok(self.answer(at, path, &catalog, |catalog, path| catalog.chunks(path, content))??)
    }
}

/// The root of a mounted catalog is called as its mount point, not as in the catalog.
fn named(path: &[u8], found: Option<Result<Dirent, BadEntry>>) -> Result<Option<Dirent>, BadEntry> {
    let Some(mut dirent) = found.transpose()? else {
        return Ok(None);
    };
    if matches!(dirent.kind, Kind::Directory { .. }) {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if dirent.name != name {
            dirent.name = name.to_vec();
        }
    }
    Ok(Some(dirent))
}

pub(crate) fn explain(at: &CatalogRef, error: CatalogFileError) -> CatalogError {
    match error {
        CatalogFileError::Io(error) => CatalogError::Read { digest: at.digest, source: Arc::new(error) },
        error @ (CatalogFileError::Malformed(_) | CatalogFileError::Schema(_)) => {
            CatalogError::Malformed { digest: at.digest, reason: error.to_string() }
        }
    }
}
