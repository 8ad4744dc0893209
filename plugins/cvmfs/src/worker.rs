//! A worker's part: from the payload to a served mount.
//!
//! [`prepare`] verifies what is to be served, so that a repository that cannot be never leaves a mount; [`Prepared::serve`]
//! takes the mount over. On adoption of a live mount nothing is asked of a server before the mount is served: the
//! repository goes on at the revision that the state file names.
//!
//! Threads: `cvmfs-io-*` run fetches and whatever waits, `cvmfs-forget` tells the kernel of changes; the session has its
//! own. Both methods may be called from any thread, also from those of another runtime.

mod opening;
mod report;

use std::fs::File;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fuse::{Backings, Connection, Session, SessionConfig};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use volume::{Fault, FaultKind, WorkerReport};

use self::opening::Site;
use crate::client::cache::{Cache, CacheConfig};
use crate::fs::state::State;
use crate::fs::{
    All, CvmfsFs, Requests, Served, Shared, Tree, Updates, keep_revision, kept_repositories, kept_revision,
};
use crate::payload::{Kind, Payload};

/// The session's own deadline comes after that of the requests, for what got lost.
const BACKSTOP: Duration = Duration::from_secs(5);
/// Opening a repository takes a few fetches, one after the other: so many deadlines of one request.
const PREPARE_DEADLINES: u32 = 4;
/// How long [`Serving::refresh`] waits for its answer.
const REFRESH_PATIENCE: Duration = Duration::from_secs(60);

/// What a mount hands to the one who serves it.
pub struct ServeContext {
    /// The FUSE connection; INIT is done.
    pub connection: Connection,
    /// Another worker served it before.
    pub adopted: bool,
    /// The state file of the mount: see [`crate::fs::state`].
    pub state: File,
    /// Registers files for passthrough.
    pub backings: Arc<dyn Backings>,
}

/// Verified and open, not served yet.
pub struct Prepared {
    payload: Payload,
    runtime: Running,
    site: Arc<Site>,
    /// The repository; `None` when it is opened later: all of them, and on adoption.
    served: Option<Arc<Served>>,
}

/// Verifies and opens what the payload describes. With `offline` a server that cannot be reached is no reason to fail.
///
/// # Errors
/// The payload is none, the configuration has a value that makes no sense, the cache directory is not safe to use, or the
/// repository cannot be reached or verified.
pub fn prepare(payload: serde_json::Value, offline: bool) -> Result<Prepared, Fault> {
    let payload: Payload = serde_json::from_value(payload).map_err(|error| {
        Fault::new(FaultKind::InvalidArgument, "read payload", "worker", error.to_string())
    })?;
    let runtime = Running::start()?;
    let quota = opening::quota(&payload)?;
    let cache = Cache::open(CacheConfig::new(&payload.cache_dir, quota)).map_err(|error| {
        Fault::new(
            FaultKind::Unsupported,
            "open cache",
            payload.cache_dir.display().to_string(),
            error.to_string(),
        )
    })?;
    let site = Arc::new(Site::new(cache, payload.owner, payload.deadline(), runtime.handle().clone()));
    let served = match &payload.kind {
        Kind::One(setup) if !offline => {
            let patience = PREPARE_DEADLINES * payload.deadline();
            let opening = async {
                let opened = tokio::time::timeout(patience, site.open(setup, false, None, true)).await;
                opened.unwrap_or_else(|_| {
                    let detail = format!("not opened within {} s", patience.as_secs());
                    Err(Fault::new(FaultKind::DeadlineExceeded, "open repository", &setup.repository, detail))
                })
            };
            Some(runtime.block_on(opening)?)
        }
        Kind::One(setup) => {
            // What cannot be right later either.
            site.check(setup)?;
            None
        }
        Kind::All(_) => None,
    };
    Ok(Prepared { payload, runtime, site, served })
}

