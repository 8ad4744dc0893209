//! The daemon's end of a connection to a nursery: the hold on one worker that is no child of ours.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, connect, getsockopt, socket, sockopt};
use nix::unistd::{Gid, Uid};
use serde::Serialize;
use volume::MountKey;

use super::message::{Ask, Hello, NURSERY_VERSION, Welcome, Word};
use crate::link::{PROMPT, with_address};
use crate::origin::Names;
use crate::packet::{self, PacketError};
use crate::process::Ending;
use crate::protocol::VERSION;
use crate::{WorkerUser, worker};

/// How long the nursery may take to tell how a worker ended of which the kernel says that it has.
const ENDING_LIMIT: Duration = Duration::from_secs(2);

/// Why the nursery starts no worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NurseryError {
    /// Nobody listens, or the connection broke.
    #[error("the nursery at {} does not answer ({source}); is its container (`volplane nursery`) running?", path.display())]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// What happened.
        source: PacketError,
    },
    /// It speaks another version, or its workers do.
    #[error("the nursery at {} is of another version ({what}); bring it to the daemon's version", path.display())]
    Version {
        /// Its socket.
        path: PathBuf,
        /// Which versions.
        what: String,
    },
    /// It says that its workers run as somebody they must not run as.
    #[error("the nursery at {} runs as user {nursery} and says that its workers run as {workers}; nothing is given to it", path.display())]
    Suspect {
        /// Its socket.
        path: PathBuf,
        /// Its own user, from the kernel.
        nursery: u32,
        /// What it says.
        workers: u32,
    },
    /// It says no.
    #[error("the nursery at {} refused: {why}", path.display())]
    Refused {
        /// Its socket.
        path: PathBuf,
        /// Its reason.
        why: String,
    },
}

/// A greeted connection, not yet or for ever about one worker.
#[derive(Debug)]
pub(crate) struct NurseryLink {
    socket: OwnedFd,
    path: PathBuf,
    /// Who its workers run as.
    pub(crate) user: WorkerUser,
    ended: Option<Ending>,
    draining: bool,
    lost: bool,
}

/// What the nursery knows of a worker.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) link: NurseryLink,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// The connection that was kept.
    pub(crate) kept: Option<OwnedFd>,
}

impl NurseryLink {
    /// Connects to the nursery at `path` and greets it.
    pub(crate) fn open(path: &Path) -> Result<NurseryLink, NurseryError> {
        let absent = |source| NurseryError::Absent { path: path.to_owned(), source };
        let socket = reach(path).map_err(|error| absent(error.into()))?;
        let peer = getsockopt(&socket, sockopt::PeerCredentials).map_err(|errno| absent(errno.into()))?;
        packet::send(socket.as_fd(), &Hello { nursery: NURSERY_VERSION }, &[], PROMPT).map_err(absent)?;
        let (welcome, _) = packet::receive::<Welcome>(socket.as_fd(), 0, Some(PROMPT)).map_err(absent)?;
        let version = |what| NurseryError::Version { path: path.to_owned(), what };
        if welcome.nursery != NURSERY_VERSION {
            return Err(version(format!("protocol {}, {NURSERY_VERSION} is spoken here", welcome.nursery)));
        }
        if welcome.worker != VERSION {
            return Err(version(format!("its workers speak {}, {VERSION} is spoken here", welcome.worker)));
        }
        // Directories are made for the workers' user, and its files are passed through: a nursery without privileges
        // can speak for its own user only, and none for root.
        if welcome.uid == 0 || (peer.uid() != 0 && peer.uid() != welcome.uid) {
            let (path, nursery, workers) = (path.to_owned(), peer.uid(), welcome.uid);
            return Err(NurseryError::Suspect { path, nursery, workers });
        }
        let user = WorkerUser { uid: Uid::from_raw(welcome.uid), gid: Gid::from_raw(welcome.gid) };
        Ok(NurseryLink { socket, path: path.to_owned(), user, ended: None, draining: false, lost: false })
    }

    /// Has a worker started: its pid in the nursery's namespace, and its pidfd.
    pub(crate) fn start(
        &mut self,
        names: &Names,
        key: &MountKey,
        socket: BorrowedFd<'_>,
        request: BorrowedFd<'_>,
    ) -> Result<(i32, OwnedFd), NurseryError> {
        let (token, heir_of) = (names.token.clone().unwrap_or_default(), names.heir_of.clone());
        let ask = Ask::Start { token, key: key.clone(), heir_of };
        match self.ask(&ask, &[socket, request])? {
            (Word::Started { pid }, mut fds) if !fds.is_empty() => Ok((pid, fds.remove(0))),
            (Word::Refused(why), _) => Err(NurseryError::Refused { path: self.path.clone(), why }),
            (other, _) => Err(self.nonsense(&other)),
        }
    }

