//! Passthrough backing ids: the worker has the file, the daemon the right to register it.
//!
//! The kernel reads a registered file with the credentials of whoever registered it, that is the daemon's. So the broker
//! registers only what the worker could read anyway and owns: regular files of the worker's user, opened for reading.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use fuse::Backings;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::Uid;
use parking_lot::Mutex;

use crate::packet::{self, PacketError};
use crate::protocol::{BrokerAnswer, BrokerCall, BrokerRequest};

/// How long a worker waits for an id before it serves the file itself.
const PATIENCE: Duration = Duration::from_millis(200);

/// Answers a worker's broker connection until it closes. For a thread of its own: a worker could send the fd of a file
/// whose handling hangs, and must hang nothing but its own broker then.
pub(crate) fn answer_calls(socket: &OwnedFd, backings: &dyn Backings, owner: Uid) {
    loop {
        let (call, mut fds) = match packet::receive::<BrokerCall>(socket.as_fd(), 1, None) {
            Ok(received) => received,
            Err(PacketError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "a worker's broker connection broke; files are served without passthrough");
                return;
            }
        };
        match call.request {
            BrokerRequest::Open => {
                let result = match fds.pop() {
                    None => Err(libc::EBADF),
                    Some(file) => may_register(file.as_fd(), owner)
                        .and_then(|()| backings.open(file.as_fd()))
                        .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO)),
                };
                let answer = BrokerAnswer { id: call.id, result };
                if packet::send(socket.as_fd(), &answer, &[], PATIENCE).is_err() {
                    if let Ok(backing) = answer.result {
                        backings.close(backing);
                    }
                    return;
                }
            }
            BrokerRequest::Close { backing } => backings.close(backing),
        }
    }
}

/// Whether a worker that runs as `owner` may have this file registered.
fn may_register(file: BorrowedFd<'_>, owner: Uid) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    let readable = matches!(flags & OFlag::O_ACCMODE, OFlag::O_RDONLY | OFlag::O_RDWR);
    let meta = fstat(file)?;
    let regular = SFlag::from_bits_truncate(meta.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
    if regular && readable && !flags.contains(OFlag::O_PATH) && meta.st_uid == owner.as_raw() {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    }
}

/// The worker's side: asks the daemon that is connected at the moment, and fails at once while none is.
#[derive(Debug, Default)]
pub(crate) struct BrokerClient {
    connection: Mutex<Option<Arc<OwnedFd>>>,
    waiting: Mutex<HashMap<u64, SyncSender<Result<u32, i32>>>>,
    next: AtomicU64,
}

impl BrokerClient {
    /// Uses `socket` from now on, instead of an earlier one.
    pub(crate) fn attach(self: &Arc<Self>, socket: OwnedFd) -> io::Result<()> {
        let socket = Arc::new(socket);
        let old = self.connection.lock().replace(Arc::clone(&socket));
        drop(old);
        let client = Arc::clone(self);
        std::thread::Builder::new().name("broker".to_owned()).stack_size(512 * 1024).spawn(move || {
            client.receive_answers(&socket);
            let mut connection = client.connection.lock();
            if connection.as_ref().is_some_and(|current| Arc::ptr_eq(current, &socket)) {
                *connection = None;
            }
        })?;
        Ok(())
    }

    fn receive_answers(&self, socket: &Arc<OwnedFd>) {
        loop {
            match packet::receive::<BrokerAnswer>(socket.as_fd(), 0, None) {
                Ok((answer, _)) => {
                    let waiter = self.waiting.lock().remove(&answer.id);
                    let taken = waiter.is_some_and(|waiter| waiter.send(answer.result).is_ok());
                    // Nobody waits any more: an id that nobody knows would stay registered for the mount's life.
                    if let (false, Ok(backing)) = (taken, answer.result) {
                        self.give_back(socket, backing);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "the broker connection ended");
                    return;
                }
            }
        }
    }

    fn give_back(&self, socket: &OwnedFd, backing: u32) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let call = BrokerCall { id, request: BrokerRequest::Close { backing } };
        if let Err(error) = packet::send(socket.as_fd(), &call, &[], PATIENCE) {
            tracing::debug!(%error, backing, "a backing id could not be given back");
        }
    }
}

impl Backings for BrokerClient {
    fn open(&self, file: BorrowedFd<'_>) -> io::Result<u32> {
        let Some(socket) = self.connection.lock().clone() else {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        // Room for one answer: the receiving thread never waits here.
        let (sender, receiver) = sync_channel(1);
        self.waiting.lock().insert(id, sender);
        let call = BrokerCall { id, request: BrokerRequest::Open };
        if let Err(error) = packet::send(socket.as_fd(), &call, &[file], PATIENCE) {
            self.waiting.lock().remove(&id);
            return Err(io::Error::new(io::ErrorKind::NotConnected, error));
        }
        if let Ok(result) = receiver.recv_timeout(PATIENCE) {
            return result.map_err(io::Error::from_raw_os_error);
        }
        if self.waiting.lock().remove(&id).is_none() {
            // The answer came in this very moment.
            if let Ok(result) = receiver.try_recv() {
                return result.map_err(io::Error::from_raw_os_error);
            }
        }
        Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
    }

    fn close(&self, id: u32) {
        if let Some(socket) = self.connection.lock().clone() {
            self.give_back(&socket, id);
        }
    }
}

/// A connection that is shut down wakes the thread that reads it.
pub(crate) fn shut_down(socket: &OwnedFd) {
    // The peer may have closed it already; both are what is wanted.
    let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}
