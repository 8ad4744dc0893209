//! One row of a catalog as a typed directory entry.
//!
//! A row is written by whoever publishes the repository and says anything it likes; what becomes a [`Dirent`] has been
//! checked: type bits and flags agree, sizes fit a file offset, names are names, digests have their length. What fails is a
//! [`BadEntry`]: that one entry answers an error, the rest of the catalog goes on working.
//! Format: `catalog_sql.cc` of CernVM-FS (flags, hard links, special files).

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::client::hash::{Algorithm, Compression, Digest};

/// Longest name of a directory entry, in bytes (NAME_MAX).
pub const NAME_MAX: usize = 255;
/// Longest path and longest symlink target, in bytes (PATH_MAX without the final NUL).
pub const PATH_MAX: usize = 4095;

/// A checked entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirent {
    /// The last component of the path in raw bytes; empty for the root of a repository.
    pub name: Vec<u8>,
    /// Type, with what only this type has.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (07777).
    pub permissions: u16,
    /// Owner as published, before any mapping.
    pub uid: u32,
    /// Group as published, before any mapping.
    pub gid: u32,
    /// Modification time.
    pub mtime: Mtime,
    /// Link count, at least 1.
    pub links: u32,
    /// Not 0: entries of one catalog with the same group are one inode.
    pub link_group: u32,
    /// Not shown in listings, though reachable by name.
    pub hidden: bool,
    /// The undecoded extended attributes; see [`xattr`](crate::client::xattr).
    pub xattrs: Option<Vec<u8>>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    Regular(FileContent),
    /// A directory.
    Directory {
        /// The size that `stat` shows, in bytes.
        size: u64,
        /// Whether another catalog begins here.
        mount: MountPoint,
    },
    /// A symbolic link with its target as published, before variables are expanded.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device with its number (Linux `makedev`).
    CharDevice(u32),
    /// A block device with its number (Linux `makedev`).
    BlockDevice(u32),
}

/// How a directory stands to catalogs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountPoint {
    /// A directory like others.
    No,
    /// The row of a nested catalog's mount point in its parent: what is below is in the child.
    Nested,
    /// The root row of a nested catalog.
    NestedRoot,
    /// A catalog of another revision is mounted here.
    Bind,
}

/// Where the bytes of a regular file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileContent {
    /// Bytes of the content; at most `i64::MAX`.
    pub size: u64,
    /// Digest of the whole file's object. `None` for chunked files as a rule.
    pub digest: Option<Digest>,
    /// The content is in chunks, which win over `digest`.
    pub chunked: bool,
    /// The content comes from the external server, by path.
    pub external: bool,
    /// The page cache is to be passed by.
    pub direct_io: bool,
    /// How the object, or each chunk, is stored.
    pub compression: Compression,
    /// Algorithm of the object's, or each chunk's, digest.
    pub algorithm: Algorithm,
}

/// A time as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mtime {
    /// Seconds since 1970, perhaps negative.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 10^9.
    pub nanos: u32,
}

impl Mtime {
    /// The same instant; the epoch when the clock's type cannot hold it.
    pub fn system_time(self) -> SystemTime {
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let base = if self.seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(whole)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(whole)
        };
        base.and_then(|base| base.checked_add(Duration::from_nanos(u64::from(self.nanos))))
            .unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// An entry that is there but makes no sense. A system call on it answers EIO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEntry {
    /// The name, when that at least is one.
    pub name: Option<Vec<u8>>,
    /// What is wrong, for people.
    pub reason: &'static str,
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "entry {:?}: {}", String::from_utf8_lossy(name), self.reason),
            None => write!(f, "entry without a usable name: {}", self.reason),
        }
    }
}

impl std::error::Error for BadEntry {}

/// The columns of one row, before they are believed.
#[derive(Debug, Clone, Default)]
pub(crate) struct RawRow<'a> {
    pub(crate) hardlinks: i64,
    pub(crate) hash: Option<&'a [u8]>,
    pub(crate) size: i64,
    pub(crate) mode: i64,
    pub(crate) mtime: i64,
    pub(crate) mtime_nanos: i64,
    pub(crate) flags: i64,
    pub(crate) name: &'a [u8],
    pub(crate) symlink: &'a [u8],
    pub(crate) uid: i64,
    pub(crate) gid: i64,
    pub(crate) xattr: Option<&'a [u8]>,
}

const FLAG_DIRECTORY: i64 = 1;
const FLAG_NESTED_MOUNT: i64 = 2;
const FLAG_FILE: i64 = 4;
const FLAG_SYMLINK: i64 = 8;
const FLAG_SPECIAL: i64 = 16;
const FLAG_NESTED_ROOT: i64 = 32;
const FLAG_CHUNKED: i64 = 64;
const FLAG_EXTERNAL: i64 = 128;
const FLAG_BIND: i64 = 0x4000;
const FLAG_HIDDEN: i64 = 0x8000;
const FLAG_DIRECT_IO: i64 = 0x10000;

/// Largest extended-attribute blob: 255 attributes of two 255-byte parts with their lengths.
const XATTR_BLOB_MAX: usize = 2 + 255 * (2 + 255 + 255);

/// Whether `name` can be a component of a path.
pub(crate) fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

