//! A catalog as values: the rows of its tables, before they are a database or after they were one.
//!
//! Numbers are as SQLite holds them (signed 64 bits) and nothing is checked here, so that tests can also build what no sane writer
//! would. Meaning of the columns: CernVM-FS `catalog_sql.cc`, schema 2.5 revision 7.

// `publish::forge`, and only that, exports these.
#![allow(unreachable_pub)]

use crate::client::hash::{Algorithm, Compression, PathHash};

/// Bits of the `flags` column.
pub mod flags {
    /// A directory.
    pub const DIRECTORY: i64 = 1;
    /// A directory whose content is in a nested catalog; the row in the parent catalog.
    pub const MOUNTPOINT: i64 = 2;
    /// A regular file, and set for symbolic links and special files too.
    pub const FILE: i64 = 4;
    /// A symbolic link.
    pub const SYMLINK: i64 = 8;
    /// A device, fifo or socket.
    pub const SPECIAL: i64 = 16;
    /// The first directory of a nested catalog; the row in the nested catalog.
    pub const NESTED_ROOT: i64 = 32;
    /// A file in chunks.
    pub const CHUNKED: i64 = 64;
    /// A file whose content is not in the repository.
    pub const EXTERNAL: i64 = 128;
    /// Where the hash algorithm's number begins (3 bits).
    pub const ALGORITHM_SHIFT: u32 = 8;
    /// Where the compression's number begins (3 bits).
    pub const COMPRESSION_SHIFT: u32 = 11;
}

/// One row of table `catalog`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Hash of the full path.
    pub path: PathHash,
    /// Hash of the parent directory's path; zeros for the root of the repository.
    pub parent: PathHash,
    /// Group of hard links << 32 | link count.
    pub hardlinks: i64,
    /// Hash of the content's object.
    pub hash: Option<Vec<u8>>,
    /// Bytes; the device number of devices.
    pub size: i64,
    /// `st_mode` with the type bits.
    pub mode: i64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds; absent means unknown.
    pub mtime_ns: Option<i64>,
    /// See [`flags`].
    pub flags: i64,
    /// Name, raw bytes; empty for the root of the repository.
    pub name: Vec<u8>,
    /// Target of a symbolic link, else empty.
    pub symlink: Vec<u8>,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Extended attributes in the catalog's own form.
    pub xattr: Option<Vec<u8>>,
}

/// One row of table `chunks`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChunkRow {
    /// Hash of the file's path.
    pub path: PathHash,
    /// First byte.
    pub offset: i64,
    /// Bytes.
    pub size: i64,
    /// Hash of the chunk's object.
    pub hash: Vec<u8>,
}

/// One row of tables `nested_catalogs` and `bind_mountpoints`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NestedRow {
    /// Absolute path of the mountpoint.
    pub path: Vec<u8>,
    /// Hash with algorithm tag, as text.
    pub digest: String,
    /// Bytes of the nested catalog before compression.
    pub size: i64,
}

/// A whole catalog.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Image {
    /// Table `properties`, in order; values are raw bytes, since one of them is a path.
    pub properties: Vec<(String, Vec<u8>)>,
    /// Table `catalog`.
    pub rows: Vec<Row>,
    /// Table `chunks`.
    pub chunks: Vec<ChunkRow>,
    /// Table `nested_catalogs`.
    pub nested: Vec<NestedRow>,
    /// Table `bind_mountpoints`.
    pub bound: Vec<NestedRow>,
    /// Table `statistics`, in order.
    pub statistics: Vec<(String, i64)>,
}

impl Image {
    /// The value of a property.
    #[must_use]
    pub fn raw_property(&self, key: &str) -> Option<&[u8]> {
        self.properties.iter().find_map(|(known, value)| (known == key).then_some(value.as_slice()))
    }

    /// The value of a property that is text.
    #[must_use]
    pub fn property(&self, key: &str) -> Option<&str> {
        self.raw_property(key).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// A digest over what clients see of this catalog: equal for catalogs that differ in their history and order of rows only.
    pub(super) fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| (row.path.high, row.path.low));
        let mut chunks: Vec<&ChunkRow> = self.chunks.iter().collect();
        chunks.sort_by_key(|chunk| (chunk.path.high, chunk.path.low, chunk.offset));
        let mut nested: Vec<&NestedRow> = self.nested.iter().collect();
        nested.sort_by(|a, b| a.path.cmp(&b.path));
        let mut bound: Vec<&NestedRow> = self.bound.iter().collect();
        bound.sort_by(|a, b| a.path.cmp(&b.path));
        let lasting: Vec<(&str, Option<&[u8]>)> =
            ["root_prefix", "TTL", "volatile"].into_iter().map(|key| (key, self.raw_property(key))).collect();
        // `Debug` of plain data separates all fields; it needs to be stable within one process only.
        let mut part = |text: String| {
            hasher.update(text.as_bytes());
            hasher.update(b"\n");
        };
        part(format!("{lasting:?}"));
        rows.into_iter().for_each(|row| part(format!("{row:?}")));
        chunks.into_iter().for_each(|chunk| part(format!("{chunk:?}")));
        nested.into_iter().for_each(|nested| part(format!("nested {nested:?}")));
        bound.into_iter().for_each(|bound| part(format!("bound {bound:?}")));
        hasher.finalize()
    }
}

/// The flag bits of a file's hash algorithm and compression.
pub(super) fn storage_flags(algorithm: Algorithm, compression: Compression) -> i64 {
    i64::from(algorithm.catalog_bits()) << flags::ALGORITHM_SHIFT
        | i64::from(compression.catalog_bits()) << flags::COMPRESSION_SHIFT
}

/// The `xattr` column: version 1, a count, then length of name, length of value, name and value of each, sorted by name.
///
/// # Errors
/// Says which attribute does not fit.
pub(super) fn xattr_blob(attributes: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<Vec<u8>>, String> {
    if attributes.is_empty() {
        return Ok(None);
    }
    let byte = |value: usize, what: String| {
        u8::try_from(value)
            .map_err(|_| format!("{what} is more than a catalog can hold (255): remove or shorten it, or publish without attributes"))
    };
    let mut blob = vec![
        1,
        byte(attributes.len(), format!("the number of its extended attributes ({})", attributes.len()))?,
    ];
    let mut sorted: Vec<&(Vec<u8>, Vec<u8>)> = attributes.iter().collect();
    sorted.sort();
    for (key, value) in sorted {
        let shown = String::from_utf8_lossy(key);
        blob.push(byte(
            key.len(),
            format!("the name of its extended attribute {shown} ({} bytes)", key.len()),
        )?);
        blob.push(byte(value.len(), format!("its extended attribute {shown} ({} bytes)", value.len()))?);
        blob.extend_from_slice(key);
        blob.extend_from_slice(value);
    }
    Ok(Some(blob))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_sorted_and_too_long_ones_are_named() {
        let two = [(b"user.b".to_vec(), b"2".to_vec()), (b"user.a".to_vec(), b"1".to_vec())];
        assert_eq!(xattr_blob(&two).unwrap().unwrap(), b"\x01\x02\x06\x01user.a1\x06\x01user.b2");
        let long = [(b"user.long".to_vec(), vec![0; 256])];
        assert!(xattr_blob(&long).unwrap_err().contains("user.long (256 bytes)"));
        assert_eq!(xattr_blob(&[]), Ok(None));
    }
}
