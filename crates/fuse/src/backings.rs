//! Backing files, registered on the connection itself. Needs CAP_SYS_ADMIN.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::{Backings, Connection};

nix::ioctl_write_ptr!(
    /// FUSE_DEV_IOC_BACKING_CLOSE of include/uapi/linux/fuse.h.
    backing_close,
    229,
    2,
    u32
);

/// Backing files of one connection.
#[derive(Debug)]
pub struct DeviceBackings {
    connection: Connection,
}

impl DeviceBackings {
    /// For a handle of the connection.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }
}

impl Backings for DeviceBackings {
    fn open(&self, file: BorrowedFd<'_>) -> io::Result<u32> {
        fuser::BackingId::create_raw(&self.connection, file)
    }

    fn close(&self, id: u32) {
        // SAFETY: the ioctl reads one u32 through the pointer, which is valid for the call; the fd is open.
        let closed = unsafe { backing_close(self.connection.as_fd().as_raw_fd(), &raw const id) };
        if let Err(error) = closed {
            tracing::debug!(id, %error, "backing file not closed");
        }
    }
}
