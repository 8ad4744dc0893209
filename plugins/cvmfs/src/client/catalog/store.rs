//! The open catalogs of one repository, of whatever revision, by digest.

use super::{CatalogError, CatalogRef, Chunk, Dirent, FileContent, Row, Tried};

/// Content-addressed access to catalogs: answers mean the same for ever.
///
/// Paths are those of the mounted repository: `""` for the root, `/a/b` below.
#[derive(Debug)]
pub struct Catalogs {}

impl Catalogs {
    /// The entry of `path` in this very catalog (not in those nested in it).
    ///
    /// # Errors
    /// The catalog cannot be read, or the entry makes no sense.
    pub fn try_entry(&self, _at: &CatalogRef, _path: &[u8]) -> Result<Tried<Option<Dirent>>, CatalogError> {
        unimplemented!()
    }

    /// As [`try_entry`](Self::try_entry), fetching the catalog if need be.
    ///
    /// # Errors
    /// As `try_entry`, or the catalog cannot be fetched.
    pub async fn entry(&self, _at: &CatalogRef, _path: &[u8]) -> Result<Option<Dirent>, CatalogError> {
        unimplemented!()
    }

    /// At most `max` rows of directory `path` after cookie `after` (0 is the beginning), in the order of cookies.
    /// Hidden entries are left out. Fewer rows than `max` mean the end.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub fn try_list(
        &self,
        _at: &CatalogRef,
        _path: &[u8],
        _after: i64,
        _max: usize,
    ) -> Result<Tried<Vec<Row>>, CatalogError> {
        unimplemented!()
    }

    /// As [`try_list`](Self::try_list), fetching the catalog if need be.
    ///
    /// # Errors
    /// As `try_list`, or the catalog cannot be fetched.
    pub async fn list(
        &self,
        _at: &CatalogRef,
        _path: &[u8],
        _after: i64,
        _max: usize,
    ) -> Result<Vec<Row>, CatalogError> {
        unimplemented!()
    }

    /// The chunks of a chunked file, without gaps from 0 to its size.
    ///
    /// # Errors
    /// The catalog cannot be read, or the rows leave gaps, overlap or are too many.
    pub fn try_chunks(
        &self,
        _at: &CatalogRef,
        _path: &[u8],
        _content: &FileContent,
    ) -> Result<Tried<Vec<Chunk>>, CatalogError> {
        unimplemented!()
    }

    /// As [`try_chunks`](Self::try_chunks), fetching the catalog if need be.
    ///
    /// # Errors
    /// As `try_chunks`, or the catalog cannot be fetched.
    pub async fn chunks(
        &self,
        _at: &CatalogRef,
        _path: &[u8],
        _content: &FileContent,
    ) -> Result<Vec<Chunk>, CatalogError> {
        unimplemented!()
    }
}
