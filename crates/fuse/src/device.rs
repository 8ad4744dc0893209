//! Reading requests from and writing answers to a connection's file descriptor.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use crate::wire::{answer, notify};

/// What one read gave.
pub(crate) enum Received {
    /// A request of that many bytes.
    Request(usize),
    /// Nothing, look again: the request was withdrawn, or a signal came.
    Nothing,
    /// The connection is over (unmounted or aborted).
    Ended,
}

/// A connection's file descriptor. One description is shared by all threads and by the daemon's duplicate.
///
/// FUSE_DEV_IOC_CLONE would give each thread a queue of its own, but the kernel fails (ECONNABORTED) what was read
/// through a clone when the clone is closed, so nothing could be resent after a worker's death.
#[derive(Debug)]
pub(crate) struct Device(OwnedFd);

impl Device {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Waits for the next request.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        match nix::unistd::read(&self.0, buffer) {
            Ok(0) => Ok(Received::Ended),
            Ok(bytes) => Ok(Received::Request(bytes)),
            // ENOENT: the request was withdrawn while it was being copied.
            Err(Errno::ENOENT | Errno::EINTR) => Ok(Received::Nothing),
            Err(Errno::EAGAIN) => self.wait_readable().map(|()| Received::Nothing),
            Err(Errno::ENODEV | Errno::ECONNABORTED | Errno::ENOTCONN) => Ok(Received::Ended),
            Err(error) => Err(error.into()),
        }
    }

    /// Somebody has made the description non-blocking; do not spin on it.
    fn wait_readable(&self) -> io::Result<()> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Answers with success; the payload is `head` followed by `body`.
    pub(crate) fn answer(&self, unique: u64, head: &[u8], body: &[u8]) -> io::Result<()> {
        let header = answer::header(unique, 0, head.len() + body.len());
        self.write(&header, head, body)
    }

    /// Answers with a positive errno. What is no errno the kernel would take is EIO.
    pub(crate) fn refuse(&self, unique: u64, errno: i32) -> io::Result<()> {
        let errno = if (1..512).contains(&errno) { errno } else { libc::EIO };
        self.write(&answer::header(unique, -errno, 0), &[], &[])
    }

    /// Sends a notification; the payload is `head` followed by `body`.
    pub(crate) fn notify(&self, code: i32, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.write(&answer::header(0, code, head.len() + body.len()), head, body)
    }

    /// Has the kernel queue again what a dead predecessor read and did not answer. EINVAL before Linux 6.9.
    pub(crate) fn resend(&self) -> io::Result<()> {
        self.notify(notify::RESEND, &[], &[])
    }

    /// One message is one writev; the kernel takes it whole or not at all.
    fn write(&self, header: &[u8], head: &[u8], body: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(header), IoSlice::new(head), IoSlice::new(body)];
        let used = if body.is_empty() { 2 } else { 3 };
        let used = if head.is_empty() && body.is_empty() { 1 } else { used };
        nix::sys::uio::writev(&self.0, &parts[..used])?;
        Ok(())
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
