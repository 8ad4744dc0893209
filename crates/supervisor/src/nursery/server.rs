//! The nursery's process: one thread that waits for daemons, for the ends of workers, and for its own.
//!
//! It may be the first process of its PID namespace, so it reaps whatever becomes its child. It holds no secret, reads
//! no launch request and opens no file after its start.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::fstat;
use nix::unistd::{Gid, Uid};

use super::brood::{Brood, LIMIT, Nursling};
use super::door::Door;
use super::message::{Ask, Hello, NURSERY_VERSION, TOKEN_LIMIT, Welcome, Word};
use super::settings::{self, NurseryConfig, NurseryServeError};
use crate::packet::{self, PacketError};
use crate::protocol::{REQUEST_LIMIT, VERSION};
use crate::{Program, WorkerUser, privileges, spawn, worker};

/// Connections beside those that look after a worker.
const SPARE_CONNECTIONS: usize = 64;

/// How long a peer may take for its greeting, or for room in its socket. Peers are root: this bounds mistakes.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the nursery waits for the directory of its socket.
const DIRECTORY_PATIENCE: Duration = Duration::from_secs(60);

/// Runs the nursery until it is told to end and no worker is left. Call it while the process has one thread.
///
/// # Errors
/// It could not begin; afterwards nothing ends it but signals.
pub fn nursery_main(config: NurseryConfig) -> Result<(), NurseryServeError> {
    let user = settings::workers_user(config.user)?;
    privileges::raise_own_open_files()?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals.thread_block().map_err(io::Error::from)?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(io::Error::from)?;
    let door = open_door(&config)?;
    let own = Uid::effective();
    let ids = user.unwrap_or(WorkerUser { uid: own, gid: Gid::effective() });
    tracing::info!(socket = %config.socket.display(), uid = ids.uid.as_raw(), gid = ids.gid.as_raw(),
        "the nursery is ready");
    let program = Program { path: "/proc/self/exe".into(), arguments: config.arguments };
    let welcome =
        Welcome { nursery: NURSERY_VERSION, worker: VERSION, uid: ids.uid.as_raw(), gid: ids.gid.as_raw() };
    let nursery = Nursery {
        program,
        user,
        welcome,
        brood: Brood::default(),
        guests: BTreeMap::new(),
        next_guest: 0,
        door: Some(door),
    };
    nursery.run(&signals)
}

