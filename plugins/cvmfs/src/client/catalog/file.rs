//! One open catalog.
//!
//! It holds an open file, the catalog's properties and its list of nested catalogs; everything else is read on demand, by any
//! number of threads, without a lock. Paths here are the catalog's own (see [`CatalogRef::inner_path`](super::CatalogRef)).

use std::sync::Arc;

use super::columns::{CatalogTable, ChunkTable};
use super::dirent::is_name;
use super::nested::{self, Nested};
use super::sqlite::{Database, IndexCursor, Record, Schema, SqliteError, TableCursor, Value};
use super::{BadEntry, Chunk, DatabaseFile, Dirent, FileContent, PATH_MAX, Row};
use crate::client::hash::{Digest, PathHash};

/// Most chunks of one file.
const CHUNKS_MAX: usize = 1 << 18;
/// Most rows that one call for a listing passes over because they cannot be shown.
const UNSHOWN_MAX: usize = 1 << 14;
/// Most rows of the tables of properties and counters.
const SETTINGS_MAX: usize = 1024;

/// Why a file is no catalog, or a catalog cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CatalogFileError {
    /// What the kernel said.
    #[error("{0}")]
    Io(std::io::Error),
    /// What is wrong with its bytes, for people.
    #[error("{0}")]
    Malformed(&'static str),
    /// A schema that this client does not know.
    #[error("its schema is {0}; known are 1.x, 2.4 and 2.5")]
    Schema(String),
}

impl From<SqliteError> for CatalogFileError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Io(error) => CatalogFileError::Io(error),
            SqliteError::Malformed(reason) => CatalogFileError::Malformed(reason),
        }
    }
}

/// What a catalog says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties {
    /// Path of its root directory; empty for a root catalog.
    pub root_prefix: Vec<u8>,
    /// Seconds that the revision is current; root catalogs only.
    pub ttl: Option<u64>,
    /// Revision of this catalog.
    pub revision: Option<u64>,
    /// Seconds since 1970 of its last change.
    pub last_modified: Option<u64>,
    /// Whether the publisher expects contents to be dropped from caches first.
    pub volatile: bool,
}

/// An open catalog.
#[derive(Debug)]
pub struct Catalog {
    database: Database,
    rows: CatalogTable,
    chunks: Option<ChunkTable>,
    counters: Option<u32>,
    properties: Properties,
    /// Sorted by path.
    nested: Vec<Nested>,
}

