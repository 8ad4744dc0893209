//! A repository as this mount shows it, and how a node finds its entry there.

use std::sync::Arc;

use fuse::{Attr, NodeId};

use super::error::FsError;
use super::identity;
use super::place::Place;
use super::state::{NodeKey, State};
use super::view::View;
use crate::client::catalog::{CatalogRef, Kind, Located, Tried};
use crate::client::fetch::Fetcher;
use crate::client::repository::Repository;

/// One open repository.
pub(crate) struct Served {
    pub(crate) repository: Arc<Repository>,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) view: View,
    pub(crate) about: About,
    /// Whether its root directory is the mount's, with node id 1; else it is a directory of the tree of all.
    pub(crate) is_root: bool,
    /// Where work for it runs.
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) started: std::time::SystemTime,
}

/// What the client's own attributes tell of its settings.
#[derive(Debug, Default)]
pub(crate) struct About {
    pub(crate) tag: String,
    pub(crate) hosts: Vec<String>,
    pub(crate) proxies: String,
    pub(crate) timeout: std::time::Duration,
    pub(crate) timeout_direct: std::time::Duration,
}

/// A path of a repository that the kernel has a node of.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) served: Arc<Served>,
    pub(crate) id: u64,
    pub(crate) path: Arc<[u8]>,
    /// What was recorded of it; nothing of the mount's root.
    recorded: Option<(NodeKey, CatalogRef)>,
}

impl Served {
    pub(crate) fn name(&self) -> &str {
        self.repository.name()
    }

    /// The key of an entry, asking for a chunked file's chunks.
    pub(crate) async fn key(&self, path: &[u8], located: &Located) -> Result<NodeKey, FsError> {
        let chunks = match &located.dirent.kind {
            Kind::Regular(content) if content.chunked => {
                self.repository.catalogs().chunks(&located.catalog, path, content).await?
            }
            Kind::Regular(_)
            | Kind::Directory { .. }
            | Kind::Symlink(_)
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice(_)
            | Kind::BlockDevice(_) => Vec::new(),
        };
        Ok(identity::entry(self.name(), path, located, &chunks))
    }

    /// The node id of a directory, whether the kernel knows it or not.
    pub(crate) fn directory_id(&self, state: &State, path: &[u8]) -> u64 {
        if path.is_empty() && self.is_root {
            return NodeId::ROOT.0;
        }
        state.id_of(identity::directory(self.name(), path))
    }

    /// The node id of a directory that the kernel knows.
    pub(crate) fn known_directory(&self, state: &State, path: &[u8]) -> Option<u64> {
        if path.is_empty() && self.is_root {
            return Some(NodeId::ROOT.0);
        }
        state.known(identity::directory(self.name(), path))
    }

    /// Counts a lookup of an entry; its node id.
    pub(crate) fn remember(
        &self,
        state: &State,
        key: NodeKey,
        path: &[u8],
        catalog: &CatalogRef,
    ) -> Result<u64, FsError> {
        let place = Place::encode(self.name(), catalog);
        state.remember(key, &place, path).map_err(FsError::State)
    }
}

impl Node {
    pub(crate) fn root(served: Arc<Served>) -> Node {
        Node { served, id: NodeId::ROOT.0, path: Arc::from([]), recorded: None }
    }

    pub(crate) fn recorded(
        served: Arc<Served>,
        id: u64,
        key: NodeKey,
        path: Arc<[u8]>,
        at: CatalogRef,
    ) -> Node {
        Node { served, id, path, recorded: Some((key, at)) }
    }

    /// The path of an entry of this directory.
    pub(crate) fn child(&self, name: &[u8]) -> Vec<u8> {
        [&self.path, &b"/"[..], name].concat()
    }

    pub(crate) fn attr(&self, located: &Located) -> Attr {
        self.served.view.attr(self.id, &located.dirent)
    }

    /// The entry: in the current revision if it is the same there, else where it was recorded, which says the same for
    /// ever. The current one has newer owners and times; the recorded one has the content that the kernel was given.
    pub(crate) async fn located(&self) -> Result<Located, FsError> {
        let snapshot = self.served.repository.snapshot();
        let Some((key, at)) = &self.recorded else {
            return snapshot.lookup(&self.path).await?.ok_or(FsError::Stale);
        };
        let current = match snapshot.try_lookup(&self.path) {
            Ok(Tried::Ready(found)) => Ok(found),
            // No need to wait for a catalog when the recorded one is open.
            Ok(Tried::NeedsCatalog(_)) => {
                if let Ok(Tried::Ready(Some(dirent))) =
                    self.served.repository.catalogs().try_entry(at, &self.path)
                {
                    return Ok(Located { catalog: Arc::new(at.clone()), dirent });
                }
                snapshot.lookup(&self.path).await
            }
            Err(error) => Err(error),
        };
        if let Ok(Some(found)) = &current
            && self.served.key(&self.path, found).await? == *key
        {
            return Ok(found.clone());
        }
        match self.served.repository.catalogs().entry(at, &self.path).await {
            Ok(Some(dirent)) => Ok(Located { catalog: Arc::new(at.clone()), dirent }),
            Ok(None) => Err(FsError::Stale),
            // What the current revision says against it explains more than that the old one is gone.
            Err(old) => Err(current.err().unwrap_or(old).into()),
        }
    }

    /// The entry of this directory in the catalog that holds its children.
    pub(crate) async fn directory(&self) -> Result<Located, FsError> {
        let snapshot = self.served.repository.snapshot();
        let found = snapshot.directory(&self.path).await?;
        let located = found.ok_or(FsError::Stale)?;
        match located.dirent.kind {
            Kind::Directory { .. } => Ok(located),
            Kind::Regular(_)
            | Kind::Symlink(_)
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice(_)
            | Kind::BlockDevice(_) => Err(FsError::NotDirectory),
        }
    }
}
