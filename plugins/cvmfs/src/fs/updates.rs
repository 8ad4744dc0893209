//! New revisions, and what the kernel must forget then.
//!
//! Each repository that follows its newest revision has a task that looks for one when the time to live has passed, and
//! when asked to. When one comes, the snapshot has been swapped already: lookups answer from the new revision. Then one
//! thread, `cvmfs-forget`, compares the two and tells the kernel which names and attributes to drop. It is a thread
//! because the kernel lets that wait for lookups in the same directory, which the session answers meanwhile. What did
//! not change stays cached; open files and listings keep what they opened.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuse::{NodeId, Notifier};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use volume::{Fault, FaultKind};

use super::filesystem::Shared;
use super::identity;
use super::place::Place;
use super::served::Served;
use super::state::State;
use crate::client::catalog::{Kind, Tried};
use crate::client::repository::Resume;
use crate::client::snapshot::Snapshot;
use crate::client::update::{Change, Update, What};

/// Updates that wait for the kernel to be told of earlier ones.
const QUEUE: usize = 64;
/// The least time between two looks, whatever a repository or a clock says.
const PAUSE_MIN: Duration = Duration::from_secs(1);

type Asked = oneshot::Sender<Result<(), Fault>>;
type Work = (Arc<Served>, Update);

/// Follows repositories.
pub(crate) struct Updates {
    runtime: Handle,
    queue: Mutex<Option<mpsc::Sender<Work>>>,
    waiting: Mutex<Option<mpsc::Receiver<Work>>>,
    followed: Mutex<Vec<(mpsc::Sender<Asked>, AbortHandle)>>,
}

impl Updates {
    pub(crate) fn new(runtime: Handle) -> Arc<Updates> {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = Mutex::new(Some(waiting));
        let queue = Mutex::new(Some(queue));
        Arc::new(Updates { runtime, queue, waiting, followed: Mutex::default() })
    }

    /// Looks for new revisions of this repository from now on.
    pub(crate) fn follow(&self, served: &Arc<Served>) {
        let Some(queue) = self.queue.lock().clone() else { return };
        let (asks, asked) = mpsc::channel(1);
        let task = self.runtime.spawn(follow(Arc::clone(served), asked, queue));
        self.followed.lock().push((asks, task.abort_handle()));
    }

    /// Looks for a new revision of every repository now. The first fault, if there is one, after all were asked.
    pub(crate) async fn refresh(&self) -> Result<(), Fault> {
        let followed: Vec<_> = self.followed.lock().iter().map(|(asks, _)| asks.clone()).collect();
        let mut answers = Vec::with_capacity(followed.len());
        for asks in followed {
            let (answer, answered) = oneshot::channel();
            // A closed queue is a repository that is being let go.
            if asks.send(answer).await.is_ok() {
                answers.push(answered);
            }
        }
        let mut outcome = Ok(());
        for answered in answers {
            let gone = || Fault::new(FaultKind::Cancelled, "refresh", "", "the worker is stopping");
            let result = answered.await.unwrap_or_else(|_| Err(gone()));
            outcome = outcome.and(result);
        }
        outcome
    }

    /// Starts the thread that tells the kernel. It ends after [`stop`](Self::stop) and
    /// [`end_telling`](Self::end_telling).
    pub(crate) fn tell(&self, shared: Arc<Shared>, notifier: Notifier) -> std::io::Result<JoinHandle<()>> {
        let waiting = self.waiting.lock().take();
        let runtime = self.runtime.clone();
        std::thread::Builder::new().name("cvmfs-forget".to_owned()).spawn(move || {
            let Some(mut waiting) = waiting else { return };
            while let Some((served, update)) = waiting.blocking_recv() {
                let kernel = Kernel { shared: &shared, served: &served, notifier: &notifier };
                runtime.block_on(kernel.forget(&update));
            }
        })
    }

    /// Lets the telling thread end when what was found is told, and no task of a repository is left.
    pub(crate) fn end_telling(&self) {
        self.queue.lock().take();
    }

    /// No more looks. What was found is still told.
    pub(crate) fn stop(&self) {
        for (_, task) in self.followed.lock().drain(..) {
            task.abort();
        }
    }
}

async fn follow(served: Arc<Served>, mut asked: mpsc::Receiver<Asked>, queue: mpsc::Sender<Work>) {
    loop {
        let next = served.repository.next_refresh();
        let due = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.max(Instant::now() + PAUSE_MIN).into()).await,
                None => std::future::pending().await,
            }
        };
        let asker = tokio::select! {
            () = due => None,
            asker = asked.recv() => match asker {
                Some(asker) => Some(asker),
                None => return,
            },
        };
        let result = look(&served, &queue).await;
        if let Some(asker) = asker {
            let _ = asker.send(result);
        }
    }
}

async fn look(served: &Arc<Served>, queue: &mpsc::Sender<Work>) -> Result<(), Fault> {
    match served.repository.refresh().await {
        Ok(found) => {
            if let Some(update) = found {
                let (old, new) = (update.old.revision(), update.new.revision());
                tracing::info!(repository = served.name(), old, new, "new revision");
                let _ = queue.send((Arc::clone(served), update)).await;
            }
            Ok(())
        }
        Err(fault) => {
            tracing::warn!(repository = served.name(), %fault, "no look at the newest revision");
            Err(fault)
        }
    }
}

