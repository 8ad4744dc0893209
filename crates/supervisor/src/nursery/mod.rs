//! Workers in a process namespace (a container, a pod) of their own.
//!
//! When a container ends, the kernel kills everything in its PID namespace: workers that the daemon forked would die with
//! the daemon's container, and each upgrade of it would be a fault. So the daemon can have its workers started by a
//! *nursery*: a small process in another container, with no privilege at all, which executes `/proc/self/exe worker`
//! when the daemon asks and never anything else. The two containers share directories, nothing more.
//!
//! The daemon opens /dev/fuse, mounts and keeps its duplicate of each connection as ever; the nursery only makes the
//! process out of two descriptors of the daemon (the worker's listening socket and its launch request) and gives a pidfd
//! back. A pidfd can be polled in any PID namespace, but a signal cannot be sent with it into a namespace that is not
//! below one's own (`pidfd_send_signal(2)`, EINVAL), and only a parent reaps: both are asked of the nursery.
//!
//! What happens when somebody dies:
//! - the daemon: workers serve on, and the nursery keeps the exit status of those that end meanwhile, together with a
//!   duplicate of each connection ([`message::Ask::Keep`]), as systemd's fd store does elsewhere. So a worker that dies
//!   while no daemon runs loses nothing either.
//! - the nursery, and with it all its workers: the daemon has its duplicates, waits for the next nursery and starts
//!   workers anew, which adopt the connections.
//! - both: the last descriptors of the connections are closed, and the kernel ends them. The next daemon finds dead
//!   mounts and cleans them away. Nothing can prevent that, so the two belong into different pods.
//!
//! A nursery that is told to end (SIGTERM) *drains*: it starts no worker any more and says so, but serves until it is
//! killed. The daemon moves the workers as soon as another nursery listens at the socket.

mod brood;
mod client;
mod door;
mod message;
mod server;
mod settings;

pub(crate) use client::{Found, NurseryError, NurseryLink, fresh_token};
pub use server::nursery_main;
pub use settings::{NurseryConfig, NurseryServeError};
