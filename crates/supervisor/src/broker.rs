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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    /// Gives out the length of the file as its id and tells what is closed.
    struct Fake {
        closed: Mutex<Sender<u32>>,
        may_go_on: Mutex<Receiver<()>>,
    }

    impl Backings for Fake {
        fn open(&self, file: BorrowedFd<'_>) -> io::Result<u32> {
            let _ = self.may_go_on.lock().recv();
            Ok(u32::try_from(fstat(file)?.st_size).unwrap())
        }
        fn close(&self, id: u32) {
            self.closed.lock().send(id).unwrap();
        }
    }

    /// A client, what its daemon closes, and the pace of its daemon.
    fn pair() -> (Arc<BrokerClient>, Receiver<u32>, Sender<()>) {
        let (worker, daemon) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let (closing, closed) = channel();
        let (pace, paced) = channel();
        let fake = Fake { closed: Mutex::new(closing), may_go_on: Mutex::new(paced) };
        std::thread::spawn(move || answer_calls(&daemon, &fake, Uid::effective()));
        let client = Arc::new(BrokerClient::default());
        client.attach(worker).unwrap();
        (client, closed, pace)
    }

    fn file(bytes: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    #[test]
    fn ids_are_given_out_and_back() {
        let (client, closed, pace) = pair();
        pace.send(()).unwrap();
        assert_eq!(client.open(file(42).as_fd()).unwrap(), 42);
        client.close(42);
        assert_eq!(closed.recv().unwrap(), 42);
    }

    #[test]
    fn an_id_that_comes_too_late_is_given_back() {
        let (client, closed, pace) = pair();
        assert_eq!(client.open(file(7).as_fd()).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        pace.send(()).unwrap();
        assert_eq!(closed.recv().unwrap(), 7);
    }

    #[test]
    fn without_a_daemon_the_answer_comes_at_once() {
        let client = BrokerClient::default();
        assert_eq!(client.open(file(1).as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTCONN));
    }

    #[test]
    fn a_worker_has_nothing_registered_that_it_could_not_read_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let own = Uid::effective();
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(may_register(reader.as_fd(), own).is_ok());
        assert!(may_register(reader.as_fd(), Uid::from_raw(own.as_raw() + 1)).is_err(), "of another user");
        assert!(may_register(writer.as_fd(), own).is_err(), "only written");
        assert!(may_register(File::open(directory.path()).unwrap().as_fd(), own).is_err(), "a directory");
        assert!(may_register(File::open("/dev/null").unwrap().as_fd(), own).is_err(), "a device");
        let by_path = nix::fcntl::open(&path, OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
        assert!(may_register(by_path.as_fd(), own).is_err(), "not opened for reading");
    }
}
