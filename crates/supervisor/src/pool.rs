//! All mounts of this daemon.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::eventfd::{EfdFlags, EventFd};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use volume::{
    Driver, Fault, FaultKind, LaunchRequest, Launched, MountKey, Released, Survivor, WorkerPool, WorkerReport,
};

use crate::crash::CrashRecord;
use crate::entries::{Entries, Entry, Handle};
use crate::fdstore::FdStore;
use crate::house::House;
use crate::keeper::{Command, Keeper, Mount, View, clean_away};
use crate::origin::Origin;
use crate::place::Place;
use crate::worker::Worker;
use crate::{Limits, Program, WorkerUser, adopt, clock};

/// How long a report may keep its reader.
const REPORT_PATIENCE: Duration = Duration::from_millis(700);

/// What a pool needs to know.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// The daemon's run directory; the pool's files are in `workers` below it.
    pub run_dir: PathBuf,
    /// What is executed as a worker.
    pub program: Program,
    /// Who workers run as; `None`: as the daemon itself (when that is not root).
    pub user: Option<WorkerUser>,
    /// Socket of the nursery that starts workers, which then decides on program and user. Its directory is made, for
    /// `user`.
    pub nursery: Option<PathBuf>,
    /// Value of NOTIFY_SOCKET, where a service manager gave one: keeps the connections.
    pub notify_socket: Option<OsString>,
    /// Bounds of waiting.
    pub limits: Limits,
}

/// Implements [`WorkerPool`] with one worker process and one watching thread per mount.
pub struct Pool {
    house: Arc<House>,
    entries: Arc<Mutex<Entries>>,
    survivors: watch::Sender<Option<Vec<(Driver, Survivor)>>>,
}

impl Pool {
    /// Makes the pool and begins to adopt what outlived the daemon's last life; [`WorkerPool::survivors`] waits for the
    /// end of that, which a worker that hangs can delay by some seconds. `inherited` are the named fds from the service
    /// manager that are not sockets.
    pub fn open(
        config: PoolConfig,
        inherited: Vec<host::inherited::InheritedFd>,
    ) -> Result<Arc<Pool>, Fault> {
        let directory = config.run_dir.join("workers");
        let fault = |detail: String| {
            Fault::new(FaultKind::Unavailable, "open worker pool", directory.display().to_string(), detail)
        };
        host::directory::ensure(&directory, 0o700).map_err(|error| fault(error.to_string()))?;
        let store = FdStore::new(config.notify_socket.as_ref()).map_err(|error| fault(error.to_string()))?;
        let origin = match config.nursery {
            Some(socket) => Origin::Nursery(socket),
            None => Origin::Fork { program: config.program, user: config.user },
        };
        origin.make_ready(config.user);
        let house = Arc::new(House { directory: directory.clone(), origin, limits: config.limits, store });
        let survivors = watch::Sender::new(None);
        let pool = Arc::new(Pool { house, entries: Arc::default(), survivors });
        let adopting = Arc::clone(&pool);
        let adopt = move || {
            let survivors = adopt::adopt_all(&adopting, inherited).unwrap_or_else(|error| {
                tracing::error!(%error, "what outlived the last daemon cannot be looked for");
                Vec::new()
            });
            adopting.survivors.send_replace(Some(survivors));
        };
        std::thread::Builder::new()
            .name("adopt".to_owned())
            .spawn(adopt)
            .map_err(|error| fault(error.to_string()))?;
        Ok(pool)
    }

    pub(crate) fn house(&self) -> &Arc<House> {
        &self.house
    }

    /// A keeper and its handle, not yet running.
    pub(crate) fn keeper(&self, place: Place, request: LaunchRequest) -> Result<(Keeper, Handle), Fault> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = EventFd::from_flags(flags).map_err(|errno| {
            Fault::new(FaultKind::ResourceExhausted, "watch", request.key.as_str(), errno.to_string())
        })?;
        let wake = Arc::new(wake);
        let (commands, receiver) = mpsc::channel();
        let released = place.is_released().then(clock::utc_now);
        let view = Arc::new(Mutex::new(View { released, ..View::default() }));
        let key = request.key.clone();
        let handle = Handle { commands, wake: Arc::clone(&wake), view: Arc::clone(&view) };
        let keeper = Keeper {
            house: Arc::clone(&self.house),
            place,
            request,
            view: Arc::clone(&view),
            commands: receiver,
            wake,
            crashes: CrashRecord::default(),
            token: None,
            predecessor: None,
            entry: Entry { entries: Arc::downgrade(&self.entries), key, view },
        };
        Ok((keeper, handle))
    }

    /// Watches an adopted mount from now on.
    pub(crate) fn take_on(
        &self,
        keeper: Keeper,
        handle: Handle,
        worker: Option<Worker>,
        mount: Mount,
    ) -> Result<(), Fault> {
        let key = keeper.request.key.clone();
        let entry = keeper.entry.clone();
        if keeper.place.is_released() {
            self.entries.lock().released.push((key.clone(), handle));
        } else {
            self.entries.lock().live.insert(key.clone(), handle);
        }
        start_thread(&key, move || {
            keeper.keep(worker, mount);
            entry.remove();
        })
    }

    fn handle(&self, key: &MountKey) -> Option<Handle> {
        self.entries.lock().live.get(key).cloned()
    }
}

