//! Where a nursery listens.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{Backlog, SockFlag, accept4, getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, chown};

use crate::{link, packet};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// The listening socket and its name, which is taken away at the end if it is still ours.
pub(super) struct Door {
    pub(super) listener: OwnedFd,
    path: PathBuf,
    inode: u64,
}

impl Door {
    /// Made under another name and renamed, so that at no moment nobody listens, or somebody may connect who must not.
    pub(super) fn open(path: &Path, group: Option<u32>) -> io::Result<Door> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let temporary = format!(".{name}.{}", std::process::id());
        let before = umask(Mode::from_bits_truncate(0o177));
        let listener = link::listen_at(directory, &temporary);
        umask(before);
        let (listener, made) = (listener?, directory.join(&temporary));
        // All mounts of a daemon may come at once after a restart.
        nix::sys::socket::listen(&listener, Backlog::new(BACKLOG)?)?;
        if let Some(group) = group {
            chown(&made, None, Some(Gid::from_raw(group)))?;
            std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o660))?;
        }
        let inode = std::fs::symlink_metadata(&made)?.ino();
        std::fs::rename(&made, path)?;
        Ok(Door { listener, path: path.to_owned(), inode })
    }

    /// The next one who wants in, if that is root. Nobody else is heard, least of all our own user: a worker that
    /// somebody has taken over runs as that.
    pub(super) fn accept(&self) -> io::Result<OwnedFd> {
        let fd = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: accept4 has just made this descriptor for us; nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let uid = getsockopt(&socket, sockopt::PeerCredentials)?.uid();
        if uid != 0 {
            return Err(io::Error::other(format!("user {uid} is not root")));
        }
        packet::prepare(&socket)?;
        Ok(socket)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Another nursery may have put its own in place.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the nursery's socket stays behind");
        }
    }
}
