//! A repository: its verified current revision, kept up to date.

use std::sync::Arc;
use std::time::Instant;

use volume::Fault;

use crate::client::catalog::Catalogs;
use crate::client::snapshot::Snapshot;
use crate::client::update::Update;

/// An open repository.
#[derive(Debug)]
pub struct Repository {
    name: String,
    catalogs: Arc<Catalogs>,
    current: parking_lot::RwLock<Arc<Snapshot>>,
}

impl Repository {
    /// Fully qualified name: `cms.cern.ch`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All catalogs by digest, of any revision.
    pub fn catalogs(&self) -> &Arc<Catalogs> {
        &self.catalogs
    }

    /// The revision that is served.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read())
    }

    /// When to [`refresh`](Self::refresh) next; `None` for a pinned revision, which never moves.
    pub fn next_refresh(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// Looks for a new revision now. With one, [`snapshot`](Self::snapshot) answers with it from here on, and the
    /// returned update tells what to invalidate.
    ///
    /// # Errors
    /// The server is down, or what it offers does not verify; the old revision goes on being served.
    pub async fn refresh(&self) -> Result<Option<Update>, Fault> {
        unimplemented!()
    }
}
