//! FUSE sessions: mounts, serves, adopts.
//!
//! `fuser` mounts, negotiates INIT and does the passthrough ioctls. The request loop is ours: stock `fuser` answers
//! FUSE_INTERRUPT with ENOSYS, which makes the kernel give up interrupts for the connection's life, so that a
//! process that waits for a slow server cannot even be killed. Our loop also adopts a live connection without a
//! made-up handshake, and gives every request a deadline.

mod filesystem;
mod reply;

pub use filesystem::{
    Attr, Backings, Caller, DirEntry, Entry, FileKind, FileSystem, NodeId, OpenMode, Opened, Statfs,
};
pub use reply::{DirectoryBuffer, Reply};