fn start_thread(key: &MountKey, life: impl FnOnce() + Send + 'static) -> Result<(), Fault> {
    std::thread::Builder::new()
        .name(format!("keep {key}"))
        .stack_size(1024 * 1024)
        .spawn(life)
        .map(drop)
        .map_err(|error| Fault::new(FaultKind::ResourceExhausted, "watch", key.as_str(), error.to_string()))
}

#[async_trait]
impl WorkerPool for Pool {
    async fn launch(&self, request: LaunchRequest) -> Result<Launched, Fault> {
        let key = request.key.clone();
        let (mut keeper, handle) = self.keeper(Place::of(&self.house.directory, &key), request)?;
        {
            let live = &mut self.entries.lock().live;
            if let Some(current) = live.get(&key) {
                let given_up = current.view.lock().given_up.is_some();
                let detail = if given_up {
                    "the given-up mount must be stopped first"
                } else {
                    "it runs or is being made"
                };
                return Err(Fault::new(FaultKind::Busy, "launch worker", key.as_str(), detail));
            }
            live.insert(key.clone(), handle);
        }
        let (answer, answered) = oneshot::channel();
        let entry = keeper.entry.clone();
        let unstarted = entry.clone();
        let started = start_thread(&key, move || match keeper.launch() {
            Ok((mut worker, mount)) => {
                let launched = keeper.first_report(&mut worker);
                if answer.send(Ok(launched)).is_ok() {
                    keeper.keep(Some(worker), mount);
                } else {
                    // The caller gave up meanwhile and believes that nothing is there.
                    keeper.undo(worker, mount);
                }
                entry.remove();
            }
            Err(fault) => {
                entry.remove();
                // The caller may have gone; nothing is left either way.
                let _ = answer.send(Err(fault));
            }
        });
        if let Err(fault) = started {
            unstarted.remove();
            return Err(fault);
        }
        answered.await.unwrap_or_else(|_| {
            Err(Fault::new(
                FaultKind::Internal,
                "launch worker",
                key.as_str(),
                "its keeper ended; the log says why",
            ))
        })
    }

    async fn report(&self, key: &MountKey) -> Option<Result<WorkerReport, Fault>> {
        let handle = self.handle(key)?;
        if let Some(fault) = handle.view.lock().given_up.clone() {
            return Some(Err(fault));
        }
        let (reply, answer) = oneshot::channel();
        handle.send(Command::Report(reply));
        let fresh = tokio::time::timeout(REPORT_PATIENCE, answer).await;
        let view = handle.view.lock();
        if let Some(fault) = view.given_up.clone() {
            return Some(Err(fault));
        }
        Some(Ok(match fresh {
            Ok(Ok(report)) => report,
            // The worker is being replaced, or slow: what is known.
            Ok(Err(_)) | Err(_) => view.report.clone(),
        }))
    }

    async fn refresh(&self, key: &MountKey) -> Result<(), Fault> {
        let Some(handle) = self.handle(key) else {
            return Err(Fault::new(FaultKind::NotFound, "refresh", key.as_str(), "it is not mounted"));
        };
        let (reply, answer) = oneshot::channel();
        handle.send(Command::Refresh(reply));
        answer.await.unwrap_or_else(|_| {
            Err(Fault::new(FaultKind::Unavailable, "refresh", key.as_str(), "the mount went away meanwhile"))
        })
    }

    async fn stop(&self, key: &MountKey, mountpoint: &Path) -> Result<(), Fault> {
        if let Some(handle) = self.handle(key) {
            let (reply, answer) = oneshot::channel();
            handle.send(Command::Stop(reply));
            // No answer: the keeper had ended already, the mount is gone.
            if let Ok(Err(fault)) = answer.await {
                return Err(fault);
            }
            // It removes itself as well, but perhaps only after this answer.
            let live = &mut self.entries.lock().live;
            if live.get(key).is_some_and(|current| Arc::ptr_eq(&current.view, &handle.view)) {
                live.remove(key);
            }
        }
        let mountpoint = mountpoint.to_owned();
        let cleaned = tokio::task::spawn_blocking(move || clean_away(&mountpoint)).await;
        cleaned.map_err(|error| Fault::new(FaultKind::Internal, "unmount", key.as_str(), error.to_string()))
    }

    async fn survivors(&self, driver: Driver) -> Vec<Survivor> {
        let mut receiver = self.survivors.subscribe();
        let Ok(survivors) = receiver.wait_for(Option::is_some).await else { return Vec::new() };
        let of_driver = survivors.iter().flatten().filter(|(of, _)| *of == driver);
        of_driver.map(|(_, survivor)| survivor.clone()).collect()
    }

    async fn released(&self) -> Vec<Released> {
        let handles = self.entries.lock().released.clone();
        let show = |(key, handle): (MountKey, Handle)| {
            let view = handle.view.lock();
            Released {
                key,
                since: view.released.clone().unwrap_or_default(),
                worker_pid: (view.report.pid != 0).then_some(view.report.pid),
                restarts: view.report.restarts,
                trouble: view.report.trouble.clone(),
            }
        };
        handles.into_iter().map(show).collect()
    }
}
