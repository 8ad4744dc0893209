//! Parts that other processes play: this test binary runs itself again with a role in its environment.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fuse::{Connection, MountOptions, OpenMode, Session, SessionConfig};

use crate::listing::many;
use crate::memory_fs::{Body, MemoryFs};

const ROLE: &str = "FUSE_TEST_ROLE";

fn run_again(role: &str, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "roles::play", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env("FUSE_TEST_ARGUMENT", argument);
    command
}

/// A server process.
pub(crate) struct Server {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    /// Its standard input is the connection. `what` is `stuck`, `healthy`, `many` or `restless`
    /// (which lets the kernel cache nothing), with `+resend`.
    pub(crate) fn start(connection: &Connection, what: &str) -> Self {
        let fd: OwnedFd = connection.as_fd().try_clone_to_owned().unwrap();
        let mut process = run_again("server", what).stdin(fd).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Waits until it has got (and not answered) so many more requests.
    pub(crate) fn await_parked(&mut self, requests: usize) {
        let parked = self.lines.by_ref().map(Result::unwrap).filter(|line| line == "parked");
        assert_eq!(parked.take(requests).count(), requests, "the server ended");
    }

    pub(crate) fn kill(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// Lists a directory: 100 rows, then a line on standard output, then waits for a line, then the rest, then the count.
pub(crate) fn slow_lister(directory: &Path) -> Child {
    let mut command = run_again("lister", directory.to_str().unwrap());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The file that a server serves besides.
pub(crate) const FILE_BYTES: u64 = 1 << 20;

#[test]
fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let argument = std::env::var("FUSE_TEST_ARGUMENT").unwrap();
    match role.as_str() {
        "server" => serve(&argument),
        "ordinary-user" => mount_as_ordinary_user(Path::new(&argument)),
        "handler" => read_with_handlers(Path::new(&argument)),
        "lister" => list(Path::new(&argument)),
        other => panic!("no role {other}"),
    }
}

fn serve(what: &str) {
    let fd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let connection = Connection::from_fd(fd);
    let (kind, resend) = what.strip_suffix("+resend").map_or((what, false), |kind| (kind, true));
    let mut fs = match kind {
        "many" | "restless" => many(),
        _ => MemoryFs::new(vec![
            ("direct", Body::Parked { size: FILE_BYTES, mode: OpenMode::Direct }),
            ("cached", Body::Parked { size: FILE_BYTES, mode: OpenMode::Cached }),
            ("lookup", Body::ParkedLookup),
        ]),
    };
    fs.healthy = kind != "stuck";
    if kind == "restless" {
        fs.ttl = Duration::ZERO;
    }
    fs.announces = true;
    let session =
        Session::start(Arc::new(fs), connection, SessionConfig { resend, ..SessionConfig::default() });
    session.unwrap().wait();
}

/// Mounts through fusermount3 as user 65534, reads a file, unmounts. /dev/fuse is as usual distributions have it (open to
/// all), in a mount namespace of its own.
pub(crate) fn ordinary_user(mountpoint: &Path, device: &Path) -> Output {
    let inner = run_again("ordinary-user", mountpoint.to_str().unwrap());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec"]);
    command
        .arg("mount --bind \"$0\" /dev/fuse; exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"");
    command.arg(device).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().unwrap()
}

fn mount_as_ordinary_user(mountpoint: &Path) {
    let mut options = MountOptions::new(mountpoint, "test");
    options.allow_other = false;
    let (connection, guard) = Connection::mount_unprivileged(&options).unwrap();
    println!("\n{:?}", connection.negotiated());
    let content = b"hello".to_vec();
    let fs = MemoryFs::new(vec![("file", Body::File { content: content.clone(), mode: OpenMode::Cached })]);
    let session = Session::start(Arc::new(fs), connection, SessionConfig::default()).unwrap();
    assert_eq!(std::fs::read(mountpoint.join("file")).unwrap(), content);
    let held = std::fs::File::open(mountpoint.join("file")).unwrap();
    drop(guard); // also while a file is open
    drop(held);
    session.wait();
    assert!(!mountpoint.join("file").exists());
    println!("\nunmounted");
}

/// A process with handlers for SIGUSR1 and SIGINT that reads a file past the page cache: says `thread` and its id, reads
/// once, says what came.
pub(crate) fn handler(file: &Path) -> Child {
    run_again("handler", file.to_str().unwrap()).stdout(Stdio::piped()).spawn().unwrap()
}

fn read_with_handlers(file: &Path) {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGUSR1, Signal::SIGINT] {
        // SAFETY: the handler does nothing.
        unsafe { sigaction(signal, &action) }.unwrap();
    }
    let file = std::fs::File::open(file).unwrap();
    println!("\nthread {}", nix::unistd::gettid());
    match std::os::unix::fs::FileExt::read_at(&file, &mut [0; 4096], 0) {
        Ok(bytes) => println!("\nread {bytes}"),
        Err(error) => println!("\nread failed {}", error.raw_os_error().unwrap()),
    }
}

fn list(directory: &Path) {
    let mut rows = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = rows.by_ref().take(100).map(|row| row.unwrap().file_name()).collect();
    println!("\nfirst rows read");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
    names.extend(rows.map(|row| row.unwrap().file_name()));
    let total = names.len();
    names.sort();
    names.dedup();
    println!("\nrows {total} names {}", names.len());
}
