//! Which path a row stands for: catalogs hold names and parents' hashes only.

use std::collections::HashMap;

use crate::client::catalog::{Catalog, CatalogError, CatalogRef, PATH_MAX, ScannedRow, explain};
use crate::client::hash::PathHash;

/// Most directories whose paths are remembered.
const REMEMBERED: usize = 4096;

/// Finds paths of the rows of one catalog by climbing to its root.
pub(super) struct Paths<'a> {
    at: &'a CatalogRef,
    catalog: &'a Catalog,
    root: PathHash,
    /// Inner paths of directories.
    directories: HashMap<PathHash, Vec<u8>>,
}

impl<'a> Paths<'a> {
    pub(super) fn new(at: &'a CatalogRef, catalog: &'a Catalog) -> Self {
        Paths { at, catalog, root: PathHash::of(&at.prefix), directories: HashMap::new() }
    }

    /// The path in the repository of a row; `None` for one that no lookup can reach.
    pub(super) fn path(&mut self, row: &ScannedRow) -> Result<Option<Vec<u8>>, CatalogError> {
        if row.path == self.root {
            return Ok(Some(self.at.mountpoint.clone()));
        }
        let Some(mut inner) = self.directory(row.parent)? else {
            return Ok(None);
        };
        inner.push(b'/');
        inner.extend_from_slice(&row.name);
        let reachable = inner.len() <= PATH_MAX && PathHash::of(&inner) == row.path;
        Ok(if reachable { self.at.outer_path(&inner) } else { None })
    }

    fn directory(&mut self, hash: PathHash) -> Result<Option<Vec<u8>>, CatalogError> {
        let mut names = Vec::new();
        let mut length = 0;
        let mut at = hash;
        let mut path = loop {
            if at == self.root {
                break self.at.prefix.clone();
            }
            if let Some(path) = self.directories.get(&at) {
                break path.clone();
            }
            let found = self.catalog.name_and_parent(at).map_err(|error| explain(self.at, error))?;
            let Some((name, parent)) = found else {
                return Ok(None);
            };
            // Also the end of parents that go round in circles.
            length += name.len() + 1;
            if length > PATH_MAX {
                return Ok(None);
            }
            names.push(name);
            at = parent;
        };
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if self.directories.len() >= REMEMBERED {
            self.directories.clear();
        }
        self.directories.insert(hash, path.clone());
        Ok(Some(path))
    }
}
