//! FUSE sessions: mounts, serves, adopts.
//!
//! `fuser` mounts, negotiates INIT and does the passthrough ioctls. The request loop is ours: stock `fuser` answers
//! FUSE_INTERRUPT with ENOSYS, which makes the kernel give up interrupts for the connection's life, so that a
//! process that waits for a slow server cannot even be killed. Our loop also adopts a live connection without a
//! made-up handshake, and gives every request a deadline.
//!
//! A [`Connection`] is a mount after its handshake. [`Session::start`] serves a [`FileSystem`] on it. When the server
//! dies and another process holds a duplicate of the connection, the next server starts a session on that, with
//! `resend`, and nobody who uses the mount notices more than a delay.

mod backings;
mod caller_signals;
mod connection;
mod device;
mod device_number;
mod directory;
mod dispatch;
mod filesystem;
mod handshake;
mod in_flight;
mod notifier;
mod reply;
mod request_buffer;
mod session;
mod stop_signal;
mod timer;
mod wire;

pub use backings::DeviceBackings;
pub use connection::{Connection, MountError, MountOptions, UnmountGuard};
pub use directory::DirectoryBuffer;
pub use filesystem::{
    Attr, Backings, Caller, DirEntry, Entry, FileKind, FileSystem, NodeId, OpenMode, Opened, Statfs,
};
pub use handshake::Negotiated;
pub use notifier::Notifier;
pub use reply::Reply;
pub use session::{Session, SessionConfig};
