//! Parts that other processes play: this test binary runs itself again with a role in its environment.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use fuse::{Connection, OpenMode, Session, SessionConfig};

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
    /// Its standard input is the connection. `what` is `stuck`, `healthy` or `many`, with `+resend`.
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
        "many" => many(),
        _ => MemoryFs::new(vec![
            ("direct", Body::Parked { size: FILE_BYTES, mode: OpenMode::Direct }),
            ("cached", Body::Parked { size: FILE_BYTES, mode: OpenMode::Cached }),
            ("lookup", Body::ParkedLookup),
        ]),
    };
    fs.healthy = kind == "healthy";
    fs.announces = true;
    let session =
        Session::start(Arc::new(fs), connection, SessionConfig { resend, ..SessionConfig::default() });
    session.unwrap().wait();
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
