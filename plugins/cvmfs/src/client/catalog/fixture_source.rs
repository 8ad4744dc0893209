//! Catalogs for tests: from a directory as a server has it, or from memory.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{CatalogRef, CatalogSource, Catalogs, DatabaseFile, SourceError};
use crate::client::hash::{Algorithm, Digest, Suffix};
use crate::client::snapshot::Snapshot;

/// Verified catalogs of a directory with `data/`, or put in by hand; they are at hand once they were fetched.
#[derive(Debug, Default)]
pub(crate) struct FixtureSource {
    directory: Option<PathBuf>,
    fetched: Mutex<HashMap<Digest, Arc<dyn DatabaseFile>>>,
    offered: Mutex<HashMap<Digest, Arc<dyn DatabaseFile>>>,
    pub(crate) fetches: AtomicUsize,
}

impl FixtureSource {
    pub(crate) fn of(fqrn: &str) -> Arc<Self> {
        Arc::new(FixtureSource { directory: Some(fixtures::repository(fqrn)), ..FixtureSource::default() })
    }

    /// Offers a catalog by the digest of its bytes.
    pub(crate) fn offer(&self, bytes: Vec<u8>) -> Digest {
        let digest = Algorithm::Sha1.digest(&bytes);
        self.offered.lock().insert(digest, Arc::new(bytes));
        digest
    }

    /// Offers a catalog by a digest that it does not have.
    pub(crate) fn offer_as(&self, digest: Digest, bytes: Vec<u8>) {
        self.offered.lock().insert(digest, Arc::new(bytes));
    }

    /// Forgets what was fetched, as a cache that was wiped.
    pub(crate) fn forget(&self) {
        self.fetched.lock().clear();
    }
}

#[async_trait]
impl CatalogSource for FixtureSource {
    fn cached(&self, digest: &Digest, _size: Option<u64>) -> Option<Arc<dyn DatabaseFile>> {
        self.fetched.lock().get(digest).cloned()
    }

    async fn fetch(&self, digest: &Digest, _size: Option<u64>) -> Result<Arc<dyn DatabaseFile>, SourceError> {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
        let offered = self.offered.lock().get(digest).cloned();
        let file = match (offered, &self.directory) {
            (Some(file), _) => file,
            (None, Some(directory)) => {
                let path = directory.join(digest.with_suffix(Suffix::Catalog).url_path());
                let stored = std::fs::read(path).map_err(|error| Arc::new(error) as SourceError)?;
                if digest.algorithm.digest(&stored) != *digest {
                    return Err(Arc::new(std::io::Error::other("wrong bytes")));
                }
                let mut bytes = Vec::new();
                let inflated = flate2::read::ZlibDecoder::new(&stored[..]).read_to_end(&mut bytes);
                inflated.map_err(|error| Arc::new(error) as SourceError)?;
                Arc::new(bytes) as Arc<dyn DatabaseFile>
            }
            (None, None) => return Err(Arc::new(std::io::Error::from(std::io::ErrorKind::NotFound))),
        };
        self.fetched.lock().insert(*digest, Arc::clone(&file));
        Ok(file)
    }
}

/// The newest revision of a fixture, without verifying its signature.
pub(crate) fn newest(fqrn: &str) -> (Arc<FixtureSource>, Snapshot) {
    let manifest = std::fs::read(fixtures::repository(fqrn).join(".cvmfspublished")).unwrap();
    let text = String::from_utf8_lossy(&manifest);
    let line = text.lines().find(|line| line.starts_with('C')).unwrap();
    let source = FixtureSource::of(fqrn);
    let snapshot = at(&source, line[1..].parse().unwrap());
    (source, snapshot)
}

/// A snapshot of a given root catalog.
pub(crate) fn at(source: &Arc<FixtureSource>, root: Digest) -> Snapshot {
    let source: Arc<dyn CatalogSource> = Arc::clone(source) as _;
    Snapshot::new(Catalogs::new(source), CatalogRef::root(root, None), 1)
}
