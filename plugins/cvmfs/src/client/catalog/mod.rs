//! Catalogs: the directory entries of a repository.

#[cfg(test)]
pub(crate) mod builder;
mod columns;
mod dirent;
mod error;
mod file;
#[cfg(test)]
pub(crate) mod fixture_source;
mod nested;
mod reference;
pub(crate) mod sqlite;
mod store;

pub use dirent::{BadEntry, Dirent, FileContent, Kind, MountPoint, Mtime, NAME_MAX, PATH_MAX};
pub use error::{CatalogError, Tried};
pub use file::{Catalog, CatalogFileError, Properties};
pub(crate) use file::{Scan, ScannedRow, is_path};
pub use nested::Nested;
pub use reference::CatalogRef;
pub use sqlite::DatabaseFile;
pub(crate) use store::explain;
pub use store::{CatalogSource, Catalogs, SourceError};

use crate::client::hash::Digest;

/// One row of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Row id in the catalog, at least 1: a listing goes on *after* it. Stable for ever, as the catalog is content-addressed.
    pub cookie: i64,
    /// The entry, or what is wrong with it; a bad one with a name is listed, and answers EIO when asked for.
    pub entry: Result<Dirent, BadEntry>,
}

/// A piece of a chunked file: an object with suffix `P`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Bytes of its content, at least 1.
    pub size: u64,
    /// Its object.
    pub digest: Digest,
}

/// An entry and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The catalog; with the path it names this very entry for ever.
    pub catalog: std::sync::Arc<CatalogRef>,
    /// The entry.
    pub dirent: Dirent,
}

#[cfg(test)]
mod tests;
