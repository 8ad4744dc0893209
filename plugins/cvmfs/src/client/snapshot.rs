//! The tree of catalogs of one revision.

use crate::client::catalog::{CatalogError, CatalogRef, Located, Tried};

/// One revision of a repository: a root catalog and, as they are needed, those nested in it.
#[derive(Debug)]
pub struct Snapshot {
    revision: u64,
    root: CatalogRef,
}

impl Snapshot {
    /// The revision number.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The root catalog.
    pub fn root(&self) -> &CatalogRef {
        &self.root
    }

    /// The entry of a path (`""` is the root directory), `None` when there is none. The mount point of a nested catalog is
    /// answered from its parent until the child was needed, then from the child.
    ///
    /// # Errors
    /// A catalog on the way cannot be used, or the entry makes no sense.
    pub fn try_lookup(&self, _path: &[u8]) -> Result<Tried<Option<Located>>, CatalogError> {
        unimplemented!()
    }

    /// As [`try_lookup`](Self::try_lookup), fetching catalogs if need be.
    ///
    /// # Errors
    /// As `try_lookup`, or a catalog cannot be fetched.
    pub async fn lookup(&self, _path: &[u8]) -> Result<Option<Located>, CatalogError> {
        unimplemented!()
    }

    /// The entry of a directory in the catalog that holds its children: list it there with
    /// [`Catalogs::list`](crate::client::catalog::Catalogs::list). `None` when there is no such entry.
    ///
    /// # Errors
    /// As [`try_lookup`](Self::try_lookup).
    pub fn try_directory(&self, _path: &[u8]) -> Result<Tried<Option<Located>>, CatalogError> {
        unimplemented!()
    }

    /// As [`try_directory`](Self::try_directory), fetching catalogs if need be.
    ///
    /// # Errors
    /// As `try_directory`, or a catalog cannot be fetched.
    pub async fn directory(&self, _path: &[u8]) -> Result<Option<Located>, CatalogError> {
        unimplemented!()
    }
}
