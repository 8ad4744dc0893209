//! The daemon's end of its connections to one worker.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};

use crate::packet::{self, PacketError};
use crate::protocol::{Answer, Call, Hello, Reply, Request, Role, VERSION, Welcome};
use std::os::fd::AsRawFd;

/// How long a worker may take to answer what it answers at once.
pub(crate) const PROMPT: Duration = Duration::from_secs(5);

/// Makes the listening socket of a worker at `directory/name`, replacing a stale one.
pub(crate) fn listen_at(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    match std::fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    with_address(directory, name, |address| bind(listener.as_raw_fd(), address))?;
    listen(&listener, Backlog::new(8)?)?;
    Ok(listener)
}

/// Calls `act` with the address of `directory/name`. The address goes through /proc/self/fd, as a socket address holds
/// only 107 bytes and run directories can be longer.
pub(crate) fn with_address<T>(
    directory: &Path,
    name: &str,
    act: impl FnOnce(&UnixAddr) -> nix::Result<T>,
) -> io::Result<T> {
    let directory = std::fs::File::open(directory)?;
    let address = UnixAddr::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).as_str())?;
    Ok(act(&address)?)
}

/// A connection of one role whose greeting is done.
#[derive(Debug)]
pub(crate) struct Link {
    socket: OwnedFd,
    /// Process that listens, from the kernel; 0 if it is in a PID namespace that is not visible here.
    pub(crate) listener_pid: i32,
    /// The user that it runs as.
    pub(crate) listener_uid: u32,
    next: u64,
    /// Answers to other questions that came while one was waited for.
    early: VecDeque<Answer>,
}

impl Link {
    /// Connects to the worker at `directory/name` and greets it.
    pub(crate) fn connect(directory: &Path, name: &str, role: Role) -> Result<(Link, Welcome), PacketError> {
        let mut link = Link::open(directory, name)?;
        let welcome = link.greet(role)?;
        Ok((link, welcome))
    }

    /// Connects without a word; says who listens, also when that process hangs.
    pub(crate) fn open(directory: &Path, name: &str) -> Result<Link, PacketError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        packet::prepare(&socket)?;
        with_address(directory, name, |address| connect(socket.as_raw_fd(), address))?;
        let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
        Ok(Link {
            listener_pid: peer.pid(),
            listener_uid: peer.uid(),
            socket,
            next: 1,
            early: VecDeque::new(),
        })
    }

    /// The first exchange on a connection.
    pub(crate) fn greet(&mut self, role: Role) -> Result<Welcome, PacketError> {
        packet::send(self.socket.as_fd(), &Hello { version: VERSION, role }, &[], PROMPT)?;
        let (welcome, _) = packet::receive(self.socket.as_fd(), 0, Some(PROMPT))?;
        Ok(welcome)
    }

    /// Readable when an answer is there or the worker has gone.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The socket, for the broker's thread.
    pub(crate) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends a question and answers its id.
    pub(crate) fn send(&mut self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<u64, PacketError> {
        let id = self.next;
        self.next += 1;
        packet::send(self.socket.as_fd(), &Call { id, request }, fds, PROMPT)?;
        Ok(id)
    }

    /// The next answer, if one is there.
    pub(crate) fn answer(&mut self) -> Result<Option<Answer>, PacketError> {
        if let Some(answer) = self.early.pop_front() {
            return Ok(Some(answer));
        }
        match packet::receive_now(self.socket.as_fd(), 0) {
            Ok((answer, _)) => Ok(Some(answer)),
            Err(PacketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks and waits for the answer, with at most `expected_fds` fds.
    pub(crate) fn ask(
        &mut self,
        request: Request,
        fds: &[BorrowedFd<'_>],
        expected_fds: usize,
        deadline: Duration,
    ) -> Result<(Reply, Vec<OwnedFd>), PacketError> {
        let until = Instant::now() + deadline;
        let id = self.send(request, fds)?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let received = packet::receive::<Answer>(self.socket.as_fd(), expected_fds, Some(left));
            let (answer, fds) = received.map_err(|error| match error {
                PacketError::TimedOut(_) => PacketError::TimedOut(deadline),
                other => other,
            })?;
            if answer.id == id {
                return Ok((answer.reply, fds));
            }
            // Bounded by the few questions that can be open at once.
            if self.early.len() < 8 {
                self.early.push_back(answer);
            }
        }
    }
}
