//! One mount's life as the daemon sees it: a thread that launches its worker, watches it, starts a new one when it dies, and
//! takes the mount down.
//!
//! A thread and not a task: mounting, and everything that touches a mount or a worker, can hang in the kernel, and
//! must then hang nothing but this one mount.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::EventFd;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use volume::{Fault, FaultKind, LaunchRequest, Launched, WorkerReport};

use crate::crash::{CrashRecord, Verdict};
use crate::entries::Entry;
use crate::house::House;
use crate::link;
use crate::nursery::NurseryLink;
use crate::origin::{Berth, Names, Origin};
use crate::place::Place;
use crate::process::Ending;
use crate::protocol::{Reply, Request};
use crate::waiting::Waited;
use crate::watch::{Event, Watch};
use crate::worker::{StartError, Worker};
use crate::{WorkerUser, mounted, reach};

/// What the pool asks of a keeper.
#[derive(Debug)]
pub(crate) enum Command {
    /// The newest report.
    Report(oneshot::Sender<WorkerReport>),
    /// Look for changes now.
    Refresh(oneshot::Sender<Result<(), Fault>>),
    /// Unmount and end.
    Stop(oneshot::Sender<Result<(), Fault>>),
}

/// What anybody can see of a mount without waiting for its keeper.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// The newest report, with the pool's own values in it.
    pub(crate) report: WorkerReport,
    /// Set when the mount was given up.
    pub(crate) given_up: Option<Fault>,
    /// When it was released, if it was: see [`crate::released`].
    pub(crate) released: Option<String>,
}

/// The keeper's thread-local state.
pub(crate) struct Keeper {
    pub(crate) house: Arc<House>,
    pub(crate) place: Place,
    pub(crate) request: LaunchRequest,
    pub(crate) view: Arc<Mutex<View>>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) wake: Arc<EventFd>,
    pub(crate) crashes: CrashRecord,
    /// The nursery's name for the newest worker, by which the next one inherits.
    pub(crate) token: Option<String>,
    /// Serves until a worker of this version can be started.
    pub(crate) predecessor: Option<Box<Worker>>,
    /// Its own place among the mounts of the pool.
    pub(crate) entry: Entry,
}

/// A mount with its connection.
pub(crate) struct Mount {
    pub(crate) connection: fuse::Connection,
    pub(crate) state: File,
}

impl Keeper {
    /// Makes a new mount. On an error nothing is left of it.
    pub(crate) fn launch(&mut self) -> Result<(Worker, Mount), Fault> {
        let result = self.launch_steps();
        if result.is_err() {
            self.place.remove();
        }
        result
    }

    fn launch_steps(&mut self) -> Result<(Worker, Mount), Fault> {
        let berth = self.first_berth()?;
        let host = |error| StartError::Host("make the state file", error).into_fault(&self.request);
        let state = self.place.create_state().map_err(host)?;
        let mut worker = self.start(berth, false).map_err(|error| error.into_fault(&self.request))?;
        let mut options = fuse::MountOptions::new(&self.request.mountpoint, &self.request.fs_name);
        options.suid = self.request.suid;
        let connection = match fuse::Connection::mount(&options) {
            Ok(connection) => connection,
            Err(error) => {
                worker.end();
                return Err(mount_fault(&self.request, &error));
            }
        };
        if let Err(error) = worker.serve(&self.place, &connection, &state, false) {
            mounted::abort(connection.device_number());
            mounted::detach(&self.request.mountpoint);
            worker.end();
            return Err(error.into_fault(&self.request));
        }
        self.house.store.store(&self.label(), connection.as_fd());
        Ok((worker, Mount { connection, state }))
    }

    /// Starts a worker with all that it needs, and lets it prepare.
    fn start(&mut self, berth: Berth, offline: bool) -> Result<Worker, StartError> {
        self.provide(berth.user())?;
        let names = Names { token: berth.token(), heir_of: self.token.take() };
        self.token.clone_from(&names.token);
        Worker::start(&self.house, &self.place, &self.request, berth, &names, offline)
    }

