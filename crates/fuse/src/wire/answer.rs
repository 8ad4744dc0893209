//! Answers and notifications: from typed values to the kernel's structs.

use std::time::{Duration, SystemTime};

use super::{OUT_HEADER_BYTES, fopen};
use crate::{Attr, Entry, FileKind, NodeId, OpenMode, Opened, Statfs};

/// sizeof(struct fuse_attr)
const ATTR_BYTES: usize = 88;
/// sizeof(struct fuse_entry_out)
pub(crate) const ENTRY_BYTES: usize = 40 + ATTR_BYTES;

/// struct fuse_out_header for an answer whose payload has `payload` bytes; `error` is 0 or a negative errno, or a
/// notification code when `unique` is 0.
pub(crate) fn header(unique: u64, error: i32, payload: usize) -> [u8; OUT_HEADER_BYTES] {
    let mut out = Struct::<OUT_HEADER_BYTES>::new();
    out.u32(u32::try_from(OUT_HEADER_BYTES + payload).expect("answers are at most 1 MiB"));
    out.u32(error.cast_unsigned()).u64(unique);
    out.done()
}

/// struct fuse_entry_out. A missing name is node id 0, which the kernel keeps for `entry_ttl` as a negative entry.
pub(crate) fn entry(entry: &Entry) -> [u8; ENTRY_BYTES] {
    let mut out = Struct::<ENTRY_BYTES>::new();
    out.u64(entry.node.map_or(0, |(NodeId(id), _)| id)).u64(0);
    out.u64(ttl_seconds(entry.entry_ttl)).u64(ttl_seconds(entry.attr_ttl));
    out.u32(entry.entry_ttl.subsec_nanos()).u32(entry.attr_ttl.subsec_nanos());
    match &entry.node {
        Some((_, attr)) => out.attr(attr),
        None => out.bytes(&[0; ATTR_BYTES]),
    };
    out.done()
}

/// struct fuse_attr_out
pub(crate) fn attributes(attr: &Attr, ttl: Duration) -> [u8; 16 + ATTR_BYTES] {
    let mut out = Struct::<{ 16 + ATTR_BYTES }>::new();
    out.u64(ttl_seconds(ttl)).u32(ttl.subsec_nanos()).u32(0).attr(attr);
    out.done()
}

/// struct fuse_open_out of a file. FOPEN_NOFLUSH spares the FLUSH that each close would send for nothing.
pub(crate) fn opened_file(opened: &Opened) -> [u8; 16] {
    let (flags, backing) = match opened.mode {
        OpenMode::Cached => (fopen::KEEP_CACHE, 0),
        OpenMode::Direct => (fopen::DIRECT_IO, 0),
        OpenMode::Passthrough(id) => (fopen::PASSTHROUGH, id),
    };
    open(opened.handle, flags | fopen::NOFLUSH, backing)
}

/// struct fuse_open_out of a directory.
pub(crate) fn opened_directory(opened: &Opened) -> [u8; 16] {
    let flags = match opened.mode {
        OpenMode::Cached => fopen::CACHE_DIR | fopen::KEEP_CACHE,
        OpenMode::Direct | OpenMode::Passthrough(_) => 0,
    };
    open(opened.handle, flags, 0)
}

fn open(handle: u64, flags: u32, backing: u32) -> [u8; 16] {
    let mut out = Struct::<16>::new();
    out.u64(handle).u32(flags).u32(backing);
    out.done()
}

/// struct fuse_statfs_out
pub(crate) fn statfs(statfs: &Statfs) -> [u8; 80] {
    let mut out = Struct::<80>::new();
    out.u64(statfs.blocks).u64(statfs.free).u64(statfs.free).u64(statfs.files).u64(statfs.files_free);
    out.u32(statfs.block_size).u32(statfs.name_max).u32(statfs.block_size);
    out.done()
}

/// struct fuse_getxattr_out: the size of a value or of the list of names.
pub(crate) fn xattr_size(bytes: u32) -> [u8; 8] {
    let mut out = Struct::<8>::new();
    out.u32(bytes);
    out.done()
}

/// struct fuse_notify_inval_inode_out. A negative `offset` drops attributes only; `length` 0 means to the end.
pub(crate) fn inval_inode(node: NodeId, offset: i64, length: i64) -> [u8; 24] {
    let mut out = Struct::<24>::new();
    out.u64(node.0).u64(offset.cast_unsigned()).u64(length.cast_unsigned());
    out.done()
}

/// struct fuse_notify_inval_entry_out; the name and a NUL byte follow.
pub(crate) fn inval_entry(parent: NodeId, name_bytes: u32) -> [u8; 16] {
    let mut out = Struct::<16>::new();
    out.u64(parent.0).u32(name_bytes);
    out.done()
}

/// File type bits of st_mode.
pub(crate) fn type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular => 0o100_000,
        FileKind::Directory => 0o040_000,
        FileKind::Symlink => 0o120_000,
        FileKind::Fifo => 0o010_000,
        FileKind::Socket => 0o140_000,
        FileKind::CharDevice => 0o020_000,
        FileKind::BlockDevice => 0o060_000,
    }
}

/// A struct of the ABI that is filled in the order of its fields; what is not filled is zero.
struct Struct<const N: usize> {
    bytes: [u8; N],
    filled: usize,
}

impl<const N: usize> Struct<N> {
    fn new() -> Self {
        Self { bytes: [0; N], filled: 0 }
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.filled + bytes.len();
        self.bytes[self.filled..end].copy_from_slice(bytes);
        self.filled = end;
        self
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    /// struct fuse_attr
    fn attr(&mut self, attr: &Attr) -> &mut Self {
        let (seconds, nanoseconds) = since_epoch(attr.mtime);
        self.u64(attr.ino).u64(attr.size).u64(attr.blocks);
        self.u64(seconds).u64(seconds).u64(seconds);
        self.u32(nanoseconds).u32(nanoseconds).u32(nanoseconds);
        self.u32(type_bits(attr.kind) | u32::from(attr.perm & 0o7777));
        self.u32(attr.nlink).u32(attr.uid).u32(attr.gid).u32(attr.rdev);
        self.u32(4096).u32(0) // st_blksize, flags
    }

    fn done(self) -> [u8; N] {
        self.bytes
    }
}

/// Whole seconds of a time to live. The kernel computes with signed seconds and jiffies; a century is for ever.
fn ttl_seconds(ttl: Duration) -> u64 {
    ttl.as_secs().min(100 * 365 * 24 * 3600)
}

/// Seconds (two's complement when before 1970, as the kernel takes them) and nanoseconds (always positive).
fn since_epoch(time: SystemTime) -> (u64, u32) {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (after.as_secs(), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            match before.subsec_nanos() {
                0 => (before.as_secs().wrapping_neg(), 0),
                nanoseconds => ((before.as_secs() + 1).wrapping_neg(), 1_000_000_000 - nanoseconds),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_order() {
        let epoch = SystemTime::UNIX_EPOCH;
        assert_eq!(since_epoch(epoch + Duration::from_millis(1500)), (1, 500_000_000));
        assert_eq!(since_epoch(epoch - Duration::from_secs(1)), (u64::MAX, 0));
        assert_eq!(since_epoch(epoch - Duration::from_millis(500)), (u64::MAX, 500_000_000));
    }
}