impl Catalog {
    /// Opens a verified file as a catalog.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn open(file: Arc<dyn DatabaseFile>) -> Result<Self, CatalogFileError> {
        let database = Database::open(file)?;
        let schema = Schema::read(&database)?;
        let properties = read_properties(&database, &schema)?;
        let rows = CatalogTable::find(&schema).map_err(CatalogFileError::Malformed)?;
        let chunks = schema.table("chunks").and_then(ChunkTable::find);
        let nested = nested::read(&database, &schema, &properties.root_prefix)?;
        let counters = schema.table("statistics").filter(|table| table.column("value") == Some(1));
        Ok(Catalog { counters: counters.map(|table| table.root), database, rows, chunks, properties, nested })
    }

    /// What it says of itself.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The catalogs mounted in this one, sorted by path.
    pub fn nested(&self) -> &[Nested] {
        &self.nested
    }

    /// The topmost catalog in this one whose mount point is `path` or above it.
    pub fn nested_towards(&self, path: &[u8]) -> Option<&Nested> {
        if self.nested.is_empty() {
            return None;
        }
        let begin = self.properties.root_prefix.len() + 1;
        let ends = path.iter().enumerate().skip(begin).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        ends.chain([path.len()]).find_map(|end| {
            let found = self.nested.binary_search_by(|nested| nested.path.as_slice().cmp(&path[..end]));
            found.ok().map(|at| &self.nested[at])
        })
    }

    /// The entry of `path`; `None` when there is none.
    ///
    /// # Errors
    /// The file cannot be read. The inner error is about the entry alone.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Result<Dirent, BadEntry>>, CatalogFileError> {
        let hash = PathHash::of(path);
        let mut table = TableCursor::new(&self.database, self.rows.root);
        let Some(id) = self.row_of(hash)? else {
            return Ok(None);
        };
        let Some(payload) = table.row(id)? else {
            return Err(CatalogFileError::Malformed("its index names a row that is not there"));
        };
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let Some(record) = Record::decode(payload) else {
            return Ok(Some(Err(BadEntry { name: Some(name.to_vec()), reason: "its row is broken" })));
        };
        let entry = self.rows.entry(&record, path.is_empty()).and_then(|(keys, dirent)| {
            if keys.path == hash && dirent.name == name {
                Ok(dirent)
            } else {
                Err(BadEntry { name: Some(name.to_vec()), reason: "its name does not belong to its path" })
            }
        });
        Ok(Some(entry))
    }

    /// Row id of a path.
    fn row_of(&self, hash: PathHash) -> Result<Option<i64>, CatalogFileError> {
        let mut index = IndexCursor::new(&self.database, self.rows.path_index, 2);
        let entry = index.at_or_after(&[hash.high, hash.low])?;
        Ok(entry.filter(|entry| entry.values().starts_with(&[hash.high, hash.low])).map(|entry| entry.row()))
    }

    /// At most `max` rows of directory `path` whose cookie is larger than `after`; hidden ones are left out. Fewer rows
    /// than `max` mean the end.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, path: &[u8], after: i64, max: usize) -> Result<Vec<Row>, CatalogFileError> {
        let hash = PathHash::of(path);
        let mut index = IndexCursor::new(&self.database, self.rows.parent_index, 2);
        let mut paths = IndexCursor::new(&self.database, self.rows.path_index, 2);
        let mut table = TableCursor::new(&self.database, self.rows.root);
        let mut rows = Vec::new();
        let mut child = Vec::with_capacity(path.len() + 64);
        let mut next = index.at_or_after(&[hash.high, hash.low, after.saturating_add(1)])?;
        let mut unshown = 0;
        while let Some(entry) = next {
            if rows.len() == max || !entry.values().starts_with(&[hash.high, hash.low]) {
                break;
            }
            next = index.next()?;
            let cookie = entry.row();
            let Some(payload) = table.row(cookie)? else {
                return Err(CatalogFileError::Malformed("its index names a row that is not there"));
            };
            let record = Record::decode(payload);
            let entry = match record.map(|record| self.rows.entry(&record, false)) {
                Some(Ok((keys, dirent))) => {
                    child.clear();
                    child.extend_from_slice(path);
                    child.push(b'/');
                    child.extend_from_slice(&dirent.name);
                    // A name that a lookup would not find, or would find elsewhere (a second row of the same name).
                    let known = keys.parent == hash && keys.path == PathHash::of(&child);
                    let found = paths.at_or_after(&[keys.path.high, keys.path.low])?;
                    let found = known && found.is_some_and(|entry| entry.row() == cookie);
                    (found && !dirent.hidden).then_some(Ok(dirent))
                }
                Some(Err(bad)) if bad.name.is_some() => Some(Err(bad)),
                Some(Err(_)) | None => None,
            };
            match entry {
                Some(entry) => rows.push(Row { cookie, entry }),
                None => unshown += 1,
            }
            if unshown > UNSHOWN_MAX {
                return Err(CatalogFileError::Malformed("a directory has too many rows that make no sense"));
            }
        }
        Ok(rows)
    }

    /// The chunks of a file in the order of their offsets.
    ///
    /// # Errors
    /// The file cannot be read. The inner error says how the rows contradict the entry.
    pub fn chunks(
        &self,
        path: &[u8],
        content: &FileContent,
    ) -> Result<Result<Vec<Chunk>, BadEntry>, CatalogFileError> {
        let chunks = self.chunks_of(PathHash::of(path), content)?;
        let name = path.rsplit(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
        Ok(chunks.map_err(|bad| BadEntry { name, ..bad }))
    }

    /// As [`chunks`](Self::chunks), by the path's hash.
    pub(crate) fn chunks_of(
        &self,
        hash: PathHash,
        content: &FileContent,
    ) -> Result<Result<Vec<Chunk>, BadEntry>, CatalogFileError> {
        let bad = |reason| Ok(Err(BadEntry { name: None, reason }));
        let Some(columns) = &self.chunks else {
            return bad("it is in chunks, but its catalog has no table of them");
        };
        let mut index = IndexCursor::new(&self.database, columns.index, 4);
        let mut table = TableCursor::new(&self.database, columns.root);
        let mut chunks = Vec::new();
        let mut end = 0_u64;
        let mut next = index.at_or_after(&[hash.high, hash.low])?;
        while let Some(entry) = next.filter(|entry| entry.values().starts_with(&[hash.high, hash.low])) {
            let payload = table.row(entry.row())?;
            let Some(record) = payload.and_then(Record::decode) else {
                return bad("a row of its chunks is broken");
            };
            let digest = record.get(columns.hash).bytes().flatten().unwrap_or_default();
            let (Some(offset), Some(size), Some(digest)) = (
                record.get(columns.offset).integer().and_then(|offset| u64::try_from(offset).ok()),
                record.get(columns.size).integer().and_then(|size| u64::try_from(size).ok()),
                Digest::from_bytes(content.algorithm, digest),
            ) else {
                return bad("a row of its chunks has a size, offset or hash that cannot be");
            };
            if offset != end || size == 0 {
                return bad("its chunks leave gaps or overlap");
            }
            if chunks.len() == CHUNKS_MAX {
                return bad("it has too many chunks");
            }
            chunks.push(Chunk { offset, size, digest });
            // Both fit 63 bits.
            end = offset + size;
            next = index.next()?;
        }
        if end != content.size {
            return bad("its chunks do not add up to its size");
        }
        Ok(Ok(chunks))
    }

    /// The counters (`self_regular`, `subtree_file_size`, …).
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn counters(&self) -> Result<Vec<(String, i64)>, CatalogFileError> {
        let Some(root) = self.counters else {
            return Ok(Vec::new());
        };
        let mut counters = Vec::new();
        scan(&self.database, root, SETTINGS_MAX, |record| {
            let key = record.get(0).bytes().flatten().unwrap_or_default();
            if let Some(value) = record.get(1).integer() {
                counters.push((String::from_utf8_lossy(key).into_owned(), value));
            }
        })?;
        Ok(counters)
    }

    /// All rows in the order of their path hashes, for a merge with another catalog.
    pub(crate) fn scan(&self) -> Scan<'_> {
        Scan {
            catalog: self,
            index: IndexCursor::new(&self.database, self.rows.path_index, 2),
            table: TableCursor::new(&self.database, self.rows.root),
        }
    }

    /// Name and parent of the row of a path hash, to find out which path it stands for.
    pub(crate) fn name_and_parent(
        &self,
        hash: PathHash,
    ) -> Result<Option<(Vec<u8>, PathHash)>, CatalogFileError> {
        let Some(id) = self.row_of(hash)? else {
            return Ok(None);
        };
        let mut table = TableCursor::new(&self.database, self.rows.root);
        let record = table.row(id)?.and_then(Record::decode);
        Ok(record.and_then(|record| self.rows.name_and_parent(&record)))
    }
}

