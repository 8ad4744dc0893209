//! A worker process held by a pidfd: a number can come to mean another process, a pidfd cannot.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Child;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::link::Link;
use crate::nursery::NurseryLink;

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Together with the nursery that had started it.
    WithNursery,
    /// Not known: it was no child of ours.
    Unknown,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "exited with code {code}"),
            Ending::Signalled(signal) => write!(f, "was ended by signal {signal}"),
            Ending::WithNursery => f.write_str("ended with its nursery"),
            Ending::Unknown => f.write_str("ended"),
        }
    }
}

/// A running (or just ended) worker.
#[derive(Debug)]
pub(crate) struct Process {
    pid: i32,
    pidfd: OwnedFd,
    hold: Hold,
}

/// What there is beside the pidfd.
#[derive(Debug)]
enum Hold {
    /// It is our child.
    Child(Child),
    /// It is the child of a nursery, which acts for us.
    Nursed(NurseryLink),
    /// An earlier daemon or another nursery started it.
    Stranger,
}

impl Process {
    /// Takes over a child that was just spawned.
    pub(crate) fn of_child(child: Child) -> io::Result<Process> {
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        // The child is not reaped before `Process` does it, so its number cannot have been given to another one.
        Ok(Process { pid, pidfd: open(pid)?, hold: Hold::Child(child) })
    }

    /// A worker that a nursery has started; `pid` is its number there.
    pub(crate) fn of_nursery(pid: i32, pidfd: OwnedFd, link: NurseryLink) -> Process {
        Process { pid, pidfd, hold: Hold::Nursed(link) }
    }

    /// Takes over the process that listens on the other end of `link`, which somebody else spawned.
    pub(crate) fn of_listener(link: &Link) -> io::Result<Process> {
        let pidfd = match peer_pidfd(link.fd()) {
            Some(pidfd) => pidfd,
            None if link.listener_pid > 0 => open(link.listener_pid)?,
            None => {
                return Err(io::Error::other(
                    "it is in another PID namespace, and its nursery does not know it",
                ));
            }
        };
        Ok(Process { pid: link.listener_pid, pidfd, hold: Hold::Stranger })
    }

    /// Its process id, in the namespace of who started it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when the process has ended.
    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// SIGKILL. `false`: it is in a PID namespace out of our reach and of no nursery.
    pub(crate) fn kill(&self) -> bool {
        // SAFETY: a system call with a pidfd that is open, a signal number, no siginfo and no flags.
        let failed = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                libc::SIGKILL,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        } != 0;
        match &self.hold {
            _ if !failed || Errno::last() == Errno::ESRCH => true,
            Hold::Nursed(link) => {
                link.kill();
                true
            }
            Hold::Child(_) | Hold::Stranger => false,
        }
    }

    /// The nursery's connection, if there is one.
    pub(crate) fn nursery(&self) -> Option<&NurseryLink> {
        match &self.hold {
            Hold::Nursed(link) => Some(link),
            Hold::Child(_) | Hold::Stranger => None,
        }
    }

    /// Whether it is the child of a nursery that is there and stays.
    pub(crate) fn has_staying_nursery(&mut self) -> bool {
        match &mut self.hold {
            Hold::Nursed(link) => !link.is_leaving(),
            Hold::Child(_) | Hold::Stranger => false,
        }
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
    pub(crate) fn reap(self) -> Ending {
        let mut child = match self.hold {
            Hold::Child(child) => child,
            Hold::Nursed(link) => return link.ending(),
            Hold::Stranger => return Ending::Unknown,
        };
        match child.wait() {
            Ok(status) => {
                use std::os::unix::process::ExitStatusExt;
                match (status.code(), status.signal()) {
                    (Some(code), _) => Ending::Exited(code),
                    (None, Some(signal)) => Ending::Signalled(signal),
                    (None, None) => Ending::Unknown,
                }
            }
            Err(_) => Ending::Unknown,
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

/// SO_PEERPIDFD of include/uapi/asm-generic/socket.h, since Linux 6.5.
const SO_PEERPIDFD: i32 = 77;

/// A pidfd of the process that listens on the other end of a connected unix socket, in whichever PID namespace it is.
fn peer_pidfd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut fd: i32 = -1;
    let mut length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the buffer is an i32 and its length is passed along; the socket is open.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    } != 0;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it. It is close-on-exec by definition.
    (!failed && fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}
