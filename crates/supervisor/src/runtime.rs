//! The life of a worker process.
//!
//! It starts with its listening socket and its launch request as inherited fds, gives up its privileges, and answers whichever
//! daemon connects. It exits when the kernel connection is gone (unmounted), when told to stop, or when the daemon
//! goes away before anything was mounted. It does not exit because a daemon went away: the mount outlives it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{Backlog, SockFlag, accept4, getsockopt, listen, sockopt};
use nix::unistd::Uid;
use volume::LaunchRequest;

use crate::broker::BrokerClient;
use crate::packet::{self, PacketError};
use crate::protocol::{Hello, REQUEST_FD, REQUEST_LIMIT, Role, SOCKET_FD, VERSION, Welcome};
use crate::stage::Stage;
use crate::{Servant, WorkerUser, confine, privileges};

/// How long a fresh worker waits for the daemon that started it.
const FIRST_CONNECTION: Duration = Duration::from_secs(30);

/// How long a connected peer may take for its greeting.
const GREETING: Duration = Duration::from_secs(2);

/// Why a worker could not begin.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Not started by the daemon.
    #[error("a worker is started by the daemon, not by hand: {0}")]
    NotInherited(String),
    /// A privilege could not be given up.
    #[error(transparent)]
    Privilege(#[from] crate::PrivilegeError),
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// Runs a worker to its end. Call it while the process has one thread; returns when there is nothing more to serve.
///
/// # Errors
/// The process was not started by a [`crate::Pool`], or could not give up its privileges.
pub fn worker_main(servant: Arc<dyn Servant>, user: Option<WorkerUser>) -> Result<(), WorkerError> {
    let daemon = Uid::effective();
    let (listener, request) = inherited()?;
    privileges::drop_identity(user)?;
    confine::confine_files(&request.writable, &request.readable)?;
    privileges::filter_system_calls()?;
    // Stamps the socket with this process's credentials, by which a daemon knows whom it talks to.
    listen(&listener, Backlog::new(8).map_err(std::io::Error::from)?).map_err(std::io::Error::from)?;
    let key = request.key.clone();
    let stage = Stage::new(servant, request, Arc::new(BrokerClient::default()));
    let mut first = true;
    loop {
        let patience = if first { PollTimeout::try_from(FIRST_CONNECTION) } else { Ok(PollTimeout::NONE) };
        let mut polled = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut polled, patience.unwrap_or(PollTimeout::MAX)) {
            Ok(0) => {
                tracing::warn!(%key, "no daemon connected; the worker ends");
                return Ok(());
            }
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(WorkerError::Socket(errno.into())),
        }
        first = false;
        let socket = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            // SAFETY: accept4 has just made this descriptor for us; nobody else owns it.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd) },
            Err(errno) => {
                tracing::debug!(%errno, "accept");
                continue;
            }
        };
        if let Err(error) = welcome(socket, daemon, &stage) {
            tracing::warn!(%key, %error, "a connection to the worker was refused");
        }
    }
}

/// Takes the two inherited fds over.
fn inherited() -> Result<(OwnedFd, LaunchRequest), WorkerError> {
    let missing = |what: &str| WorkerError::NotInherited(format!("fd {what} is not what it should be"));
    for fd in [SOCKET_FD, REQUEST_FD] {
        // SAFETY: fcntl on a number is harmless if it is not open; that is what is asked here.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(missing(&fd.to_string()));
        }
    }
    // SAFETY: both are open (checked above), were put there for this process by its parent, and nothing has run in
    // this process yet that could own them.
    let (listener, memory) =
        unsafe { (OwnedFd::from_raw_fd(SOCKET_FD), File::from(OwnedFd::from_raw_fd(REQUEST_FD))) };
    if !getsockopt(&listener, sockopt::AcceptConn).unwrap_or(false) {
        return Err(missing("3"));
    }
    let mut json = Vec::new();
    // The offset is shared with the daemon, which wrote last: read from the beginning.
    std::io::Seek::rewind(&mut (&memory)).map_err(|_| missing("4"))?;
    memory.take(REQUEST_LIMIT).read_to_end(&mut json)?;
    let request =
        serde_json::from_slice(&json).map_err(|error| WorkerError::NotInherited(format!("fd 4: {error}")))?;
    Ok((listener, request))
}

/// Checks who connected and gives the connection to its role.
fn welcome(socket: OwnedFd, daemon: Uid, stage: &Arc<Stage>) -> Result<(), PacketError> {
    let peer = getsockopt(&socket, sockopt::PeerCredentials)?.uid();
    if peer != 0 && peer != daemon.as_raw() {
        return Err(PacketError::Malformed(format!("user {peer} is not the daemon's")));
    }
    packet::prepare(&socket)?;
    let (hello, _): (Hello, _) = packet::receive(socket.as_fd(), 0, Some(GREETING))?;
    let answer = Welcome { version: VERSION, key: stage.key().clone(), serving: stage.is_serving() };
    packet::send(socket.as_fd(), &answer, &[], GREETING)?;
    // A daemon of another version decides itself what it can ask of this one; at least GiveConnection stays.
    tracing::debug!(daemon = hello.version, own = VERSION, role = ?hello.role, "a daemon connected");
    match hello.role {
        Role::Control => stage.attend(socket)?,
        Role::Broker => stage.broker().attach(socket)?,
    }
    Ok(())
}