/// One row of a [`Scan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScannedRow {
    pub(crate) path: PathHash,
    pub(crate) parent: PathHash,
    pub(crate) name: Vec<u8>,
    pub(crate) entry: Result<Dirent, BadEntry>,
}

/// All rows of a catalog, ascending by path hash.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    catalog: &'a Catalog,
    index: IndexCursor<'a>,
    table: TableCursor<'a>,
}

impl Scan<'_> {
    /// The next row that a lookup could find; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<ScannedRow>, CatalogFileError> {
        while let Some(found) = self.index.next()? {
            let Some(record) = self.table.row(found.row())?.and_then(Record::decode) else {
                continue;
            };
            let [high, low, _] = *found.values() else {
                return Err(CatalogFileError::Malformed("an index has entries of another length"));
            };
            let path = PathHash { high, low };
            let rows = &self.catalog.rows;
            let is_root = path == PathHash::of(b"");
            let Some((name, parent)) =
                rows.name_and_parent(&record).filter(|(name, _)| is_root || is_name(name))
            else {
                continue;
            };
            let entry = rows.entry(&record, is_root).map(|(_, dirent)| dirent);
            return Ok(Some(ScannedRow { path, parent, name, entry }));
        }
        Ok(None)
    }
}

/// Calls `row` for each row of a small table.
pub(super) fn scan(
    database: &Database,
    root: u32,
    max: usize,
    mut row: impl FnMut(&Record<'_>),
) -> Result<(), CatalogFileError> {
    let mut cursor = TableCursor::new(database, root);
    let mut next = Some(i64::MIN);
    let mut count = 0;
    while let Some(from) = next {
        let Some((id, payload)) = cursor.at_or_after(from)? else {
            break;
        };
        count += 1;
        if count > max {
            return Err(CatalogFileError::Malformed("one of its tables has too many rows"));
        }
        if let Some(record) = Record::decode(payload) {
            row(&record);
        }
        next = id.checked_add(1);
    }
    Ok(())
}

fn read_properties(database: &Database, schema: &Schema) -> Result<Properties, CatalogFileError> {
    const NONE: CatalogFileError = CatalogFileError::Malformed("it has no table of properties");
    let table = schema.table("properties").ok_or(NONE)?;
    let (Some(key), Some(value)) = (table.column("key"), table.column("value")) else {
        return Err(NONE);
    };
    let mut properties = Properties::default();
    let mut version = "1.0".to_owned();
    scan(database, table.root, SETTINGS_MAX, |record| {
        let integer;
        let text = match record.get(value) {
            Value::Integer(number) => {
                integer = number.to_string();
                integer.as_bytes()
            }
            other => other.bytes().flatten().unwrap_or_default(),
        };
        let number = || std::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<u64>().ok());
        match record.get(key).bytes().flatten().unwrap_or_default() {
            b"schema" => version = String::from_utf8_lossy(&text[..text.len().min(32)]).into_owned(),
            b"root_prefix" => properties.root_prefix = text.to_vec(),
            b"TTL" => properties.ttl = number(),
            b"revision" => properties.revision = number(),
            b"last_modified" => properties.last_modified = number(),
            b"volatile" => properties.volatile = number().is_some_and(|number| number != 0),
            _ => {}
        }
    })?;
    let known = version.parse::<f64>().is_ok_and(|version| {
        (0.9..2.0).contains(&version) || [2.4, 2.5].iter().any(|known| (version - known).abs() < 0.01)
    });
    if !known {
        return Err(CatalogFileError::Schema(version));
    }
    let prefix = &properties.root_prefix;
    if !prefix.is_empty() && !is_path(prefix) {
        return Err(CatalogFileError::Malformed("its root prefix is no path"));
    }
    Ok(properties)
}

/// Whether this is `/a/b`: absolute, of proper names, not too long.
pub(crate) fn is_path(path: &[u8]) -> bool {
    path.len() <= PATH_MAX
        && path.strip_prefix(b"/").is_some_and(|rest| rest.split(|byte| *byte == b'/').all(is_name))
}