    /// Directories of the worker's own, and the way to what it reads.
    fn provide(&self, user: Option<WorkerUser>) -> Result<(), StartError> {
        let host = |what: &'static str| move |error| StartError::Host(what, error);
        for directory in &self.request.writable {
            reach::provide_directory(directory, user).map_err(host("make the worker's directory"))?;
        }
        let Some(user) = user else { return Ok(()) };
        for path in self.request.readable.iter().filter(|path| path.exists()) {
            reach::open_way(path, user).map_err(host("open the way to what the worker reads"))?;
        }
        Ok(())
    }

    /// The first report of a fresh worker.
    pub(crate) fn first_report(&self, worker: &mut Worker) -> Launched {
        if let Ok((Reply::Report(report), _)) = worker.control.ask(Request::Report, &[], 0, link::PROMPT) {
            self.note_report(*report, worker.process.pid());
        }
        Launched { key: self.request.key.clone(), report: self.view.lock().report.clone() }
    }

    /// Keeps the mount until it is taken down (also by others) or the pool lets go of it. `worker` is `None` when the
    /// mount comes from the fd store and its worker is dead.
    pub(crate) fn keep(mut self, worker: Option<Worker>, mount: Mount) {
        let mut current = worker;
        let mut berth = None;
        loop {
            let worker = match current.take() {
                Some(worker) => worker,
                None => match self.revive(&mount, berth.take()) {
                    Ok(worker) => worker,
                    Err(Waited::InVain(fault)) => return self.give_up(mount, fault),
                    Err(Waited::Gone) => return self.forget(),
                    Err(Waited::PoolGone) => return,
                    Err(Waited::Stop(reply)) => match self.unmount() {
                        Ok(()) if self.release(&mount) => {
                            let _ = reply.send(Ok(()));
                            continue;
                        }
                        Ok(()) => {
                            self.finish(None, mount);
                            let _ = reply.send(Ok(()));
                            return;
                        }
                        Err(fault) => {
                            let _ = reply.send(Err(fault));
                            continue;
                        }
                    },
                },
            };
            let mut watch = Watch::new(&self, worker, &mount);
            match watch.run() {
                Event::Died => {
                    let worker = watch.into_worker();
                    let served = worker.serving_since.map(|since| since.elapsed());
                    let ending = worker.end();
                    if mounted::is_gone(&mount.connection) {
                        tracing::info!(key = %self.request.key, "the mount was taken down from outside");
                        return self.forget();
                    }
                    self.note_death(ending);
                    match self.crashes.note(served, ending, Instant::now()) {
                        Verdict::Again(pause) => std::thread::sleep(pause),
                        Verdict::GiveUp(deaths) => {
                            let fault = self.too_many_deaths(deaths, &ending.to_string());
                            return self.give_up(mount, fault);
                        }
                    }
                }
                // It came twice: the mountpoint may belong to another mount by now.
                Event::Stop(reply) if self.place.is_released() => {
                    let _ = reply.send(Ok(()));
                    current = Some(watch.into_worker());
                }
                Event::Stop(reply) => {
                    let worker = watch.into_worker();
                    match self.unmount() {
                        Ok(()) if self.release(&mount) => {
                            let _ = reply.send(Ok(()));
                            current = Some(worker);
                        }
                        Ok(()) => {
                            self.finish(Some(worker), mount);
                            // Nobody may wait for the answer any more.
                            let _ = reply.send(Ok(()));
                            return;
                        }
                        Err(fault) => {
                            let _ = reply.send(Err(fault));
                            current = Some(worker);
                        }
                    }
                }
                Event::Move(to) => {
                    let worker = watch.into_worker();
                    tracing::info!(key = %self.request.key, pid = worker.process.pid(),
                        "the worker's nursery has gone or will go; another worker takes over in the new one");
                    worker.retire();
                    berth = Some(to);
                }
                Event::PoolGone => return watch.into_worker().leave(),
            }
        }
    }

