//! Lets the worker's user reach directories that it shall use.
//!
//! A worker runs as a user of its own; a cache below a directory that only root may search would be closed to it.
//! The pool gives exactly that user the search permission on exactly the ancestors that lack it, with an access-control
//! list entry, and logs it. Nothing else about these directories changes.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, chown};

use crate::WorkerUser;

/// Makes the directory `path` (with parents, mode 0755) as the worker's own, mode 0700, and reachable for it.
pub(crate) fn provide_directory(path: &Path, user: Option<WorkerUser>) -> io::Result<()> {
    let fresh = !path.exists();
    std::fs::create_dir_all(path)?;
    if fresh {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    let Some(user) = user else { return Ok(()) };
    let meta = std::fs::metadata(path)?;
    if meta.uid() != user.uid.as_raw() {
        chown(path, Some(user.uid), Some(user.gid))?;
    }
    open_way(path, user)
}

/// Gives `user` the search permission on every ancestor of `path` that lacks it.
pub(crate) fn open_way(path: &Path, user: WorkerUser) -> io::Result<()> {
    let path = path.canonicalize()?;
    for ancestor in path.ancestors().skip(1).collect::<Vec<&Path>>().into_iter().rev() {
        let meta = std::fs::metadata(ancestor)?;
        if may_search(&meta, user) || acl::grants_search(ancestor, user.uid)? {
            continue;
        }
        if !Uid::effective().is_root() && meta.uid() != Uid::effective().as_raw() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, closed(ancestor, user)));
        }
        acl::grant_search(ancestor, &meta, user.uid)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", closed(ancestor, user))))?;
        tracing::info!(directory = %ancestor.display(), uid = user.uid.as_raw(),
            "gave the worker's user the permission to search a directory above its cache");
    }
    Ok(())
}

fn closed(directory: &Path, user: WorkerUser) -> String {
    let directory: PathBuf = directory.into();
    format!("user {} may not search {}; chmod o+x it", user.uid, directory.display())
}

fn may_search(meta: &Metadata, user: WorkerUser) -> bool {
    let bit = if meta.uid() == user.uid.as_raw() {
        0o100
    } else if meta.gid() == user.gid.as_raw() {
        0o010
    } else {
        0o001
    };
    meta.mode() & bit != 0
}

/// POSIX access-control lists as the kernel keeps them in `system.posix_acl_access` (include/uapi/linux/posix_acl_xattr.h):
/// a little-endian u32 version 2, then entries of u16 tag, u16 permissions, u32 id, sorted by tag and id.
mod acl {
    use std::ffi::CString;
    use std::fs::Metadata;
    use std::io;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    use nix::unistd::Uid;

    const NAME: &std::ffi::CStr = c"system.posix_acl_access";
    const VERSION: u32 = 2;
    const USER_OBJ: u16 = 0x01;
    const USER: u16 = 0x02;
    const GROUP_OBJ: u16 = 0x04;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    const NO_ID: u32 = u32::MAX;
    const SEARCH: u16 = 1;
    /// Far above what a file system stores.
    const LIMIT: usize = 64 * 1024;

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    struct Entry {
        tag: u16,
        id: u32,
        permissions: u16,
    }

    /// Whether an entry of the list lets `user` search.
    pub(super) fn grants_search(path: &Path, user: Uid) -> io::Result<bool> {
        let entries = read(path)?;
        let mask = entries.iter().find(|e| e.tag == MASK).map_or(u16::MAX, |e| e.permissions);
        Ok(entries
            .iter()
            .any(|e| e.tag == USER && e.id == user.as_raw() && e.permissions & mask & SEARCH != 0))
    }

    /// Adds the entry `user:<uid>:--x`, and to the mask what that needs.
    pub(super) fn grant_search(path: &Path, meta: &Metadata, user: Uid) -> io::Result<()> {
        let mut entries = read(path)?;
        let bits = |shift: u32| ((meta.mode() >> shift) & 7) as u16;
        if entries.is_empty() {
            entries = vec![
                Entry { tag: USER_OBJ, id: NO_ID, permissions: bits(6) },
                Entry { tag: GROUP_OBJ, id: NO_ID, permissions: bits(3) },
                Entry { tag: OTHER, id: NO_ID, permissions: bits(0) },
            ];
        }
        entries.retain(|e| !(e.tag == USER && e.id == user.as_raw()));
        entries.push(Entry { tag: USER, id: user.as_raw(), permissions: SEARCH });
        match entries.iter_mut().find(|e| e.tag == MASK) {
            Some(mask) => mask.permissions |= SEARCH,
            None => entries.push(Entry { tag: MASK, id: NO_ID, permissions: bits(3) | SEARCH }),
        }
        entries.sort_unstable();
        write(path, &entries)
    }

    fn read(path: &Path) -> io::Result<Vec<Entry>> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut buffer = vec![0u8; LIMIT];
        // SAFETY: both strings end with NUL, and the buffer has the length that is passed with it.
        let length =
            unsafe { libc::getxattr(path.as_ptr(), NAME.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENODATA | libc::EOPNOTSUPP) => Ok(Vec::new()),
                _ => Err(error),
            };
        }
        buffer.truncate(length.unsigned_abs());
        let entry = |raw: &[u8]| Entry {
            tag: u16::from_le_bytes([raw[0], raw[1]]),
            permissions: u16::from_le_bytes([raw[2], raw[3]]),
            id: u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
        };
        Ok(buffer.get(4..).unwrap_or_default().chunks_exact(8).map(entry).collect())
    }

    fn write(path: &Path, entries: &[Entry]) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in entries {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        // SAFETY: both strings end with NUL, and the length is that of the bytes.
        let done =
            unsafe { libc::setxattr(path.as_ptr(), NAME.as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::unistd::Gid;

    use super::*;

    #[test]
    fn the_workers_user_reaches_a_directory_below_private_ones_and_others_do_not() {
        if !Uid::effective().is_root() {
            eprintln!("skipped: changing to other users needs root");
            return;
        }
        let private = tempfile::tempdir().unwrap();
        let cache = private.path().join("deep/cache");
        let user = WorkerUser { uid: Uid::from_raw(61000), gid: Gid::from_raw(61000) };
        provide_directory(&cache, Some(user)).unwrap();
        provide_directory(&cache, Some(user)).unwrap();
        let touch = |uid: &str| {
            Command::new("setpriv")
                .args(["--reuid", uid, "--regid", uid, "--clear-groups", "touch"])
                .arg(cache.join("file"))
                .status()
                .unwrap()
                .success()
        };
        assert!(touch("61000"));
        assert!(!touch("61001"));
        assert!(std::fs::read_dir(private.path()).is_ok());
    }
}
