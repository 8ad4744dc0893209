//! A worker process held by a pidfd: a number can come to mean another process, a pidfd cannot.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Child;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Not known: it was no child of ours.
    Unknown,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "exited with code {code}"),
            Ending::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Ending::Unknown => f.write_str("ended"),
        }
    }
}

/// A running (or just ended) worker.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    pidfd: OwnedFd,
    child: Option<Child>,
}

impl Process {
    /// Takes over a child that was just spawned.
    pub(crate) fn of_child(child: Child) -> io::Result<Process> {
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // The child is not reaped before `Process` does it, so its number cannot have been given to another one.
        Ok(Process { pid, pidfd: open(pid)?, child: Some(child) })
    }

    /// Takes over a process that an earlier daemon spawned.
    pub(crate) fn of_stranger(pid: i32) -> io::Result<Process> {
        Ok(Process { pid, pidfd: open(pid)?, child: None })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when the process has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// SIGKILL; nothing if it has ended already.
    pub(crate) fn kill(&self) {
        // SAFETY: a system call with a pidfd that is open, a signal number, no siginfo and no flags.
        let _ended = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
    }

    /// A duplicate of the first of its descriptors that is `wanted`. Needs the right to trace it (CAP_SYS_PTRACE).
    pub(crate) fn steal(&self, wanted: impl Fn(&OwnedFd) -> bool) -> Option<OwnedFd> {
        let numbers = std::fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?;
        numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok()).find_map(|number| {
            // SAFETY: a system call with a pidfd that is open and plain numbers.
            let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.pidfd.as_raw_fd(), number, 0) };
            let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
            // SAFETY: the kernel has just made this descriptor for us; nobody else owns it. It is close-on-exec.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            wanted(&fd).then_some(fd)
        })
    }

    /// Whether it has ended, waiting at most `patience` for it.
    pub(crate) fn has_ended(&self, patience: Duration) -> bool {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let mut polled = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        loop {
            match nix::poll::poll(&mut polled, timeout) {
                Err(Errno::EINTR) => {}
                other => return other.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Reaps a process that has ended; a child that has not is waited for.
    pub(crate) fn reap(mut self) -> Ending {
        let status = self.child.take().and_then(|mut child| child.wait().ok());
        match status {
            Some(status) => {
                use std::os::unix::process::ExitStatusExt;
                match (status.code(), status.signal()) {
                    (Some(code), _) => Ending::Exited(code),
                    (None, Some(signal)) => Ending::Signalled(signal),
                    (None, None) => Ending::Unknown,
                }
            }
            None => Ending::Unknown,
        }
    }

    /// Kills and reaps.
    pub(crate) fn end(self) -> Ending {
        self.kill();
        // A process that waits for a dead disk can outlive its SIGKILL for a while; its reaping must not hold us.
        if self.has_ended(Duration::from_secs(5)) { self.reap() } else { Ending::Unknown }
    }
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: a system call with plain numbers; it answers a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it. It is close-on-exec by definition.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
