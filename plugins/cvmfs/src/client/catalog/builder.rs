//! Catalogs for tests, written with SQLite itself from a tree in memory.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, params};

use super::fixture_source::FixtureSource;
use crate::client::hash::{Algorithm, Digest, PathHash};

/// The schema of the C++ server, revision 7.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
    CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,
        hardlinks INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER,
        name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB,
        CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
    CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
    CREATE TABLE chunks (md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
        CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),
        FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog(md5path_1, md5path_2));
    CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, size INTEGER,
        CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));
    CREATE TABLE bind_mountpoints (path TEXT, sha1 TEXT, size INTEGER,
        CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
    CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));
    INSERT INTO properties VALUES ('schema', '2.5'), ('schema_revision', '7');
";

/// A file of SQLite that is written by `write`.
pub(crate) fn database(page_size: u32, schema: &str, write: impl FnOnce(&Connection)) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA page_size={page_size}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; \
             PRAGMA foreign_keys=OFF; BEGIN;"
        ))
        .unwrap();
    connection.execute_batch(schema).unwrap();
    write(&connection);
    connection.execute_batch("COMMIT;").unwrap();
    drop(connection);
    std::fs::read(path).unwrap()
}

/// One row of the table `catalog`.
#[derive(Debug, Clone)]
pub(crate) struct TestRow {
    pub(crate) path: Vec<u8>,
    pub(crate) name: Vec<u8>,
    pub(crate) hardlinks: i64,
    pub(crate) hash: Option<Vec<u8>>,
    pub(crate) size: i64,
    pub(crate) mode: i64,
    pub(crate) mtime: i64,
    pub(crate) nanos: Option<i64>,
    pub(crate) flags: i64,
    pub(crate) symlink: Vec<u8>,
    pub(crate) uid: i64,
    pub(crate) xattr: Option<Vec<u8>>,
}

fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = path.iter().rposition(|byte| *byte == b'/')?;
    Some((&path[..slash], &path[slash + 1..]))
}

impl TestRow {
    fn new(path: &[u8], mode: i64, flags: i64) -> Self {
        TestRow {
            path: path.to_vec(),
            name: split(path).map(|(_, name)| name.to_vec()).unwrap_or_default(),
            hardlinks: 1,
            hash: None,
            size: 4096,
            mode,
            mtime: 1_500_000_000,
            nanos: None,
            flags,
            symlink: Vec::new(),
            uid: 0,
            xattr: None,
        }
    }

    pub(crate) fn directory(path: &[u8]) -> Self {
        TestRow::new(path, 0o040_755, 1)
    }

    pub(crate) fn file(path: &[u8], content: u8) -> Self {
        let row = TestRow::new(path, 0o100_644, 4);
        TestRow { hash: Some(vec![content; 20]), size: i64::from(content), ..row }
    }

    pub(crate) fn link(path: &[u8], target: &[u8]) -> Self {
        TestRow { symlink: target.to_vec(), ..TestRow::new(path, 0o120_777, 12) }
    }

    pub(crate) fn insert(&self, connection: &Connection) {
        let path = PathHash::of(&self.path);
        let parent = split(&self.path).map_or(PathHash::NONE, |(parent, _)| PathHash::of(parent));
        // Texts may be any bytes: a blob cast to text keeps them.
        connection
            .execute(
                "INSERT INTO catalog VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,CAST(?12 AS TEXT),CAST(?13 AS \
                 TEXT),?14,0,?15)",
                params![
                    path.high,
                    path.low,
                    parent.high,
                    parent.low,
                    self.hardlinks,
                    self.hash,
                    self.size,
                    self.mode,
                    self.mtime,
                    self.nanos,
                    self.flags,
                    self.name,
                    self.symlink,
                    self.uid,
                    self.xattr,
                ],
            )
            .unwrap();
    }
}

/// A catalog of these rows.
pub(crate) fn catalog(prefix: &str, rows: &[TestRow], more: &str) -> Vec<u8> {
    database(1024, SCHEMA, |connection| {
        if !prefix.is_empty() {
            let sql = "INSERT INTO properties VALUES ('root_prefix', ?1)";
            connection.execute(sql, [prefix]).unwrap();
        }
        for row in rows {
            row.insert(connection);
        }
        connection.execute_batch(more).unwrap();
    })
}

/// What a path is in a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File(u8),
    Link(u8),
    /// The sizes of its chunks, which are objects of their own number.
    Chunked(Vec<u8>),
}

/// A whole repository: paths with what is there and a modification time, and where nested catalogs begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<Vec<u8>, (Node, i64)>,
    pub(crate) nested: BTreeSet<Vec<u8>>,
}

impl Tree {
    /// The mount point of the catalog that a path's row is in, its own aside.
    fn home(&self, path: &[u8]) -> Vec<u8> {
        let mut at = path;
        while let Some((parent, _)) = split(at) {
            if self.is_mountpoint(parent) {
                return parent.to_vec();
            }
            at = parent;
        }
        Vec::new()
    }

    pub(crate) fn is_mountpoint(&self, path: &[u8]) -> bool {
        !path.is_empty()
            && self.nested.contains(path)
            && matches!(self.nodes.get(path), Some((Node::Directory, _)))
    }

    /// Writes all catalogs; the digest of the root catalog.
    pub(crate) fn publish(&self, source: &FixtureSource) -> Digest {
        self.publish_catalog(b"", source).0
    }

    fn publish_catalog(&self, prefix: &[u8], source: &FixtureSource) -> (Digest, usize) {
        let mut rows = Vec::new();
        let mut more = String::new();
        for (path, (node, mtime)) in &self.nodes {
            let own_root = path == prefix;
            if !own_root && self.home(path) != prefix {
                continue;
            }
            if !own_root && !path.starts_with(prefix) {
                continue;
            }
            let mut row = match node {
                Node::Directory => TestRow::directory(path),
                Node::File(content) => TestRow::file(path, *content),
                Node::Link(target) => TestRow::link(path, format!("target{target}").as_bytes()),
                Node::Chunked(sizes) => {
                    let hash = PathHash::of(path);
                    let mut offset = 0;
                    for size in sizes {
                        let hex = Algorithm::Sha1.digest(&[*size]).hex();
                        more += &format!(
                            "INSERT INTO chunks VALUES ({}, {}, {offset}, {size}, x'{hex}');",
                            hash.high, hash.low
                        );
                        offset += i64::from(*size);
                    }
                    TestRow { flags: 68, hash: None, size: offset, ..TestRow::file(path, 0) }
                }
            };
            row.mtime = *mtime;
            if own_root && !prefix.is_empty() {
                row.flags = 33;
            } else if self.is_mountpoint(path) {
                row.flags = 3;
                let (digest, size) = self.publish_catalog(path, source);
                let text = String::from_utf8(path.clone()).unwrap();
                more += &format!("INSERT INTO nested_catalogs VALUES ('{text}', '{digest}', {size});");
            }
            rows.push(row);
        }
        let bytes = catalog(std::str::from_utf8(prefix).unwrap(), &rows, &more);
        let size = bytes.len();
        (source.offer(bytes), size)
    }
}
