//! Where the columns of a catalog's tables are. Old schemas lack some of them.

use super::dirent::RawRow;
use super::sqlite::{Record, Schema, Table, Value};
use super::{BadEntry, Dirent};
use crate::client::hash::PathHash;

/// The table `catalog`.
#[derive(Debug)]
pub(super) struct CatalogTable {
    pub(super) root: u32,
    /// Index over the path hash.
    pub(super) path_index: u32,
    /// Index over the parent's path hash.
    pub(super) parent_index: u32,
    path: [usize; 2],
    parent: [usize; 2],
    size: usize,
    mode: usize,
    mtime: usize,
    flags: usize,
    name: usize,
    symlink: usize,
    hash: usize,
    /// Absent before 2.1, as the owners are.
    hardlinks: Option<usize>,
    uid: Option<usize>,
    gid: Option<usize>,
    /// From revision 2 on.
    xattr: Option<usize>,
    /// From revision 7 on.
    mtime_nanos: Option<usize>,
}

/// The key columns of a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) path: PathHash,
    pub(super) parent: PathHash,
}

impl CatalogTable {
    pub(super) fn find(schema: &Schema) -> Result<Self, &'static str> {
        let table = schema.table("catalog").ok_or("it has no table of entries")?;
        let column = |name| table.column(name).ok_or("its table of entries lacks columns");
        Ok(CatalogTable {
            root: table.root,
            path_index: table.index(&["md5path_1", "md5path_2"]).ok_or("it has no index over paths")?,
            parent_index: table.index(&["parent_1", "parent_2"]).ok_or("it has no index over directories")?,
            path: [column("md5path_1")?, column("md5path_2")?],
            parent: [column("parent_1")?, column("parent_2")?],
            size: column("size")?,
            mode: column("mode")?,
            mtime: column("mtime")?,
            flags: column("flags")?,
            name: column("name")?,
            symlink: column("symlink")?,
            hash: column("hash")?,
            hardlinks: table.column("hardlinks"),
            uid: table.column("uid"),
            gid: table.column("gid"),
            xattr: table.column("xattr"),
            mtime_nanos: table.column("mtimens"),
        })
    }

    /// The keys and the checked entry of a row.
    pub(super) fn entry(&self, record: &Record<'_>, is_root: bool) -> Result<(Keys, Dirent), BadEntry> {
        let name = record.get(self.name).bytes().flatten().unwrap_or_default();
        let parts = || {
            let number = |column| record.get(column).integer();
            let optional = |column: Option<usize>| column.map_or(Some(0), number);
            let row = RawRow {
                hardlinks: optional(self.hardlinks)?,
                hash: record.get(self.hash).bytes()?,
                size: number(self.size)?,
                mode: number(self.mode)?,
                mtime: number(self.mtime)?,
                mtime_nanos: optional(self.mtime_nanos)?,
                flags: number(self.flags)?,
                name,
                symlink: record.get(self.symlink).bytes()?.unwrap_or_default(),
                uid: optional(self.uid)?,
                gid: optional(self.gid)?,
                xattr: self.xattr.map_or(Value::Null, |column| record.get(column)).bytes()?,
            };
            let keys =
                Keys { path: self.hash_at(record, self.path)?, parent: self.hash_at(record, self.parent)? };
            Some((keys, row))
        };
        match parts() {
            Some((keys, row)) => row.check(is_root).map(|dirent| (keys, dirent)),
            None => {
                let name = super::dirent::is_name(name).then(|| name.to_vec());
                Err(BadEntry { name, reason: "a column of its row has a wrong type" })
            }
        }
    }

    /// The name and the parent of a row, whatever else is wrong with it.
    pub(super) fn name_and_parent(&self, record: &Record<'_>) -> Option<(Vec<u8>, PathHash)> {
        let name = record.get(self.name).bytes()?.unwrap_or_default();
        Some((name.to_vec(), self.hash_at(record, self.parent)?))
    }

    fn hash_at(&self, record: &Record<'_>, columns: [usize; 2]) -> Option<PathHash> {
        let [high, low] = columns.map(|column| record.get(column).integer());
        Some(PathHash { high: high?, low: low? })
    }
}

/// The table `chunks`.
#[derive(Debug)]
pub(super) struct ChunkTable {
    pub(super) root: u32,
    /// Index over path hash, offset and size.
    pub(super) index: u32,
    pub(super) offset: usize,
    pub(super) size: usize,
    pub(super) hash: usize,
}

impl ChunkTable {
    pub(super) fn find(table: &Table) -> Option<Self> {
        Some(ChunkTable {
            root: table.root,
            index: table.index(&["md5path_1", "md5path_2", "offset", "size"])?,
            offset: table.column("offset")?,
            size: table.column("size")?,
            hash: table.column("hash")?,
        })
    }
}
