//! A mount that goes away, whatever happens.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fuse::{Connection, FileSystem, MountOptions, Session, SessionConfig};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

/// A mount in a temporary directory. It is aborted and unmounted when dropped, and by a watchdog after two minutes, so
/// that a test that blocks on it fails instead of hanging.
pub(crate) struct Mounted {
    directory: TempDir,
    pub(crate) connection: Connection,
    over: Option<Sender<()>>,
    watchdog: Option<JoinHandle<()>>,
}

impl Mounted {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::mount(&MountOptions::new(directory.path(), "test")).unwrap();
        let (over, ends) = channel::<()>();
        let path = directory.path().to_owned();
        let watchdog = thread::Builder::new().name("watchdog".into()).spawn(move || {
            if ends.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("watchdog: aborting {}", path.display());
                abort_and_unmount(&path);
            }
        });
        Self { directory, connection, over: Some(over), watchdog: Some(watchdog.unwrap()) }
    }

    pub(crate) fn serve<F: FileSystem>(fs: &Arc<F>, config: SessionConfig) -> (Self, Session) {
        let mounted = Self::new();
        let session =
            Session::start(Arc::clone(fs), mounted.connection.try_clone().unwrap(), config).unwrap();
        (mounted, session)
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn unmount(&self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        abort_and_unmount(self.path());
        drop(self.over.take());
        let _ = self.watchdog.take().map(JoinHandle::join);
    }
}

/// MNT_FORCE aborts the connection: whoever waits gets an error.
fn abort_and_unmount(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
}

/// A process that uses a mount; killed when dropped.
pub(crate) struct User(pub(crate) Child);

impl User {
    pub(crate) fn spawn(program: &str, arguments: &[&str], last: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).arg(last).stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// What it wrote to its standard error; it must have ended.
    pub(crate) fn complaint(&mut self) -> String {
        std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap()
    }

    /// Waits for its end, at most `limit`.
    pub(crate) fn ends_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            thread::sleep(Duration::from_millis(1)); // there is no waitpid with a timeout
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Polls a condition that cannot be waited for otherwise; panics after ten seconds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
