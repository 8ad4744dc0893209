//! The daemon's listening sockets, its run directory and the lock on it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use tokio::net;

/// A socket or directory of the daemon cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Another daemon runs with this directory.
    #[error(
        "{} is used by another daemon; stop that one, or give this one its own --run-dir, --state-dir and \
         --docker-socket-dir",
        .0.display()
    )]
    Taken(PathBuf),
    /// A socket path of more than the 107 bytes that the kernel takes.
    #[error("{} is too long for a socket ({} bytes, 107 is the limit); choose a shorter directory", .0.display(), .0.as_os_str().len())]
    TooLong(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{} exists and is no socket; move it away", .0.display())]
    InTheWay(PathBuf),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io { path, source }
}

/// How long a lock or socket may stay taken after its daemon was killed: a worker that it was just starting shares its
/// descriptors until it executes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Pause between two tries.
pub(crate) const PAUSE: Duration = Duration::from_millis(30);

/// Makes the run directory and takes its lock, which lasts as long as the value. Blocks for some seconds while another
/// daemon has it.
pub(crate) fn lock_run_dir(run_dir: &Path) -> Result<Flock<File>, SocketError> {
    std::fs::create_dir_all(run_dir).map_err(failed(run_dir))?;
    let path = run_dir.join("lock");
    let options = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.map_err(failed(&path))?;
    let until = Instant::now() + PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < until => {
                file = back;
                std::thread::sleep(PAUSE);
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Err(SocketError::Taken(run_dir.to_owned())),
            Err((_, errno)) => return Err(failed(&path)(errno.into())),
        }
    }
}

/// Listens at `path` with this mode, in place of a socket on which nobody listens any more.
pub(crate) async fn listen(path: &Path, mode: u32) -> Result<net::UnixListener, SocketError> {
    if path.as_os_str().len() > 107 {
        return Err(SocketError::TooLong(path.to_owned()));
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
    }
    let until = Instant::now() + PATIENCE;
    while UnixStream::connect(path).is_ok() && Instant::now() < until {
        tokio::time::sleep(PAUSE).await;
    }
    match path.symlink_metadata() {
        Ok(meta) if !meta.file_type().is_socket() => return Err(SocketError::InTheWay(path.to_owned())),
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(SocketError::Taken(path.to_owned())),
        Ok(_) => std::fs::remove_file(path).map_err(failed(path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(path)(error)),
    }
    // Nobody may connect between bind and chmod; the lock on the run directory keeps other daemons out.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    nix::sys::stat::umask(before);
    let listener = bound.map_err(failed(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed(path))?;
    into_tokio(listener, path)
}

/// A listening socket from the service manager.
pub(crate) fn inherited(fd: OwnedFd, name: &str) -> Result<net::UnixListener, SocketError> {
    into_tokio(fd.into(), Path::new(name))
}

fn into_tokio(listener: UnixListener, path: &Path) -> Result<net::UnixListener, SocketError> {
    listener.set_nonblocking(true).map_err(failed(path))?;
    net::UnixListener::from_std(listener).map_err(failed(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/a.sock");
        let first = listen(&path, 0o600).await.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(listen(&path, 0o600).await, Err(SocketError::Taken(_))));
        drop(first);
        listen(&path, 0o600).await.unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(matches!(listen(&file, 0o600).await, Err(SocketError::InTheWay(_))));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        let long = directory.path().join("x".repeat(120));
        assert!(matches!(listen(&long, 0o600).await, Err(SocketError::TooLong(_))));
    }

    #[test]
    fn a_run_directory_has_one_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let lock = lock_run_dir(directory.path()).unwrap();
        assert!(matches!(lock_run_dir(directory.path()), Err(SocketError::Taken(_))));
        drop(lock);
        lock_run_dir(directory.path()).unwrap();
    }
}
