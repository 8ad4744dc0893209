//! Starts a worker: the same binary, with two inherited fds and nothing else of the daemon.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use volume::LaunchRequest;

use crate::WorkerUser;
use crate::process::Process;
use crate::protocol::{REQUEST_FD, REQUEST_LIMIT, SOCKET_FD};

/// What is executed as a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The binary; `/proc/self/exe` also works after an upgrade has replaced the file.
    pub path: PathBuf,
    /// Its first arguments, for example `worker`; `--mount KEY` is appended, and `--uid N --gid N` where the user
    /// changes. No secrets.
    pub arguments: Vec<OsString>,
}

/// Environment variables that a worker keeps.
const KEPT: &[&str] = &["JOURNAL_STREAM", "INVOCATION_ID", "RUST_BACKTRACE", "TZ", "LANG", "LC_ALL"];

/// A sealed memory file with the request: what is executed later is what is here now.
pub(crate) fn request_file(request: &LaunchRequest) -> io::Result<OwnedFd> {
    let json = serde_json::to_vec(request)?;
    if json.len() as u64 > REQUEST_LIMIT {
        return Err(io::Error::other(format!(
            "the request has {} bytes; {REQUEST_LIMIT} is the limit",
            json.len()
        )));
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut memory = std::fs::File::from(memfd_create(c"launch-request", flags)?);
    memory.write_all(&json)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(memory.into())
}

/// Starts a worker with the listening `socket` as fd 3 and the `request` file as fd 4, in a session of its own. `key` is
/// only for people who look at the process list, and for the log.
pub(crate) fn execute(
    program: &Program,
    user: Option<WorkerUser>,
    key: &str,
    socket: BorrowedFd<'_>,
    request: BorrowedFd<'_>,
) -> io::Result<Process> {
    let mut command = Command::new(&program.path);
    command.arg0("volplane").args(&program.arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    command.args(["--mount", key]);
    if let Some(user) = user {
        command.args(["--uid", &user.uid.to_string(), "--gid", &user.gid.to_string()]);
    }
    command.envs(KEPT.iter().filter_map(|name| std::env::var_os(name).map(|value| (*name, value))));
    command.current_dir("/");
    let (socket, request) = (socket.as_raw_fd(), request.as_raw_fd());
    // SAFETY: the closure runs in the child between fork and exec and makes only async-signal-safe system calls; it
    // allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || prepare_child(socket, request));
    }
    let child = command.spawn()?;
    Process::of_child(child)
}

/// In the child: session of its own, fds 3 and 4 in place, all others closed at exec.
fn prepare_child(socket: i32, request: i32) -> io::Result<()> {
    // SAFETY: plain system calls on descriptor numbers; copies are made above both targets first, so that neither
    // dup2 can overwrite the other's source.
    unsafe {
        if libc::setsid() < 0 {
            return Err(io::Error::last_os_error());
        }
        let high_socket = libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 16);
        let high_request = libc::fcntl(request, libc::F_DUPFD_CLOEXEC, 16);
        if high_socket < 0 || high_request < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) != 0 {
            return Err(io::Error::last_os_error());
        }
        // dup2 clears close-on-exec on the copy.
        if libc::dup2(high_socket, SOCKET_FD) < 0 || libc::dup2(high_request, REQUEST_FD) < 0 {
            return Err(io::Error::last_os_error());
        }
        // Signals that the daemon blocks or ignores must work in the worker.
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    Ok(())
}
