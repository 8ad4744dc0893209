//! What daemon and worker say to each other.
//!
//! A worker listens on a unix SEQPACKET socket of its own; the daemon connects twice and opens each connection with
//! [`Hello`], answered by [`Welcome`]. On the *control* connection the daemon asks ([`Call`]) and the worker
//! answers ([`Answer`], in any order, matched by id). On the *broker* connection the worker asks ([`BrokerCall`]) and the
//! daemon answers. A new connection of a role replaces the old one, so a restarted daemon just connects again.
//!
//! The daemon trusts nothing a worker says about itself: the worker's pid is taken from SO_PEERCRED (a worker calls
//! listen(2) itself, which stamps the socket with its own credentials).

use serde::{Deserialize, Serialize};
use volume::{Fault, MountKey, WorkerReport};

/// Version of this protocol. A daemon that finds a worker with another one replaces the worker (the mount lives on).
pub(crate) const VERSION: u32 = 1;

/// The inherited fd of the worker's listening socket.
pub(crate) const SOCKET_FD: i32 = 3;

/// The inherited fd of a sealed memory file with the [`volume::LaunchRequest`] as JSON. It can be larger than a packet.
pub(crate) const REQUEST_FD: i32 = 4;

/// Most bytes of a launch request.
pub(crate) const REQUEST_LIMIT: u64 = 16 * 1024 * 1024;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// The daemon asks, the worker answers.
    Control,
    /// The worker asks for passthrough backing ids, the daemon answers.
    Broker,
}

/// The daemon's first packet on a connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// [`VERSION`] of the daemon.
    pub version: u32,
    /// What the connection is for.
    pub role: Role,
}

/// The worker's answer to [`Hello`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// [`VERSION`] of the worker.
    pub version: u32,
    /// The mount it was started for.
    pub key: MountKey,
    /// Whether it has a FUSE connection and serves it.
    pub serving: bool,
}

/// A question on the control connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// Comes back in the [`Answer`].
    pub id: u64,
    /// The question.
    pub request: Request,
}

/// What the daemon can ask of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Verify and open what is to be served. Answer: `Done` or `Failed`.
    Prepare {
        /// Must not fail because a server cannot be reached; the mount exists already.
        offline: bool,
    },
    /// Serve; two fds come along: the FUSE connection, then the state file. Answer: `Done` or `Failed`.
    Serve {
        /// The connection was served by another worker before.
        adopted: bool,
    },
    /// How are you? Answer: `Report`.
    Report,
    /// Look for changes now. Answer: `Done` or `Failed`.
    Refresh,
    /// Give a duplicate of the FUSE connection. Answer: `Connection` with one fd, or `Failed`.
    GiveConnection,
    /// Stop serving and exit. Answer: `Done`.
    Stop,
}

/// An answer on the control connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The question's id.
    pub id: u64,
    /// The answer.
    pub reply: Reply,
}

/// What a worker answers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// It is done.
    Done,
    /// It could not be done.
    Failed(Fault),
    /// The worker's state.
    Report(Box<WorkerReport>),
    /// The fd comes along.
    Connection,
}

/// A question on the broker connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BrokerCall {
    /// Comes back in the [`BrokerAnswer`].
    pub id: u64,
    /// The question.
    pub request: BrokerRequest,
}

/// What a worker asks of the daemon's passthrough broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BrokerRequest {
    /// Register the file whose fd comes along.
    Open,
    /// Give a backing id back; not answered.
    Close {
        /// The id.
        backing: u32,
    },
}

/// An answer on the broker connection.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BrokerAnswer {
    /// The question's id.
    pub id: u64,
    /// The backing id, or an errno value.
    pub result: Result<u32, i32>,
}
