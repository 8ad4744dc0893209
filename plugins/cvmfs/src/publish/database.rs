//! Catalogs as SQLite files, in the layout that all clients read: schema 2.5, revision 7, pages of 1 KiB.

use std::fs;

use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, OpenFlags, Row as SqlRow, ToSql, params};

use super::error::{PublishError, io_error};
use super::image::{ChunkRow, Image, NestedRow, Row};
use super::store::Store;
use crate::client::hash::PathHash;

/// No catalog that clients can cope with is larger.
pub(super) const CATALOG_LIMIT: u64 = 8 << 30;

const TABLES: &str = "
    CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
    CREATE TABLE catalog (
        md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER, hardlinks INTEGER,
        hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, mtimens INTEGER, flags INTEGER,
        name TEXT, symlink TEXT, uid INTEGER, gid INTEGER, xattr BLOB,
        CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
    CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
    CREATE TABLE chunks (
        md5path_1 INTEGER, md5path_2 INTEGER, offset INTEGER, size INTEGER, hash BLOB,
        CONSTRAINT pk_chunks PRIMARY KEY (md5path_1, md5path_2, offset, size),
        FOREIGN KEY (md5path_1, md5path_2) REFERENCES catalog (md5path_1, md5path_2));
    CREATE TABLE nested_catalogs (
        path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_nested_catalogs PRIMARY KEY (path));
    CREATE TABLE bind_mountpoints (
        path TEXT, sha1 TEXT, size INTEGER, CONSTRAINT pk_bind_mountpoints PRIMARY KEY (path));
    CREATE TABLE statistics (counter TEXT, value INTEGER, CONSTRAINT pk_statistics PRIMARY KEY (counter));
";

/// Bytes that go into a TEXT column as they are, UTF-8 or not.
struct RawText<'a>(&'a [u8]);

impl ToSql for RawText<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// Runs `fill` on an empty database with pages of 1 KiB and returns the file's bytes. Nothing is flushed: the file only lives until it is
/// read back.
pub(super) fn build(
    store: &Store,
    fill: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<Vec<u8>, PublishError> {
    let path = store.temporary();
    let directory = store.temporaries();
    let run = || -> rusqlite::Result<()> {
        let connection = Connection::open(&path)?;
        connection.execute_batch(
            "PRAGMA page_size = 1024; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF;
             PRAGMA locking_mode = EXCLUSIVE;",
        )?;
        connection.execute_batch("BEGIN")?;
        fill(&connection)?;
        connection.execute_batch("COMMIT")?;
        connection.close().map_err(|(_, error)| error)
    };
    let built = run().map_err(|source| PublishError::Database { directory, source });
    let bytes = built.and_then(|()| fs::read(&path).map_err(io_error("read", &path)));
    let _ = fs::remove_file(&path);
    bytes
}

/// Runs `read` on a database given as bytes.
pub(super) fn inspect<T>(
    store: &Store,
    what: &str,
    bytes: &[u8],
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, PublishError> {
    let path = store.temporary();
    fs::write(&path, bytes).map_err(io_error("create", &path))?;
    let run = || -> rusqlite::Result<T> {
        let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")?;
        read(&connection)
    };
    let result =
        run().map_err(|error| PublishError::Damaged { what: what.to_owned(), reason: error.to_string() });
    let _ = fs::remove_file(&path);
    result
}

/// A catalog as a database file.
pub(super) fn write(store: &Store, image: &Image) -> Result<Vec<u8>, PublishError> {
    build(store, |connection| {
        connection.execute_batch(TABLES)?;
        let mut insert = connection.prepare("INSERT INTO properties VALUES (?, ?)")?;
        for (key, value) in &image.properties {
            insert.execute(params![key, RawText(value)])?;
        }
        insert_rows(connection, &image.rows)?;
        let mut insert = connection.prepare("INSERT INTO chunks VALUES (?, ?, ?, ?, ?)")?;
        for chunk in &image.chunks {
            insert.execute(params![chunk.path.high, chunk.path.low, chunk.offset, chunk.size, chunk.hash])?;
        }
        for (table, rows) in [("nested_catalogs", &image.nested), ("bind_mountpoints", &image.bound)] {
            let mut insert = connection.prepare(&format!("INSERT INTO {table} VALUES (?, ?, ?)"))?;
            for row in rows {
                insert.execute(params![RawText(&row.path), row.digest, row.size])?;
            }
        }
        let mut insert = connection.prepare("INSERT INTO statistics VALUES (?, ?)")?;
        for (counter, value) in &image.statistics {
            insert.execute(params![counter, value])?;
        }
        Ok(())
    })
}

fn insert_rows(connection: &Connection, rows: &[Row]) -> rusqlite::Result<()> {
    let mut insert =
        connection.prepare("INSERT INTO catalog VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
    for row in rows {
        insert.execute(params![
            row.path.high,
            row.path.low,
            row.parent.high,
            row.parent.low,
            row.hardlinks,
            row.hash,
            row.size,
            row.mode,
            row.mtime,
            row.mtime_ns,
            row.flags,
            RawText(&row.name),
            RawText(&row.symlink),
            row.uid,
            row.gid,
            row.xattr,
        ])?;
    }
    Ok(())
}

/// Reads a catalog file back; also of older schema revisions, whose missing columns and tables are empty.
pub(super) fn read(store: &Store, what: &str, bytes: &[u8]) -> Result<Image, PublishError> {
    inspect(store, what, bytes, |connection| {
        let mut image = Image {
            properties: properties(connection)?,
            rows: rows(connection)?,
            chunks: chunks(connection)?,
            statistics: statistics(connection)?,
            ..Image::default()
        };
        image.nested = nested(connection, "nested_catalogs")?;
        if has(connection, "SELECT count(*) FROM sqlite_schema WHERE name = 'bind_mountpoints'")? {
            image.bound = nested(connection, "bind_mountpoints")?;
        }
        Ok(image)
    })
}

fn has(connection: &Connection, sql: &str) -> rusqlite::Result<bool> {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|count| count > 0)
}

fn properties(connection: &Connection) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    connection
        .prepare("SELECT key, value FROM properties ORDER BY rowid")?
        .query_map([], |row| Ok((row.get(0)?, raw(row, 1)?)))?
        .collect()
}

fn statistics(connection: &Connection) -> rusqlite::Result<Vec<(String, i64)>> {
    connection
        .prepare("SELECT counter, value FROM statistics ORDER BY rowid")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// A TEXT or BLOB column as bytes; NULL is empty.
fn raw(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
        ValueRef::Null => Vec::new(),
        other => match Value::try_from(other)? {
            Value::Integer(number) => number.to_string().into_bytes(),
            _ => Vec::new(),
        },
    })
}

