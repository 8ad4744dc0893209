//! Directories that are certainly ours: made, or found with the right owner, not through a symbolic link.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The path is relative or has `.` or `..` in it.
    #[error("{}: must be an absolute path without `..`", .0.display())]
    NotPlain(PathBuf),
    /// The path, or a part of it, is a symbolic link.
    #[error("{}: is a symbolic link, or leads through one; give the path behind it", .0.display())]
    Symlink(PathBuf),
    /// The path is not in the directory that it must be in.
    #[error("{}: is not below {}", path.display(), beneath.display())]
    Outside {
        /// The path.
        path: PathBuf,
        /// Where it must be.
        beneath: PathBuf,
    },
    /// Something else than a directory is there.
    #[error("{}: is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// It belongs to another user, or others may write in it.
    #[error("{path}: belongs to uid {uid} with mode {mode:o}; it must belong to uid {wanted} and be writable for nobody else", path = path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
        /// Who should own it.
        wanted: u32,
    },
    /// Anything else.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether a path is absolute and consists of plain names only.
pub fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        // `components` hides `.` in the middle and doubled slashes.
        && path.as_os_str().len() <= 4095
}

/// Opens a directory (or file) by path only (`O_PATH`): no symbolic link anywhere on the way, and the file system is
/// not asked anything about the last component. A mounted file system's root is opened, not what it hides.
pub fn open_path(path: &Path) -> Result<OwnedFd, DirectoryError> {
    if !is_plain(path) {
        return Err(DirectoryError::NotPlain(path.to_owned()));
    }
    let how = OpenHow::new()
        // With O_NOFOLLOW a link at the end would be opened itself; so it is refused like the others.
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, path, how) {
        Ok(fd) => Ok(fd),
        Err(Errno::ELOOP) => Err(DirectoryError::Symlink(path.to_owned())),
        Err(Errno::ENOTDIR) => Err(DirectoryError::NotDirectory(path.to_owned())),
        Err(error) => Err(DirectoryError::Io { path: path.to_owned(), source: error.into() }),
    }
}

/// The same for a path that must lie in the directory `beneath`, which itself may be reached through links: from there on
/// no symbolic link is followed, and `..` leads nowhere else.
pub fn open_beneath(path: &Path, beneath: &Path) -> Result<OwnedFd, DirectoryError> {
    let outside = || DirectoryError::Outside { path: path.to_owned(), beneath: beneath.to_owned() };
    let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
    if !is_plain(path) || !is_plain(beneath) {
        return Err(DirectoryError::NotPlain(path.to_owned()));
    }
    let base = open(beneath, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| failed(errno.into()))?;
    // Callers name the path through the link to the directory or through what is behind it.
    let rest = match path.strip_prefix(beneath) {
        Ok(rest) => rest,
        Err(_) => {
            let behind = beneath.canonicalize().map_err(failed)?;
            path.strip_prefix(&behind).map_err(|_| outside())?
        }
    };
    if rest.as_os_str().is_empty() {
        return Ok(base);
    }
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    // The kernel gives up (EAGAIN) when something on the way is renamed meanwhile.
    for _ in 0..16 {
        match openat2(&base, rest, how) {
            Ok(fd) => return Ok(fd),
            Err(Errno::EAGAIN) => {}
            Err(Errno::EXDEV) => return Err(outside()),
            Err(Errno::ELOOP) => return Err(DirectoryError::Symlink(path.to_owned())),
            Err(Errno::ENOTDIR) => return Err(DirectoryError::NotDirectory(path.to_owned())),
            Err(errno) => return Err(failed(errno.into())),
        }
    }
    Err(failed(Errno::EAGAIN.into()))
}

/// Makes the directory (and missing parents, mode 0755) with `mode`, or checks the one that is there: no symbolic link
/// on the way, owned by us, not writable for others. Its mode is set to `mode`. Do not call it on a mountpoint.
pub fn ensure(path: &Path, mode: u32) -> Result<(), DirectoryError> {
    let failed = |source| DirectoryError::Io { path: path.to_owned(), source };
    if !is_plain(path) {
        return Err(DirectoryError::NotPlain(path.to_owned()));
    }
    match open_path(path) {
        Ok(_) => {}
        Err(DirectoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed)?;
            }
            match std::fs::DirBuilder::new().mode(mode).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
        }
        Err(error) => return Err(error),
    }
    // Opened anew for checking: what is checked is what was opened, and a link is refused.
    let handle = File::from(open_path(path)?);
    let found = handle.metadata().map_err(failed)?;
    if !found.is_dir() {
        return Err(DirectoryError::NotDirectory(path.to_owned()));
    }
    let wanted = nix::unistd::geteuid().as_raw();
    if found.uid() != wanted || found.mode() & 0o022 & !mode != 0 {
        return Err(DirectoryError::Foreign {
            path: path.to_owned(),
            uid: found.uid(),
            mode: found.mode() & 0o7777,
            wanted,
        });
    }
    if found.mode() & 0o7777 != mode {
        // The parents are ours or root's by now; the umask may have taken bits away.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_with_its_parents_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        ensure(&path, 0o755).unwrap();
        ensure(&path, 0o700).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn links_files_and_foreign_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link, file) = (dir.path().join("real"), dir.path().join("link"), dir.path().join("file"));
        ensure(&real, 0o755).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        std::fs::write(&file, b"").unwrap();
        assert!(matches!(ensure(&link, 0o755), Err(DirectoryError::Symlink(_))));
        assert!(matches!(ensure(&link.join("x"), 0o755), Err(DirectoryError::Symlink(_))));
        assert!(matches!(ensure(&file, 0o755), Err(DirectoryError::NotDirectory(_))));
        assert!(matches!(ensure(&real.join("../real"), 0o755), Err(DirectoryError::NotPlain(_))));
        std::fs::set_permissions(&real, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(matches!(ensure(&real, 0o755), Err(DirectoryError::Foreign { .. })));
    }
}
