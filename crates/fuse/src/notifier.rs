//! Telling the kernel to drop what it has cached.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::NodeId;
use crate::in_flight::InFlight;
use crate::wire::{answer, notify};

/// Drops cached names, attributes and pages.
///
/// The kernel takes locks of the inode (for a name: of the parent) and waits for requests that hold them. So none of this
/// may be called by a session's thread, that is from a [`FileSystem`](crate::FileSystem) method or cancel hook, nor by a
/// thread that other answers wait for: the request that holds the lock could then never be answered before its deadline.
#[derive(Debug, Clone)]
pub struct Notifier {
    in_flight: Arc<InFlight>,
}

impl Notifier {
    pub(crate) fn new(in_flight: Arc<InFlight>) -> Self {
        Self { in_flight }
    }

    /// Drops what is known about a name, also that it does not exist. Waits for operations in `parent`.
    pub fn inval_entry(&self, parent: NodeId, name: &OsStr) -> io::Result<()> {
        let bytes =
            u32::try_from(name.len()).map_err(|_| io::Error::from_raw_os_error(libc::ENAMETOOLONG))?;
        let mut body = Vec::with_capacity(name.len() + 1);
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        self.send(notify::INVAL_ENTRY, &answer::inval_entry(parent, bytes), &body)
    }

    /// Drops the attributes of an inode.
    pub fn inval_inode_attrs(&self, node: NodeId) -> io::Result<()> {
        self.send(notify::INVAL_INODE, &answer::inval_inode(node, -1, 0), &[])
    }

    /// Drops attributes and all cached pages of an inode; of a directory its cached listing, of a symlink its target. Waits
    /// for reads in flight.
    pub fn inval_inode_data(&self, node: NodeId) -> io::Result<()> {
        self.send(notify::INVAL_INODE, &answer::inval_inode(node, 0, 0), &[])
    }

    fn send(&self, code: i32, head: &[u8], body: &[u8]) -> io::Result<()> {
        match self.in_flight.device.notify(code, head, body) {
            // Nothing was cached.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }
}