fn path_hash(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<PathHash> {
    Ok(PathHash { high: row.get(column)?, low: row.get(column + 1)? })
}

fn rows(connection: &Connection) -> rusqlite::Result<Vec<Row>> {
    let nanoseconds =
        has(connection, "SELECT count(*) FROM pragma_table_info('catalog') WHERE name = 'mtimens'")?;
    let mtimens = if nanoseconds { "mtimens" } else { "NULL" };
    let sql = format!(
        "SELECT md5path_1, md5path_2, parent_1, parent_2, hardlinks, hash, size, mode, mtime, {mtimens}, flags,
                name, symlink, uid, gid, xattr FROM catalog ORDER BY rowid"
    );
    connection
        .prepare(&sql)?
        .query_map([], |row| {
            Ok(Row {
                path: path_hash(row, 0)?,
                parent: path_hash(row, 2)?,
                hardlinks: row.get(4)?,
                hash: row.get(5)?,
                size: row.get(6)?,
                mode: row.get(7)?,
                mtime: row.get(8)?,
                mtime_ns: row.get(9)?,
                flags: row.get(10)?,
                name: raw(row, 11)?,
                symlink: raw(row, 12)?,
                uid: row.get(13)?,
                gid: row.get(14)?,
                xattr: row.get(15)?,
            })
        })?
        .collect()
}

fn chunks(connection: &Connection) -> rusqlite::Result<Vec<ChunkRow>> {
    connection
        .prepare("SELECT md5path_1, md5path_2, offset, size, hash FROM chunks ORDER BY md5path_1, md5path_2, offset")?
        .query_map([], |row| {
            Ok(ChunkRow { path: path_hash(row, 0)?, offset: row.get(2)?, size: row.get(3)?, hash: row.get(4)? })
        })?
        .collect()
}

fn nested(connection: &Connection, table: &str) -> rusqlite::Result<Vec<NestedRow>> {
    connection
        .prepare(&format!("SELECT path, sha1, size FROM {table} ORDER BY rowid"))?
        .query_map([], |row| {
            Ok(NestedRow {
                path: raw(row, 0)?,
                digest: row.get(1)?,
                size: row.get::<_, Option<i64>>(2)?.unwrap_or(0),
            })
        })?
        .collect()
}

/// The layout of a database, for comparison: table or index, its columns and their types.
#[cfg(test)]
pub(super) fn layout(store: &Store, bytes: &[u8]) -> Vec<String> {
    inspect(store, "layout", bytes, |connection| {
        let mut lines: Vec<String> = connection
            .prepare(
                "SELECT schema.type || ' ' || schema.name || ' ' || columns.cid || ' ' || columns.name || ' ' || columns.type
                     || ' ' || columns.pk
                 FROM sqlite_schema schema JOIN pragma_table_info(schema.name) columns WHERE schema.type = 'table'
                 UNION ALL
                 SELECT schema.type || ' ' || schema.name || ' ' || columns.seqno || ' ' || columns.name || ' on ' || schema.tbl_name
                 FROM sqlite_schema schema JOIN pragma_index_info(schema.name) columns WHERE schema.type = 'index'",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        lines.push(format!("page_size {}", connection.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0))?));
        lines.push(format!("encoding {}", connection.query_row("PRAGMA encoding", [], |row| row.get::<_, String>(0))?));
        lines.sort();
        Ok(lines)
    })
    .unwrap()
}
