//! Rows of a listing in the kernel's form (struct fuse_dirent and fuse_direntplus).

use std::os::unix::ffi::OsStrExt;

use crate::wire::answer;
use crate::{DirEntry, Entry, NodeId};

/// sizeof(struct fuse_dirent) without the name.
const DIRENT_BYTES: usize = 24;
/// The longest name the kernel takes (FUSE_NAME_MAX); a longer one would fail the whole listing.
const NAME_MAX_BYTES: usize = 1024;

/// Rows of a listing in the kernel's form, bounded by the size the caller asked for.
#[derive(Debug)]
pub struct DirectoryBuffer {
    bytes: Vec<u8>,
    limit: usize,
    /// Nodes that count as looked up once the kernel has these rows.
    looked_up: Vec<NodeId>,
}

impl DirectoryBuffer {
    /// An empty buffer for at most `limit` bytes of rows. Sessions make them; tests of file systems may.
    pub fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, looked_up: Vec::new() }
    }

    /// Appends a row; `false` (and no change) when it does not fit any more.
    ///
    /// A row whose name the kernel would refuse (empty, longer than 1024 bytes, with a slash or a NUL byte) is left out,
    /// and `true` returned: one hostile name must not make a directory unreadable.
    pub fn push(&mut self, row: DirEntry<'_>) -> bool {
        if !acceptable(row.name.as_bytes()) {
            return true;
        }
        let fits = self.make_room(DIRENT_BYTES + row.name.len());
        if fits {
            self.append(row);
        }
        fits
    }

    /// Appends a row with attributes (readdirplus); `false` (and no change) when it does not fit any more. An
    /// entry without a node is passed on as a plain row, which the kernel looks up itself when needed.
    pub fn push_plus(&mut self, row: DirEntry<'_>, entry: Entry) -> bool {
        let name = row.name.as_bytes();
        if !acceptable(name) {
            return true;
        }
        let fits = self.make_room(answer::ENTRY_BYTES + DIRENT_BYTES + name.len());
        if fits {
            self.bytes.extend_from_slice(&answer::entry(&entry));
            self.append(row);
            if let (Some((node, _)), false) = (entry.node, matches!(name, b"." | b"..")) {
                self.looked_up.push(node);
            }
        }
        fits
    }

    /// Whether no row has been appended.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The rows as the kernel will see them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The rows, and the nodes that count as looked up once the kernel has them.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<NodeId>) {
        (self.bytes, self.looked_up)
    }

    /// Whether `bytes` more (and padding) fit. The first row reserves what a usual listing takes.
    fn make_room(&mut self, bytes: usize) -> bool {
        let fits = self.bytes.len() + bytes.next_multiple_of(8) <= self.limit;
        if fits && self.bytes.is_empty() {
            self.bytes.reserve_exact(self.limit.min(32 * 1024));
        }
        fits
    }

    fn append(&mut self, row: DirEntry<'_>) {
        let name = row.name.as_bytes();
        self.bytes.extend_from_slice(&row.ino.to_ne_bytes());
        self.bytes.extend_from_slice(&row.next.to_ne_bytes());
        self.bytes.extend_from_slice(&u32::try_from(name.len()).expect("checked to be short").to_ne_bytes());
        // d_type is the file type of st_mode, shifted (include/linux/fs_types.h).
        self.bytes.extend_from_slice(&(answer::type_bits(row.kind) >> 12).to_ne_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

fn acceptable(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX_BYTES && !name.iter().any(|&byte| byte == b'/' || byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileKind;
    use std::ffi::OsStr;

    fn row(name: &str, next: u64) -> DirEntry<'_> {
        DirEntry { name: OsStr::new(name), ino: 7, kind: FileKind::Regular, next }
    }

    #[test]
    fn rows_are_padded_to_eight_bytes_and_bounded() {
        let mut buffer = DirectoryBuffer::new(64);
        assert!(buffer.push(row("abc", 1)));
        assert_eq!(buffer.as_bytes().len(), 32);
        assert!(!buffer.push(row("longer-than", 2)), "24 + 11 bytes do not fit in 32");
        assert_eq!(buffer.as_bytes().len(), 32);
        assert!(buffer.push(row("12345678", 2)));
        assert_eq!(buffer.as_bytes().len(), 64);
        assert_eq!(&buffer.as_bytes()[24..32], b"abc\0\0\0\0\0");
        assert_eq!(buffer.as_bytes()[20], 8, "DT_REG");
    }

    #[test]
    fn a_name_that_the_kernel_refuses_is_left_out() {
        let mut buffer = DirectoryBuffer::new(4096);
        assert!(
            buffer.push(row("a/b", 1)) && buffer.push(row("", 2)) && buffer.push(row(&"x".repeat(1025), 3))
        );
        assert!(buffer.is_empty());
    }
}