impl RawRow<'_> {
    /// Checks the row. `is_root` allows the empty name of the repository's root directory.
    pub(crate) fn check(&self, is_root: bool) -> Result<Dirent, BadEntry> {
        let named = is_name(self.name) || (is_root && self.name.is_empty());
        let bad = |reason| BadEntry { name: named.then(|| self.name.to_vec()), reason };
        if !named {
            return Err(bad("its name is empty, too long, `.`, `..`, or has a slash or NUL byte"));
        }
        let kind = self.kind().map_err(bad)?;
        let uid = u32::try_from(self.uid).map_err(|_| bad("its owner is out of range"))?;
        let gid = u32::try_from(self.gid).map_err(|_| bad("its group is out of range"))?;
        let nanos = u32::try_from(self.mtime_nanos)
            .ok()
            .filter(|nanos| *nanos < 1_000_000_000)
            .ok_or_else(|| bad("its nanoseconds are out of range"))?;
        if self.xattr.is_some_and(|blob| blob.len() > XATTR_BLOB_MAX) {
            return Err(bad("its extended attributes are too long"));
        }
        // High half: group, low half: link count. The sign is of no meaning.
        let hardlinks = self.hardlinks as u64;
        Ok(Dirent {
            name: self.name.to_vec(),
            kind,
            permissions: (self.mode & 0o7777) as u16,
            uid,
            gid,
            mtime: Mtime { seconds: self.mtime, nanos },
            links: (hardlinks as u32).max(1),
            link_group: (hardlinks >> 32) as u32,
            hidden: self.flags & FLAG_HIDDEN != 0,
            xattrs: self.xattr.filter(|blob| !blob.is_empty()).map(<[u8]>::to_vec),
        })
    }

    fn has(&self, flag: i64) -> bool {
        self.flags & flag != 0
    }

    /// The type; flags and mode must say the same.
    fn kind(&self) -> Result<Kind, &'static str> {
        const DISAGREE: &str = "its mode and its flags name different types";
        if !(0..=0o177_777).contains(&self.mode) {
            return Err("its mode is out of range");
        }
        let directory = self.has(FLAG_DIRECTORY);
        let file = self.has(FLAG_FILE);
        if directory == file {
            return Err(DISAGREE);
        }
        let plain = file && !self.has(FLAG_SYMLINK) && !self.has(FLAG_SPECIAL);
        let special = file && self.has(FLAG_SPECIAL) && !self.has(FLAG_SYMLINK);
        match self.mode & 0o170_000 {
            0o040_000 if directory && !self.has(FLAG_SYMLINK | FLAG_SPECIAL) => {
                Ok(Kind::Directory { size: self.checked_size()?, mount: self.mount_point()? })
            }
            0o100_000 if plain => self.content().map(Kind::Regular),
            0o120_000 if file && self.has(FLAG_SYMLINK) && !self.has(FLAG_SPECIAL) => {
                if self.symlink.len() > PATH_MAX || self.symlink.contains(&0) {
                    return Err("its target is too long or has a NUL byte");
                }
                Ok(Kind::Symlink(self.symlink.to_vec()))
            }
            // Old publishers stored special files with the plain file flag alone.
            0o010_000 if special || plain => Ok(Kind::Fifo),
            0o140_000 if special || plain => Ok(Kind::Socket),
            0o020_000 if special || plain => self.device().map(Kind::CharDevice),
            0o060_000 if special || plain => self.device().map(Kind::BlockDevice),
            _ => Err(DISAGREE),
        }
    }

    fn checked_size(&self) -> Result<u64, &'static str> {
        u64::try_from(self.size).map_err(|_| "its size is negative or larger than a file can be")
    }

    fn device(&self) -> Result<u32, &'static str> {
        u32::try_from(self.size).map_err(|_| "its device number is out of range")
    }

    fn mount_point(&self) -> Result<MountPoint, &'static str> {
        match (self.has(FLAG_NESTED_MOUNT), self.has(FLAG_NESTED_ROOT), self.has(FLAG_BIND)) {
            (false, false, false) => Ok(MountPoint::No),
            (true, false, false) => Ok(MountPoint::Nested),
            (false, true, false) => Ok(MountPoint::NestedRoot),
            (false, false, true) => Ok(MountPoint::Bind),
            _ => Err("it is a mount point in more than one way"),
        }
    }

    fn content(&self) -> Result<FileContent, &'static str> {
        let algorithm = Algorithm::from_catalog_bits((self.flags >> 8 & 7) as u32)
            .ok_or("its hash algorithm is unknown")?;
        let compression = Compression::from_catalog_bits((self.flags >> 11 & 7) as u32)
            .ok_or("its compression is unknown")?;
        let chunked = self.has(FLAG_CHUNKED);
        let digest = match self.hash.filter(|hash| !hash.is_empty()) {
            Some(hash) => Some(Digest::from_bytes(algorithm, hash).ok_or("its hash has a wrong length")?),
            None if chunked => None,
            None => return Err("it has no content hash"),
        };
        Ok(FileContent {
            size: self.checked_size()?,
            digest,
            chunked,
            external: self.has(FLAG_EXTERNAL),
            direct_io: self.has(FLAG_DIRECT_IO),
            compression,
            algorithm,
        })
    }
}
