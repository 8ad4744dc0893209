//! A reader of SQLite 3 database files, for files from hostile hands.
//!
//! Catalogs are SQLite files that a stranger wrote, read by many threads at once, and kept by the hundred. Instead of
//! binding the whole of SQLite to that (views and triggers in the schema, a page cache and a lock for each
//! connection, a path for each open, C code between a stranger and our address space), this reads the few b-trees
//! that catalogs have, straight from an open file: no lock, no state but page buffers of the running call, every length and
//! page number checked, every loop bounded by the file's own size. There is no SQL; tables are scanned by row id and
//! indices sought by integers, and that is all that a catalog needs.
//!
//! Format: <https://www.sqlite.org/fileformat2.html>.

mod btree;
mod page;
mod record;
mod schema;

pub(crate) use btree::{IndexCursor, TableCursor};
pub use page::DatabaseFile;
pub(crate) use page::{Database, SqliteError};
pub(crate) use record::{Record, Value};
pub(crate) use schema::{Schema, Table};