/// The daemon makes the directory, or gives it to us, and may start at the same time.
fn open_door(config: &NurseryConfig) -> Result<Door, NurseryServeError> {
    let until = Instant::now() + DIRECTORY_PATIENCE;
    let mut told = false;
    loop {
        let source = match Door::open(&config.socket, config.group) {
            Ok(door) => return Ok(door),
            Err(source) => source,
        };
        let may_come = matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
        if !may_come || Instant::now() >= until {
            return Err(NurseryServeError::Socket { path: config.socket.clone(), source });
        }
        if !told {
            tracing::info!(socket = %config.socket.display(), %source, "waiting for the daemon to make the directory");
            told = true;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A connected daemon.
struct Guest {
    socket: OwnedFd,
    /// Until when its greeting must be there; `None` once it was.
    greeting: Option<Instant>,
    /// The worker that the connection is about.
    about: Option<u64>,
}

struct Nursery {
    program: Program,
    user: Option<WorkerUser>,
    welcome: Welcome,
    brood: Brood,
    guests: BTreeMap<u64, Guest>,
    next_guest: u64,
    /// `None`: draining.
    door: Option<Door>,
}

/// What a polled descriptor belongs to.
#[derive(Clone, Copy)]
enum Of {
    Signals,
    Door,
    Guest(u64),
    Kept(u64),
}

impl Nursery {
    fn run(mut self, signals: &SignalFd) -> Result<(), NurseryServeError> {
        loop {
            let ready = self.wait(signals)?;
            for (of, events) in ready {
                match of {
                    Of::Signals => self.take_signals(signals),
                    Of::Door => self.welcome_guest(),
                    Of::Guest(id) => self.hear(id),
                    Of::Kept(id) => self.brood.kept_has(id, events),
                }
            }
            let now = Instant::now();
            let late = |guest: &Guest| guest.greeting.is_some_and(|until| now >= until);
            self.guests.retain(|_, guest| !late(guest));
            // Nobody can ask for what is kept any more, so it is no reason to stay.
            if self.door.is_none() && self.brood.alive() == 0 {
                tracing::info!("the nursery ends; no worker is left");
                return Ok(());
            }
        }
    }

    /// Waits for something to happen; a signal, a peer, or a greeting that is overdue.
    fn wait(&self, signals: &SignalFd) -> io::Result<Vec<(Of, PollFlags)>> {
        let mut what = vec![Of::Signals];
        let mut polled = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if let Some(door) = &self.door
            && self.guests.len() < LIMIT + SPARE_CONNECTIONS
        {
            what.push(Of::Door);
            polled.push(PollFd::new(door.listener.as_fd(), PollFlags::POLLIN));
        }
        for (id, guest) in &self.guests {
            what.push(Of::Guest(*id));
            polled.push(PollFd::new(guest.socket.as_fd(), PollFlags::POLLIN));
        }
        for (id, kept) in self.brood.kept() {
            what.push(Of::Kept(id));
            polled.push(PollFd::new(kept, PollFlags::empty()));
        }
        let greeting = self.guests.values().filter_map(|guest| guest.greeting).min();
        let timeout = greeting.map_or(PollTimeout::NONE, |until| {
            let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match nix::poll::poll(&mut polled, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        }
        let events = polled.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        Ok(what.into_iter().zip(events).filter(|(_, events)| !events.is_empty()).collect())
    }

    fn take_signals(&mut self, signals: &SignalFd) {
        while let Ok(Some(info)) = signals.read_signal() {
            if info.ssi_signo == Signal::SIGCHLD as u32 {
                continue;
            }
            if self.door.take().is_some() {
                tracing::info!(
                    workers = self.brood.alive(),
                    "the nursery drains: it starts no worker any more, and serves until it is killed"
                );
                let told: Vec<u64> = self.guests.keys().copied().collect();
                for guest in told {
                    self.say(guest, &Word::Draining);
                }
            }
        }
        for (guest, ending) in self.brood.reap() {
            self.say(guest, &Word::Ended(ending));
        }
    }

    fn welcome_guest(&mut self) {
        let Some(door) = &self.door else { return };
        let socket = match door.accept() {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%error, "a connection to the nursery is refused"),
        };
        self.next_guest += 1;
        let greeting = Some(Instant::now() + PATIENCE);
        self.guests.insert(self.next_guest, Guest { socket, greeting, about: None });
    }

    /// Takes one packet of a guest; one that breaks the rules is sent away.
    fn hear(&mut self, id: u64) {
        let Some(guest) = self.guests.get_mut(&id) else { return };
        let heard = if guest.greeting.is_some() {
            packet::receive_now::<Hello>(guest.socket.as_fd(), 0).map(|(hello, _)| {
                tracing::debug!(version = hello.nursery, "a daemon connected");
                guest.greeting = None;
                None
            })
        } else {
            packet::receive_now::<Ask>(guest.socket.as_fd(), 2).map(Some)
        };
        match heard {
            Ok(None) => {
                let welcome = self.welcome.clone();
                self.say(id, &welcome);
            }
            Ok(Some((ask, fds))) => self.answer(id, ask, fds),
            Err(PacketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                if !matches!(error, PacketError::Closed) {
                    tracing::warn!(%error, "a daemon's connection broke");
                }
                self.send_away(id);
            }
        }
    }

    fn answer(&mut self, id: u64, ask: Ask, fds: Vec<OwnedFd>) {
        let about = self.guests.get(&id).and_then(|guest| guest.about);
        match (ask, about) {
            (Ask::Start { token, key, heir_of }, None) => {
                let word = match self.start(id, token, key.as_str(), heir_of, &fds) {
                    Ok(pid) => Word::Started { pid },
                    Err(why) => {
                        tracing::warn!(%key, why, "a worker was not started");
                        Word::Refused(why)
                    }
                };
                self.say_with_worker(id, &word);
            }
            (Ask::Find { token }, None) => match self.brood.find(&token) {
                Some(found) => self.show(id, found),
                None => self.say(id, &Word::Unknown),
            },
            (Ask::Keep, Some(about)) => {
                let connection = fds.into_iter().next().filter(worker::is_fuse_device);
                if let (Some(nursling), Some(connection)) = (self.brood.get_mut(about), connection) {
                    nursling.kept = Some(connection);
                }
            }
            (Ask::Forget, Some(about)) => self.brood.forget(about),
            (Ask::Kill, Some(about)) => {
                if let Some(nursling) = self.brood.get_mut(about).filter(|n| n.ended.is_none()) {
                    nursling.process.kill();
                }
            }
            (Ask::Start { .. } | Ask::Find { .. }, Some(_)) | (Ask::Keep | Ask::Forget | Ask::Kill, None) => {
                tracing::warn!("a daemon asked out of turn; its connection is closed");
                self.send_away(id);
            }
        }
    }

    /// Starts our own program as a worker with the two descriptors, and nothing else.
    fn start(
        &mut self,
        guest: u64,
        token: String,
        key: &str,
        heir_of: Option<String>,
        fds: &[OwnedFd],
    ) -> Result<i32, String> {
        let [socket, request] = fds else { return Err("two descriptors must come along".to_owned()) };
        if self.door.is_none() {
            return Err("the nursery drains and starts no worker any more".to_owned());
        }
        if self.brood.is_full() {
            return Err(format!("the nursery has {LIMIT} workers, which is its limit"));
        }
        if token.is_empty() || token.len() > TOKEN_LIMIT || self.brood.find(&token).is_some() {
            return Err("the token is too long, or not new".to_owned());
        }
        if !getsockopt(socket, sockopt::AcceptConn).unwrap_or(false) {
            return Err("the first descriptor is no listening socket".to_owned());
        }
        let size = fstat(request).map_err(|errno| errno.to_string())?.st_size;
        if !(1..=REQUEST_LIMIT as i64).contains(&size) {
            return Err(format!("the launch request has {size} bytes"));
        }
        let process = spawn::execute(&self.program, self.user, key, socket.as_fd(), request.as_fd())
            .map_err(|error| error.to_string())?;
        let pid = process.pid();
        let kept = heir_of.and_then(|token| self.brood.inherit(&token));
        let id = self.brood.add(Nursling { token, process, ended: None, kept, holder: Some(guest) });
        if let Some(guest) = self.guests.get_mut(&guest) {
            guest.about = Some(id);
        }
        tracing::info!(key, pid, "a worker was started");
        Ok(pid)
    }

    /// Ties the connection to a worker that is there already.
    fn show(&mut self, id: u64, found: u64) {
        let (Some(guest), Some(nursling)) = (self.guests.get_mut(&id), self.brood.get_mut(found)) else {
            return;
        };
        guest.about = Some(found);
        nursling.holder = Some(id);
        let (word, ended) = (Word::Found { pid: nursling.process.pid() }, nursling.ended);
        self.say_with_worker(id, &word);
        if let Some(ending) = ended {
            self.say(id, &Word::Ended(ending));
        }
        if self.door.is_none() {
            self.say(id, &Word::Draining);
        }
    }

    /// Sends the word with the descriptors of the worker that the connection is about.
    fn say_with_worker(&mut self, id: u64, word: &Word) {
        let Some(guest) = self.guests.get(&id) else { return };
        let Some(nursling) = guest.about.and_then(|about| self.brood.get_mut(about)) else {
            return self.say(id, word);
        };
        let kept = nursling.kept.as_ref().filter(|_| matches!(word, Word::Found { .. }));
        let fds: Vec<BorrowedFd<'_>> =
            std::iter::once(nursling.process.pidfd()).chain(kept.map(AsFd::as_fd)).collect();
        let sent = packet::send(guest.socket.as_fd(), word, &fds, PATIENCE);
        self.said(id, sent);
    }

    fn say<T: serde::Serialize>(&mut self, id: u64, word: &T) {
        let Some(guest) = self.guests.get(&id) else { return };
        let sent = packet::send(guest.socket.as_fd(), word, &[], PATIENCE);
        self.said(id, sent);
    }

    fn said(&mut self, id: u64, sent: Result<(), PacketError>) {
        if let Err(error) = sent {
            tracing::debug!(%error, "a daemon did not take an answer");
            self.send_away(id);
        }
    }

    fn send_away(&mut self, id: u64) {
        if let Some(guest) = self.guests.remove(&id)
            && let Some(about) = guest.about
        {
            self.brood.let_go(about, id);
        }
    }
}
