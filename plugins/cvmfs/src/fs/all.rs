//! All of /cvmfs in one tree: a directory for each repository, opened when somebody looks.
//!
//! A name that is no repository, or that nobody configured, is absent at once. One that could not be opened is
//! remembered for a while, so that a shell that completes names or a program that tries again and again costs no
//! network. Each repository stands for itself: it opens, updates and fails without the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use volume::{Fault, FaultKind};

use super::error::FsError;
use super::served::Served;
use super::state::State;
use super::updates;
use crate::client::repository::Resume;

/// How long a repository that does not exist is not asked for again; also what the kernel is told.
pub(crate) const ABSENT_FOR: Duration = Duration::from_secs(30);
/// How long one that could not be reached or verified is not tried again.
const BROKEN_FOR: Duration = Duration::from_secs(15);
/// Most names remembered.
const NAMES_MAX: usize = 4096;
/// Most repositories opened at once.
const OPENING_MAX: usize = 16;

/// Opens repositories by name.
#[async_trait]
pub(crate) trait Opener: Send + Sync {
    /// Names that a listing shows although nobody opened them.
    fn configured(&self) -> Vec<String>;
    /// Whether the name has a form and a configuration that make sense; decided without network.
    fn check(&self, name: &str) -> Result<(), Fault>;
    /// Opens; with `resume` at the revision that an earlier worker served, without asking the server.
    async fn open(&self, name: &str, resume: Option<Resume>) -> Result<Arc<Served>, Fault>;
}

struct Failure {
    until: Instant,
    absent: bool,
    text: String,
}

type Slot = OnceCell<Result<Arc<Served>, Failure>>;

type Opened = Box<dyn Fn(&Arc<Served>) + Send + Sync>;

/// The repositories of the tree.
pub(crate) struct All {
    opener: Arc<dyn Opener>,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    opening: Semaphore,
    opened: Opened,
}

impl All {
    /// `opened` is called once for each repository after it opened.
    pub(crate) fn new(opener: Arc<dyn Opener>, opened: impl Fn(&Arc<Served>) + Send + Sync + 'static) -> All {
        All {
            opener,
            slots: Mutex::default(),
            opening: Semaphore::new(OPENING_MAX),
            opened: Box::new(opened),
        }
    }

    /// The repository, opened now if it is not open. `Ok(None)`: there is none of that name.
    pub(crate) async fn get(&self, name: &str, state: &State) -> Result<Option<Arc<Served>>, FsError> {
        loop {
            let known = self.slots.lock().get(name).cloned();
            let slot = match known {
                Some(slot) => slot,
                None => {
                    // Names without configuration take no slot.
                    if let Err(fault) = self.opener.check(name) {
                        tracing::debug!(name, %fault, "no such repository");
                        return Ok(None);
                    }
                    self.slot(name)?
                }
            };
            let outcome = slot.get_or_init(|| self.open(name, state)).await;
            match outcome {
                Ok(served) => return Ok(Some(Arc::clone(served))),
                Err(failure) if Instant::now() < failure.until && failure.absent => return Ok(None),
                Err(failure) if Instant::now() < failure.until => {
                    return Err(FsError::Repository(failure.text.clone()));
                }
                Err(_) => {
                    let mut slots = self.slots.lock();
                    if slots.get(name).is_some_and(|now| Arc::ptr_eq(now, &slot)) {
                        slots.remove(name);
                    }
                }
            }
        }
    }

    fn slot(&self, name: &str) -> Result<Arc<Slot>, FsError> {
        let mut slots = self.slots.lock();
        if slots.len() >= NAMES_MAX {
            slots.retain(|_, slot| !matches!(slot.get(), Some(Err(_))));
        }
        if slots.len() >= NAMES_MAX {
            return Err(FsError::Refused(NAMES_MAX));
        }
        Ok(Arc::clone(slots.entry(name.to_owned()).or_default()))
    }

    async fn open(&self, name: &str, state: &State) -> Result<Arc<Served>, Failure> {
        let _turn = self.opening.acquire().await;
        match self.opener.open(name, updates::kept_revision(state, name)).await {
            Ok(served) => {
                updates::keep_revision(state, name, &served.repository.snapshot());
                (self.opened)(&served);
                Ok(served)
            }
            Err(fault) => {
                let absent = matches!(fault.kind, FaultKind::NotFound | FaultKind::InvalidArgument);
                let wait = if absent { ABSENT_FOR } else { BROKEN_FOR };
                tracing::warn!(repository = name, %fault, "repository not opened");
                Err(Failure { until: Instant::now() + wait, absent, text: fault.to_string() })
            }
        }
    }

    /// Those that are open.
    pub(crate) fn open_ones(&self) -> Vec<Arc<Served>> {
        let slots = self.slots.lock();
        slots.values().filter_map(|slot| slot.get()?.as_ref().ok().cloned()).collect()
    }

    /// Why repositories are not open that somebody asked for.
    pub(crate) fn failures(&self) -> Vec<String> {
        let now = Instant::now();
        let slots = self.slots.lock();
        let failed = slots.values().filter_map(|slot| slot.get()?.as_ref().err());
        failed.filter(|failure| now < failure.until && !failure.absent).map(|f| f.text.clone()).collect()
    }

    /// What a listing shows, by cookie. A cookie is a digest of the name, so that a repository that opens while a
    /// listing is under way moves no other.
    pub(crate) fn names(&self) -> BTreeMap<u64, String> {
        let mut names = self.opener.configured();
        names.extend(self.open_ones().iter().map(|served| served.name().to_owned()));
        names.into_iter().map(|name| (cookie(&name), name)).collect()
    }
}

/// Between 4 and 2^63, as directory offsets are signed and the first ones belong to `.` and `..`.
fn cookie(name: &str) -> u64 {
    let digest = blake3::hash(name.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest.as_bytes()[..8]);
    (u64::from_le_bytes(bytes) >> 1).max(4)
}
