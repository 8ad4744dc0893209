//! What daemon and nursery say to each other: packets (see [`crate::packet`]) on a connection per worker.
//!
//! The daemon opens with [`Hello`], the nursery answers [`Welcome`]. Then one [`Ask::Start`] or [`Ask::Find`] ties the
//! connection to one worker, and all further words on it are about that one. So there is nothing to confuse, and an
//! end of the connection means that the nursery has gone.
//!
//! ```text
//! daemon                                   nursery
//!   Hello                          ->
//!                                  <-      Welcome
//!   Start {token, key} + 2 fds     ->
//!                                  <-      Started {pid} + pidfd      (or Refused)
//!   Keep + the connection          ->
//!   Kill                           ->
//!                                  <-      Ended                      (unasked)
//!                                  <-      Draining                   (unasked)
//! ```

use serde::{Deserialize, Serialize};
use volume::MountKey;

use crate::process::Ending;

/// Version of this protocol.
pub(crate) const NURSERY_VERSION: u32 = 1;

/// Most bytes of a token.
pub(crate) const TOKEN_LIMIT: usize = 128;

/// The daemon's first packet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`NURSERY_VERSION`] of the daemon.
    pub nursery: u32,
}

/// The answer. Its fields stay readable to all versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// [`NURSERY_VERSION`] of the nursery.
    pub nursery: u32,
    /// Version of the protocol that its workers speak ([`crate::protocol::VERSION`]).
    pub worker: u32,
    /// User that its workers run as.
    pub uid: u32,
    /// Group that its workers run as.
    pub gid: u32,
}

/// What the daemon asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    /// Start a worker; two fds come along: its listening socket and a memory file with its launch request. Answer:
    /// `Started` or `Refused`.
    Start {
        /// The daemon's name for this very process, never used again.
        token: String,
        /// Shown in the process list and in each line of its log.
        key: MountKey,
        /// Token of the worker that it replaces; the connection kept for that one is kept for this one.
        heir_of: Option<String>,
    },
    /// The worker with this token. Answer: `Found` or `Unknown`.
    Find {
        /// As given to `Start`.
        token: String,
    },
    /// Keep a duplicate of the FUSE connection that comes along until the kernel ends it. Not answered.
    Keep,
    /// Keep it no longer: a worker in another nursery takes it over. Not answered.
    Forget,
    /// SIGKILL. Not answered; `Ended` follows.
    Kill,
}

/// What the nursery says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Word {
    /// It runs; its pidfd comes along.
    Started {
        /// Process id in the nursery's namespace: only to be shown.
        pid: i32,
    },
    /// It is here; its pidfd comes along, then the connection if one is kept. If it has ended, `Ended` follows.
    Found {
        /// Process id in the nursery's namespace: only to be shown.
        pid: i32,
    },
    /// No such worker.
    Unknown,
    /// It was not started.
    Refused(String),
    /// The worker ended.
    Ended(Ending),
    /// No worker is started here any more, and the nursery will be killed.
    Draining,
}