    /// Looks for a worker that an earlier daemon had started; `None` if this nursery has none with this token.
    pub(crate) fn find(mut self, token: &str) -> Result<Option<Found>, NurseryError> {
        match self.ask(&Ask::Find { token: token.to_owned() }, &[])? {
            (Word::Found { pid }, mut fds) if !fds.is_empty() => {
                let pidfd = fds.remove(0);
                let kept = fds.into_iter().next().filter(worker::is_fuse_device);
                Ok(Some(Found { link: self, pid, pidfd, kept }))
            }
            (Word::Unknown, _) => Ok(None),
            (other, _) => Err(self.nonsense(&other)),
        }
    }

    /// Has a duplicate of the worker's connection kept for the next daemon.
    pub(crate) fn keep(&self, connection: BorrowedFd<'_>) {
        self.tell(&Ask::Keep, &[connection]);
    }

    /// Has it kept no longer.
    pub(crate) fn forget(&self) {
        self.tell(&Ask::Forget, &[]);
    }

    /// Has the worker killed.
    pub(crate) fn kill(&self) {
        self.tell(&Ask::Kill, &[]);
    }

    /// Readable when the nursery says something; `None` once it has gone.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        (!self.lost).then(|| self.socket.as_fd())
    }

    /// Whether the nursery has gone or will go, from what it said since it was last asked.
    pub(crate) fn is_leaving(&mut self) -> bool {
        while !self.lost && self.hear(None) {}
        self.lost || self.draining
    }

    /// How the worker ended; waits a moment for the nursery to say so.
    pub(crate) fn ending(mut self) -> Ending {
        let until = Instant::now() + ENDING_LIMIT;
        while !self.lost && self.ended.is_none() && Instant::now() < until {
            self.hear(Some(until.saturating_duration_since(Instant::now())));
        }
        match self.ended {
            Some(ending) => ending,
            None if self.lost => Ending::WithNursery,
            None => Ending::Unknown,
        }
    }

    /// Takes one unasked word, waiting for it as long as told; whether there was one.
    fn hear(&mut self, patience: Option<Duration>) -> bool {
        let heard = match patience {
            None => packet::receive_now::<Word>(self.socket.as_fd(), 0),
            Some(patience) => packet::receive::<Word>(self.socket.as_fd(), 0, Some(patience)),
        };
        match heard {
            Ok((word, _)) => {
                self.note(&word);
                true
            }
            Err(PacketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(PacketError::TimedOut(_)) => false,
            Err(error) => {
                tracing::debug!(%error, "the nursery's connection ended");
                self.lost = true;
                false
            }
        }
    }

    /// Remembers what comes unasked; whether the word is of that kind.
    fn note(&mut self, word: &Word) -> bool {
        match word {
            Word::Ended(ending) => self.ended = Some(*ending),
            Word::Draining => self.draining = true,
            Word::Started { .. } | Word::Found { .. } | Word::Unknown | Word::Refused(_) => return false,
        }
        true
    }

    fn ask(&mut self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<(Word, Vec<OwnedFd>), NurseryError> {
        let until = Instant::now() + PROMPT;
        let path = self.path.clone();
        let absent = |source| NurseryError::Absent { path: path.clone(), source };
        packet::send(self.socket.as_fd(), ask, fds, PROMPT).map_err(absent)?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let received = packet::receive::<Word>(self.socket.as_fd(), 2, Some(left));
            let (word, fds) = received.map_err(absent)?;
            if !self.note(&word) {
                return Ok((word, fds));
            }
        }
    }

    /// What is not answered; that the nursery has gone is seen elsewhere.
    fn tell<T: Serialize>(&self, ask: &T, fds: &[BorrowedFd<'_>]) {
        if let Err(error) = packet::send(self.socket.as_fd(), ask, fds, PROMPT) {
            tracing::debug!(%error, "the nursery did not hear");
        }
    }

    fn nonsense(&self, word: &Word) -> NurseryError {
        let source = PacketError::Malformed(format!("{word:?}"));
        NurseryError::Absent { path: self.path.clone(), source }
    }
}

fn reach(path: &Path) -> io::Result<OwnedFd> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    packet::prepare(&socket)?;
    with_address(directory, name, |address| connect(socket.as_raw_fd(), address))?;
    Ok(socket)
}

/// A name for a worker that no other one has: nobody has to guess it, as only root may ask.
pub(crate) fn fresh_token() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{now:x}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
