//! How entries of a repository are shown: owners, permissions, sizes, link targets, and for how long.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use fuse::{Attr, FileKind};

use crate::client::catalog::{Dirent, Kind};
use crate::client::config::{ClientConfig, IdMap, Ownership, XattrVisibility};
use crate::client::symlink;
use crate::payload::Owner;

/// How long the kernel may keep what it was told.
///
/// Changes are told to the kernel when they come, so times are long; that a telling gets lost is what they bound. A
/// pinned revision never changes. `CVMFS_KCACHE_TIMEOUT` is the least a site wants; with 0 nothing is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ttl {
    /// Names that exist and attributes.
    pub(crate) found: Duration,
    /// Names that do not exist.
    pub(crate) absent: Duration,
}

impl Ttl {
    const PINNED: Duration = Duration::from_secs(24 * 3600);
    const FOLLOWED: Duration = Duration::from_secs(3600);
    /// Shorter than for names that exist: the next worker does not know which absent names the kernel keeps.
    const ABSENT: Duration = Duration::from_secs(600);

    pub(crate) fn new(kernel_cache: Duration, pinned: bool) -> Ttl {
        if kernel_cache.is_zero() {
            return Ttl { found: Duration::ZERO, absent: Duration::ZERO };
        }
        let (found, absent) =
            if pinned { (Self::PINNED, Self::PINNED) } else { (Self::FOLLOWED, Self::ABSENT) };
        Ttl { found: found.max(kernel_cache), absent: absent.max(kernel_cache) }
    }
}

/// How one repository is shown.
#[derive(Debug)]
pub(crate) struct View {
    ownership: Ownership,
    owner: Owner,
    uid_map: IdMap,
    gid_map: IdMap,
    world_readable: bool,
    environment: BTreeMap<String, String>,
    /// Who gets the client's own attributes listed.
    pub(crate) xattrs: XattrVisibility,
    /// How long the kernel may keep names and attributes.
    pub(crate) ttl: Ttl,
}

impl View {
    pub(crate) fn new(
        config: &ClientConfig,
        owner: Owner,
        (uid_map, gid_map): (IdMap, IdMap),
        environment: BTreeMap<String, String>,
        pinned: bool,
    ) -> View {
        View {
            ownership: config.ownership,
            owner,
            uid_map,
            gid_map,
            world_readable: config.world_readable,
            environment,
            xattrs: config.magic_xattrs,
            ttl: Ttl::new(config.kernel_cache, pinned),
        }
    }

    /// The target of a symlink as readlink(2) shows it.
    pub(crate) fn target<'a>(&self, raw: &'a [u8]) -> Cow<'a, [u8]> {
        symlink::expand(raw, |name| {
            let name = std::str::from_utf8(name).ok()?;
            self.environment.get(name).map(|value| value.as_bytes().to_vec())
        })
    }

    /// What stat(2) shows.
    pub(crate) fn attr(&self, ino: u64, dirent: &Dirent) -> Attr {
        let kind = file_kind(&dirent.kind);
        let (size, rdev) = match &dirent.kind {
            Kind::Regular(content) => (content.size, 0),
            Kind::Directory { size, .. } => (*size, 0),
            Kind::Symlink(raw) => (self.target(raw).len() as u64, 0),
            Kind::Fifo | Kind::Socket => (0, 0),
            Kind::CharDevice(number) | Kind::BlockDevice(number) => (0, *number),
        };
        let (uid, gid) = match self.ownership {
            Ownership::Claimed => (self.owner.uid, self.owner.gid),
            Ownership::Catalog => (self.uid_map.map(dirent.uid), self.gid_map.map(dirent.gid)),
        };
        let readable = match (self.world_readable, kind) {
            (false, _) => 0,
            (true, FileKind::Directory) => 0o555,
            (
                true,
                FileKind::Regular
                | FileKind::Symlink
                | FileKind::Fifo
                | FileKind::Socket
                | FileKind::CharDevice
                | FileKind::BlockDevice,
            ) => 0o444,
        };
        Attr {
            ino,
            size,
            // As the C++ client counts; st_size is what programs should look at.
            blocks: 1 + size / 512,
            mtime: dirent.mtime.system_time(),
            kind,
            perm: dirent.permissions | readable,
            nlink: dirent.links,
            uid,
            gid,
            rdev,
        }
    }
}

/// The type as the kernel calls it.
pub(crate) fn file_kind(kind: &Kind) -> FileKind {
    match kind {
        Kind::Regular(_) => FileKind::Regular,
        Kind::Directory { .. } => FileKind::Directory,
        Kind::Symlink(_) => FileKind::Symlink,
        Kind::Fifo => FileKind::Fifo,
        Kind::Socket => FileKind::Socket,
        Kind::CharDevice(_) => FileKind::CharDevice,
        Kind::BlockDevice(_) => FileKind::BlockDevice,
    }
}