impl Prepared {
    /// Serves the mount until it is unmounted or [`Serving::stop`] is called.
    ///
    /// # Errors
    /// The state file is not ours or cannot be used, threads cannot be started, or, on adoption, nothing is known of
    /// the repository and no server answers.
    pub fn serve(self, context: ServeContext) -> Result<Serving, Fault> {
        let Prepared { payload, runtime, site, served } = self;
        let fault = |op: &str, error: &dyn std::fmt::Display| {
            Fault::new(FaultKind::Internal, op, "worker", error.to_string())
        };
        let state = if context.adopted {
            let (state, loaded) =
                State::open(context.state).map_err(|error| fault("read the mount's state", &error))?;
            tracing::info!(nodes = loaded.nodes, torn = loaded.torn, "mount adopted");
            state
        } else {
            State::create(context.state).map_err(|error| fault("make the mount's state", &error))?
        };
        let updates = Updates::new(runtime.handle().clone());
        let tree = match &payload.kind {
            Kind::One(setup) => {
                let served = match served {
                    Some(served) => served,
                    None => {
                        let resume = kept_revision(&state, &setup.repository);
                        runtime.block_on(site.open(setup, true, resume, true))?
                    }
                };
                keep_revision(&state, served.name(), &served.repository.snapshot());
                updates.follow(&served);
                Tree::One(served)
            }
            Kind::All(setup) => {
                let opener = opening::AllOpener::new(Arc::clone(&site), setup.clone());
                let follower = Arc::clone(&updates);
                Tree::All(All::new(Arc::new(opener), move |served| follower.follow(served)), payload.owner)
            }
        };
        let requests = Requests::new(runtime.handle().clone(), payload.deadline());
        let cache = Arc::clone(site.cache());
        let shared = Arc::new(Shared::new(tree, state, requests, Arc::clone(&cache), context.backings));
        let config = SessionConfig {
            threads: (2 * opening::cores()).clamp(4, 16),
            deadline: payload.deadline() + BACKSTOP,
            resend: context.adopted,
        };
        let fs = Arc::new(CvmfsFs { shared: Arc::clone(&shared) });
        let session = Session::start(fs, context.connection, config)
            .map_err(|error| fault("start the FUSE session", &error))?;
        if let Tree::All(..) = shared.tree {
            runtime.handle().spawn(reopen(Arc::clone(&shared)));
        }
        let teller = updates
            .tell(Arc::clone(&shared), session.notifier())
            .map_err(|error| fault("start a thread", &error))?;
        Ok(Serving { shared, session, updates, cache, teller: Mutex::new(Some(teller)), runtime })
    }
}

/// Opens the repositories that an earlier worker had open: the kernel has names of them cached, and has to be told when
/// they change although it asks for nothing.
async fn reopen(shared: Arc<Shared>) {
    let Tree::All(all, _) = &shared.tree else { return };
    for name in kept_repositories(&shared.state) {
        if let Err(error) = all.get(&name, &shared.state).await {
            tracing::warn!(repository = name, %error, "repository not opened again");
        }
    }
}

/// A mount that is served.
pub struct Serving {
    shared: Arc<Shared>,
    session: Session,
    updates: Arc<Updates>,
    cache: Arc<Cache>,
    teller: Mutex<Option<JoinHandle<()>>>,
    runtime: Running,
}

impl Serving {
    /// How it is now. Answers at once, without network.
    pub fn report(&self) -> WorkerReport {
        report::of(&self.shared)
    }

    /// Looks for a new revision now.
    ///
    /// # Errors
    /// The server is down, what it offers does not verify, or there is no answer within a minute. The old revision goes
    /// on being served.
    pub fn refresh(&self) -> Result<(), Fault> {
        let updates = Arc::clone(&self.updates);
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        self.runtime.handle().spawn(async move {
            let _ = answer.send(updates.refresh().await);
        });
        answered.recv_timeout(REFRESH_PATIENCE).unwrap_or_else(|_| {
            let detail = format!("no answer within {} s", REFRESH_PATIENCE.as_secs());
            Err(Fault::new(FaultKind::DeadlineExceeded, "refresh", "", detail))
        })
    }

    /// Ends the serving: no new requests are read, those in flight are answered, bounded. The mount stays for the next
    /// worker.
    pub fn stop(&self) {
        self.updates.stop();
        self.session.stop();
        self.cache.leave();
    }

    /// Returns when the kernel has closed the connection (unmounted), or after [`stop`](Self::stop).
    pub fn wait(&self) {
        self.session.wait();
        self.updates.stop();
        // The process may end without dropping anything.
        self.cache.leave();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.updates.stop();
        self.updates.end_telling();
        // It may be waiting for the kernel, which waits for lookups that only the next worker answers.
        if let Some(teller) = self.teller.lock().take()
            && teller.is_finished()
        {
            let _ = teller.join();
        }
    }
}

/// The runtime. Dropped, it ends without waiting for what is under way.
struct Running(Option<Runtime>);

impl Running {
    fn start() -> Result<Running, Fault> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(opening::cores().clamp(2, 8))
            .max_blocking_threads(32)
            .thread_name("cvmfs-io")
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| {
            Fault::new(FaultKind::ResourceExhausted, "start threads", "worker", error.to_string())
        })?;
        Ok(Running(Some(runtime)))
    }

    fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("it is there until it is dropped").handle()
    }

    /// On a thread of its own, as the caller's may belong to another runtime.
    fn block_on<T: Send>(&self, work: impl Future<Output = Result<T, Fault>> + Send) -> Result<T, Fault> {
        let handle = self.handle();
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("cvmfs-open".to_owned());
            let joined = thread.spawn_scoped(scope, || handle.block_on(work)).map(|thread| thread.join());
            let broken = |detail: &str| Fault::new(FaultKind::Internal, "open repository", "worker", detail);
            match joined {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(broken("a panic; see the log")),
                Err(error) => Err(broken(&error.to_string())),
            }
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
