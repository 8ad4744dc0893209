//! The tree to publish, as it is found.
//!
//! Entries are kept in one vector, parents before children and names in byte order, so that every later step is a loop
//! forwards or backwards and depth costs no stack. An entry takes some 150 bytes and its name.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::{PublishError, io_error};
use super::image::xattr_blob;
use super::options::{Ownership, Progress, PublishOptions};

const S_IFMT: u32 = 0o170_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

/// How many entries go by between two questions whether to stop.
const CANCEL_EVERY: usize = 1024;

/// Index of an entry in its [`Tree`].
pub(super) type EntryId = usize;

/// What an entry is, with what only that kind has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Directory {
        subdirectories: u32,
    },
    File(FileIdentity),
    Symlink(Vec<u8>),
    /// Device number; zero for fifos and sockets.
    Special(u64),
}

/// Tells whether a file is still what the scan saw.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The same for all names of a file.
    pub(super) fn inode(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// One entry.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The root is its own parent.
    pub(super) parent: EntryId,
    /// Empty for the root.
    pub(super) name: Box<[u8]>,
    pub(super) kind: Kind,
    /// `st_mode` with type bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) mtime_ns: u32,
    /// A file with several names.
    pub(super) linked: bool,
    pub(super) xattr: Option<Box<[u8]>>,
}

impl Entry {
    pub(super) fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }
}

/// Everything below a directory.
#[derive(Debug)]
pub(super) struct Tree {
    source: PathBuf,
    pub(super) entries: Vec<Entry>,
}

impl Tree {
    /// Entries that come from no directory.
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        Tree { source: PathBuf::new(), entries }
    }

    /// The path within the repository: empty for the root, else `/a/b`.
    pub(super) fn path(&self, id: EntryId) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = id;
        while at != 0 {
            names.push(&self.entries[at].name);
            at = self.entries[at].parent;
        }
        let mut path = Vec::new();
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    /// The path in the file system.
    pub(super) fn source_path(&self, id: EntryId) -> PathBuf {
        let path = self.path(id);
        match path.split_first() {
            Some((_, relative)) => self.source.join(OsStr::from_bytes(relative)),
            None => self.source.clone(),
        }
    }
}

/// Looks at everything below `source`, following no symbolic link. Other file systems mounted there are included.
pub(super) fn scan(
    source: &Path,
    options: &PublishOptions,
    progress: &dyn Progress,
) -> Result<Tree, PublishError> {
    let mut tree = Tree { source: source.to_owned(), entries: Vec::new() };
    let metadata = fs::metadata(source).map_err(io_error("read", source))?;
    if !metadata.is_dir() {
        let reason = "it is no directory: name the directory that becomes the repository's root".to_owned();
        return Err(PublishError::Unstorable { path: source.to_owned(), reason });
    }
    let root = entry(source, 0, Box::default(), &metadata, options)?;
    tree.entries.push(root);
    // Depth first: the last directory found is looked into next.
    let mut pending = vec![0];
    while let Some(directory) = pending.pop() {
        let path = tree.source_path(directory);
        let mut names = Vec::new();
        for found in fs::read_dir(&path).map_err(io_error("read", &path))? {
            names.push(found.map_err(io_error("read", &path))?.file_name().into_vec());
        }
        names.sort_unstable();
        let first = tree.entries.len();
        let mut subdirectories = 0;
        for name in names {
            if tree.entries.len().is_multiple_of(CANCEL_EVERY) && progress.cancelled() {
                return Err(PublishError::Cancelled);
            }
            let child = path.join(OsStr::from_bytes(&name));
            let metadata = match fs::symlink_metadata(&child) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(PublishError::Changed { path: child });
                }
                other => other.map_err(io_error("read", &child))?,
            };
            subdirectories += u32::from(metadata.is_dir());
            tree.entries.push(entry(&child, directory, name.into(), &metadata, options)?);
        }
        tree.entries[directory].kind = Kind::Directory { subdirectories };
        let found = first..tree.entries.len();
        pending.extend(found.rev().filter(|id| tree.entries[*id].is_directory()));
    }
    Ok(tree)
}

fn entry(
    path: &Path,
    parent: EntryId,
    name: Box<[u8]>,
    metadata: &Metadata,
    options: &PublishOptions,
) -> Result<Entry, PublishError> {
    let unstorable =
        |reason: &str| PublishError::Unstorable { path: path.to_owned(), reason: reason.to_owned() };
    let mode = metadata.mode();
    let kind = match mode & S_IFMT {
        S_IFDIR => Kind::Directory { subdirectories: 0 },
        S_IFREG => {
            if i64::try_from(metadata.size()).is_err() {
                return Err(unstorable("its size is out of range"));
            }
            Kind::File(FileIdentity::of(metadata))
        }
        S_IFLNK => {
            let target = fs::read_link(path).map_err(io_error("read", path))?;
            Kind::Symlink(target.into_os_string().into_vec())
        }
        _ if !options.special_files => {
            return Err(unstorable("it is a device, fifo or socket: remove it, or allow special files"));
        }
        S_IFCHR | S_IFBLK => Kind::Special(metadata.rdev()),
        _ => Kind::Special(0),
    };
    let (uid, gid) = match options.ownership {
        Ownership::Source => (metadata.uid(), metadata.gid()),
        Ownership::Fixed { uid, gid } => (uid, gid),
    };
    let xattr = if options.xattrs { attributes(path)? } else { None };
    Ok(Entry {
        parent,
        name,
        linked: matches!(kind, Kind::File(_)) && metadata.nlink() > 1,
        kind,
        mode,
        uid,
        gid,
        mtime: metadata.mtime(),
        mtime_ns: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        xattr,
    })
}

/// What belongs to the content and not to this machine: no SELinux labels, no attributes of overlay file systems.
fn published(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || [&b"security.capability"[..], b"system.posix_acl_access", b"system.posix_acl_default"]
            .contains(&name)
}

fn attributes(path: &Path) -> Result<Option<Box<[u8]>>, PublishError> {
    use rustix::io::Errno;
    let failed = |errno: Errno| io_error("read extended attributes of", path)(errno.into());
    // The kernel's own limit on both lists and values is 64 KiB.
    let mut buffer = vec![0_u8; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(None),
        Ok(length) => length,
        Err(errno) => return Err(failed(errno)),
    };
    let names: Vec<Vec<u8>> = buffer[..length]
        .split(|byte| *byte == 0)
        .filter(|name| published(name))
        .map(<[u8]>::to_vec)
        .collect();
    let mut found = Vec::new();
    for name in names {
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(&name), &mut buffer[..]) {
            Ok(length) => found.push((name, buffer[..length].to_vec())),
            // Removed in between, or an ACL on a file system without.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    let blob =
        xattr_blob(&found).map_err(|reason| PublishError::Unstorable { path: path.to_owned(), reason })?;
    Ok(blob.map(Into::into))
}