    /// Starts a worker for a mount that has none, in the given berth if there is one.
    fn revive(&mut self, mount: &Mount, mut berth: Option<Berth>) -> Result<Worker, Waited> {
        loop {
            if mounted::is_gone(&mount.connection) {
                return Err(Waited::Gone);
            }
            let berth = match berth.take() {
                Some(berth) => berth,
                None => self.next_berth(mount)?,
            };
            if let Some(predecessor) = self.predecessor.take() {
                predecessor.retire();
            }
            let began = Instant::now();
            let started = self.start(berth, true).and_then(|mut worker| {
                match worker.serve(&self.place, &mount.connection, &mount.state, true) {
                    Ok(()) => Ok(worker),
                    Err(error) => {
                        worker.end();
                        Err(error)
                    }
                }
            });
            match started {
                Ok(mut worker) => {
                    self.view.lock().report.restarts += 1;
                    let launched = self.first_report(&mut worker);
                    tracing::info!(key = %self.request.key, pid = worker.process.pid(),
                        restarts = launched.report.restarts, took_ms = began.elapsed().as_millis(),
                        "a new worker has taken the mount over");
                    return Ok(worker);
                }
                // It had been there a moment ago: waited for, and no crash.
                Err(StartError::Nursery(error)) => self.lost_berth(&error),
                Err(error) => {
                    tracing::warn!(key = %self.request.key, %error, "a new worker could not take the mount over");
                    match self.crashes.note(None, error.ending(), Instant::now()) {
                        Verdict::Again(pause) => std::thread::sleep(pause),
                        Verdict::GiveUp(deaths) => {
                            return Err(Waited::InVain(self.too_many_deaths(deaths, &error.to_string())));
                        }
                    }
                }
            }
        }
    }

    /// Merges a worker's report into the view.
    pub(crate) fn note_report(&self, mut report: WorkerReport, pid: i32) {
        if let Origin::Nursery(path) = &self.house.origin {
            report.details.insert("nursery".to_owned(), path.display().to_string());
        }
        let mut view = self.view.lock();
        let (restarts, death) = (view.report.restarts, view.report.last_error.take());
        view.report = WorkerReport { pid, restarts, ..report };
        if view.report.last_error.is_none() {
            view.report.last_error = death;
        }
    }

    fn note_death(&self, ending: Ending) {
        tracing::warn!(key = %self.request.key, %ending, "a worker died; a new one takes over");
        let mut view = self.view.lock();
        view.report.pid = 0;
        view.report.trouble = Some(format!("its worker {ending}; a new one is being started"));
        view.report.last_error = Some(format!("{}: the worker {ending}", crate::clock::utc_now()));
    }

    fn too_many_deaths(&self, deaths: usize, last: &str) -> Fault {
        Fault::new(
            FaultKind::Unavailable,
            "serve",
            self.request.key.as_str(),
            format!(
                "given up after {deaths} failed starts of its worker within a minute; the last: {last}. \
                 The log has the reasons; the next use of the volume mounts it anew"
            ),
        )
    }

    /// For the watch: how long until poll must return.
    pub(crate) fn poll(&self, worker: &Worker, until: Instant) -> nix::Result<()> {
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let mut polled = vec![
            PollFd::new(worker.process.pidfd(), PollFlags::POLLIN),
            PollFd::new(worker.control.fd(), PollFlags::POLLIN),
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
        ];
        let nursery = worker.process.nursery().and_then(NurseryLink::fd);
        polled.extend(nursery.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match nix::poll::poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

fn mount_fault(request: &LaunchRequest, error: &fuse::MountError) -> Fault {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    let kind = match error {
        fuse::MountError::Device(_) => FaultKind::Unsupported,
        fuse::MountError::Option(_) => FaultKind::InvalidArgument,
        fuse::MountError::Mount { .. } | fuse::MountError::Handshake { .. } => FaultKind::Unavailable,
    };
    Fault::new(kind, "mount", request.key.as_str(), format!("{error}{source}"))
}

/// Cleans a mount away that nobody keeps.
pub(crate) fn clean_away(mountpoint: &Path) {
    if let Some(device) = mounted::device_at(mountpoint) {
        mounted::abort(Some(device));
        mounted::detach(mountpoint);
        tracing::info!(mountpoint = %mountpoint.display(), "a dead mount was cleaned away");
    }
}