/// Records the revision that is served, for the next worker.
pub(crate) fn keep_revision(state: &State, repository: &str, snapshot: &Snapshot) {
    let resume = Resume { root: snapshot.root().clone(), revision: snapshot.revision() };
    let kept = serde_json::to_vec(&resume).map_err(std::io::Error::other);
    if let Err(error) = kept.and_then(|text| state.set_note(&note_name(repository), &text)) {
        tracing::warn!(repository, %error, "the revision that is served was not recorded");
    }
}

/// The revision that an earlier worker served.
pub(crate) fn kept_revision(state: &State, repository: &str) -> Option<Resume> {
    serde_json::from_slice(&state.note(&note_name(repository))?).ok()
}

/// The repositories of which a revision is recorded.
pub(crate) fn kept_repositories(state: &State) -> Vec<String> {
    let names = state.note_names();
    let ours = names.iter().filter_map(|name| name.strip_prefix(NOTE));
    ours.filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
}

/// What the names of these notes begin with.
const NOTE: &[u8] = b"revision of ";

fn note_name(repository: &str) -> Vec<u8> {
    [NOTE, repository.as_bytes()].concat()
}

/// What the kernel knows of a repository.
struct Kernel<'a> {
    shared: &'a Shared,
    served: &'a Arc<Served>,
    notifier: &'a Notifier,
}

impl Kernel<'_> {
    /// Has the kernel forget what an update changed.
    async fn forget(&self, update: &Update) {
        let places = self.shared.state.catalogs();
        let places = places.iter().filter_map(|name| Place::decode(name));
        let ours = places.filter(|place| place.repository == self.served.name());
        let known: Vec<_> = ours.map(|place| place.catalog).collect();
        let mut listing = None;
        let mut sink = |change: Change| self.change(update, &change, &mut listing);
        if let Err(error) = update.changes(&known, &mut sink).await {
            tracing::warn!(repository = self.served.name(), %error, "what changed is not known; the kernel forgets all");
            self.all();
        }
        // From here on the next worker may begin with the new revision. Before, it compares once more.
        keep_revision(&self.shared.state, self.served.name(), &update.new);
    }

    /// `listing` is the directory whose listing was dropped last.
    fn change(&self, update: &Update, change: &Change, listing: &mut Option<u64>) {
        let state = &self.shared.state;
        let path = match change.name.is_empty() {
            true => Vec::new(),
            false => [&change.parent[..], b"/", &change.name].concat(),
        };
        if change.what == What::Attributes || change.name.is_empty() {
            if let Some(node) = self.known(update, &path) {
                self.told(self.notifier.inval_inode_attrs(NodeId(node)));
                return;
            }
            if change.name.is_empty() {
                return;
            }
        }
        let Some(parent) = self.served.known_directory(state, &change.parent) else { return };
        self.told(self.notifier.inval_entry(NodeId(parent), OsStr::from_bytes(&change.name)));
        if *listing != Some(parent) {
            *listing = Some(parent);
            self.told(self.notifier.inval_inode_data(NodeId(parent)));
        }
    }

    /// The node of an entry whose content is the same in both revisions, if the kernel has it.
    fn known(&self, update: &Update, path: &[u8]) -> Option<u64> {
        let state = &self.shared.state;
        if let Some(directory) = self.served.known_directory(state, path) {
            return Some(directory);
        }
        let Ok(Tried::Ready(Some(located))) = update.new.try_lookup(path) else { return None };
        if located.dirent.link_group != 0 {
            // Its node may be recorded under a name that is gone: only a lookup of this one finds its new attributes.
            return None;
        }
        let chunks = match &located.dirent.kind {
            Kind::Regular(content) if content.chunked => {
                let catalogs = self.served.repository.catalogs();
                match catalogs.try_chunks(&located.catalog, path, content) {
                    Ok(Tried::Ready(chunks)) => chunks,
                    Ok(Tried::NeedsCatalog(_)) | Err(_) => return None,
                }
            }
            _ => Vec::new(),
        };
        state.known(identity::entry(self.served.name(), path, &located, &chunks))
    }

    /// Has the kernel forget all names and attributes of the repository.
    fn all(&self) {
        self.shared.state.each(|id, path, place| {
            if Place::decode(place).is_none_or(|place| place.repository != self.served.name()) {
                return;
            }
            self.told(self.notifier.inval_inode_data(NodeId(id)));
            if let Some(slash) = path.iter().rposition(|byte| *byte == b'/')
                && let Some(parent) = self.served.known_directory(&self.shared.state, &path[..slash])
            {
                self.told(self.notifier.inval_entry(NodeId(parent), OsStr::from_bytes(&path[slash + 1..])));
            }
        });
        if self.served.is_root {
            self.told(self.notifier.inval_inode_data(NodeId::ROOT));
        }
    }

    fn told(&self, result: std::io::Result<()>) {
        if let Err(error) = result {
            tracing::debug!(%error, "the kernel was not told of a change");
        }
    }
}
