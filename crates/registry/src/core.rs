//! What all operations share: the tables, the journal, the guards, and the two ways to change a mount.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use volume::{Backend, Driver, Fault, FaultKind, Frontend, MountKey, MountState, RefId};

use crate::RegistryConfig;
use crate::guard::{Guard, Guards};
use crate::journal::Journal;
use crate::kernel::Kernel;
use crate::state::{Event, next};
use crate::table::{Change, MountRow, ReferenceRow, Tables};

/// Operations under way at a time; more are refused. Each is a task of a few kilobytes.
pub(crate) const OPERATIONS: u32 = 4096;

pub(crate) struct Core {
    pub(crate) config: RegistryConfig,
    pub(crate) backends: BTreeMap<Driver, Arc<dyn Backend>>,
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) journal: Journal,
    /// Never held over an await or a system call.
    pub(crate) tables: Mutex<Tables>,
    pub(crate) lanes: Guards<String>,
    pub(crate) keys: Guards<MountKey>,
    /// Questions to file systems (`statfs`), one at a time each.
    pub(crate) questions: Guards<MountKey>,
    /// True when the start's reconciliation is over.
    pub(crate) ready: watch::Sender<bool>,
    /// Asks for a look at all mounts soon.
    pub(crate) look_soon: Notify,
    /// Asks for a sweep soon.
    pub(crate) sweep_soon: Notify,
    pub(crate) operations: Arc<Semaphore>,
}

impl Core {
    /// Writes the changes to the journal, then applies them to the tables.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<(), Fault> {
        self.journal.write(changes.clone()).await?;
        let mut tables = self.tables.lock();
        for change in changes {
            tables.apply(change);
        }
        Ok(())
    }

    pub(crate) fn backend(&self, driver: Driver) -> Result<Arc<dyn Backend>, Fault> {
        self.backends.get(&driver).cloned().ok_or_else(|| {
            Fault::new(FaultKind::Unsupported, "use driver", driver.as_str(), "this daemon runs without it")
        })
    }

    pub(crate) fn row(&self, key: &MountKey) -> Option<MountRow> {
        self.tables.lock().mounts.get(key).map(|mount| mount.row.clone())
    }

    pub(crate) fn state(&self, key: &MountKey) -> MountState {
        self.tables.lock().mounts.get(key).map_or(MountState::Absent, |mount| mount.row.state)
    }

    pub(crate) fn held(&self, reference: &RefId) -> Option<ReferenceRow> {
        self.tables.lock().reference(reference).map(|held| held.row.clone())
    }

    pub(crate) fn key_of(&self, reference: &RefId) -> Option<MountKey> {
        self.tables.lock().key_of(reference).cloned()
    }

    pub(crate) fn mountpoint(&self, key: &MountKey) -> PathBuf {
        self.row(key).map_or_else(|| self.config.mount_dir.join(key.as_str()), |row| row.mountpoint)
    }

    /// Notes what happened to a mount, together with `more`. The key's guard is held.
    pub(crate) async fn note(&self, key: &MountKey, event: Event, more: Vec<Change>) -> Result<(), Fault> {
        let Some(row) = self.row(key) else {
            return Err(impossible(key, event, MountState::Absent));
        };
        self.note_row(key, event, row, more).await
    }

    /// The same with other changes of the row.
    pub(crate) async fn note_row(
        &self,
        key: &MountKey,
        event: Event,
        row: MountRow,
        more: Vec<Change>,
    ) -> Result<(), Fault> {
        let state = next(row.state, event).ok_or_else(|| impossible(key, event, row.state))?;
        if state != row.state {
            tracing::debug!(%key, from = row.state.as_str(), to = state.as_str(), ?event, "mount changes");
        }
        let mut changes = vec![Change::PutMount(key.clone(), MountRow { state, ..row })];
        changes.extend(more);
        self.commit(changes).await
    }

    /// Remembers an error for people.
    pub(crate) fn remember(&self, key: &MountKey, text: &str) {
        if let Some(mount) = self.tables.lock().mounts.get_mut(key) {
            mount.last_error = Some(dated(text));
        }
    }

    /// Waits until the start's reconciliation is over.
    pub(crate) async fn wait_ready(&self, deadline: Instant) -> Result<(), Fault> {
        let mut ready = self.ready.subscribe();
        match timeout_at(deadline, ready.wait_for(|ready| *ready)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(late("start", "", "the daemon still compares its journal with the mount table")),
        }
    }

    /// The lane of a reference: people and engines with long time-outs wait in order; kubelet, which comes again by
    /// itself, hears that it is busy.
    pub(crate) async fn lane(&self, reference: &RefId, deadline: Instant) -> Result<Guard<String>, Fault> {
        let lane = Core::lane_of(reference);
        let entered = match reference.frontend {
            Frontend::Docker | Frontend::Podman | Frontend::Cli => self.lanes.enter(&lane, deadline).await,
            Frontend::Flexvolume | Frontend::Csi => self.lanes.try_enter(&lane),
        };
        entered.map_err(|_| {
            let subject = if reference.id.is_empty() { &reference.scope } else { &reference.id };
            busy(subject)
        })
    }

    /// The name of a reference's lane: an engine's calls about one volume, kubelet's about one target. No volume's name
    /// has a NUL in it.
    pub(crate) fn lane_of(reference: &RefId) -> String {
        match reference.frontend {
            Frontend::Docker | Frontend::Podman | Frontend::Cli => reference.scope.clone(),
            Frontend::Flexvolume | Frontend::Csi => {
                format!("{}\0{}\0{}", reference.frontend.as_str(), reference.scope, reference.id)
            }
        }
    }

    pub(crate) async fn key(&self, key: &MountKey, deadline: Instant) -> Result<Guard<MountKey>, Fault> {
        self.keys.enter(key, deadline).await.map_err(|_| busy(key.as_str()))
    }

    /// The right to run an operation; shutdown waits until all have been given back.
    pub(crate) fn operation(&self) -> Result<OwnedSemaphorePermit, Fault> {
        self.operations.clone().try_acquire_owned().map_err(|_| {
            let detail =
                format!("{OPERATIONS} operations are under way, or the daemon is ending; try again later");
            Fault::new(FaultKind::ResourceExhausted, "begin", "", detail)
        })
    }
}

pub(crate) fn late(op: &str, subject: &str, detail: &str) -> Fault {
    Fault::new(FaultKind::DeadlineExceeded, op, subject, detail)
}

pub(crate) fn busy(subject: &str) -> Fault {
    let detail = "another operation on it is under way; try again later";
    Fault::new(FaultKind::Busy, "wait for", subject, detail)
}

fn impossible(key: &MountKey, event: Event, state: MountState) -> Fault {
    let detail = format!("{event:?} cannot happen to a mount that is {}", state.as_str());
    let fault = Fault::new(FaultKind::Internal, "change the state of", key.as_str(), detail);
    tracing::error!(%fault, "a rule of the state table was broken");
    fault
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

/// A text with its time in front, as seconds since the epoch: `@1700000000 …`.
pub(crate) fn dated(text: &str) -> String {
    format!("@{} {text}", now())
}
