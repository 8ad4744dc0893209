//! The start: journal, mount table and what the backends kept alive are compared, and each difference gets a verdict,
//! which is logged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use tokio::time::timeout;
use volume::{Driver, MountKey, MountState, RefId, Survivor};

use crate::bind::FS_TYPE;
use crate::core::Core;
use crate::kernel::{Mounted, at};
use crate::mounting::LetGo;
use crate::state::Event;
use crate::table::{Change, MountRow};

/// What was found out about one mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Journalled and served: goes on as if nothing had been.
    Adopted,
    /// Served but not journalled: adopted, as somebody may use it.
    AdoptedUnknown,
    /// Mounted but served by nobody.
    Dead,
    /// Journalled but not there.
    Missing,
    /// Ours by its place, but neither journalled nor known to a backend.
    Stray,
}

impl Core {
    /// Runs once, while acquires and releases wait.
    pub(crate) async fn reconcile(&self) {
        let survivors = self.survivors().await;
        let mounts = match self.kernel.mounts().await {
            Ok(mounts) => mounts,
            Err(fault) => {
                tracing::error!(%fault, "the mount table cannot be read; mounts are looked at when they are asked for");
                Vec::new()
            }
        };
        let table: BTreeMap<MountKey, &Mounted> = mounts
            .iter()
            .filter(|mounted| mounted.path.parent() == Some(self.config.mount_dir.as_path()))
            .filter_map(|mounted| Some((MountKey::new(mounted.path.file_name()?.to_str()?)?, mounted)))
            .collect();
        let journalled: BTreeSet<MountKey> = self.tables.lock().mounts.keys().cloned().collect();
        let all: BTreeSet<_> =
            journalled.iter().chain(survivors.keys()).chain(table.keys()).cloned().collect();
        for key in all {
            let survivor = survivors.get(&key);
            let verdict = match (survivor, journalled.contains(&key)) {
                (Some((_, survivor)), true) if survivor.alive => Verdict::Adopted,
                (Some((_, survivor)), false) if survivor.alive => Verdict::AdoptedUnknown,
                (Some(_), _) => Verdict::Dead,
                (None, true) if table.contains_key(&key) => Verdict::Dead,
                (None, true) => Verdict::Missing,
                (None, false) => Verdict::Stray,
            };
            let driver = survivor.map(|(driver, _)| *driver);
            let mountpoint = survivor.map(|(_, survivor)| survivor.mountpoint.clone());
            self.judge(&key, verdict, driver, mountpoint, &mounts).await;
        }
    }

    async fn survivors(&self) -> BTreeMap<MountKey, (Driver, Survivor)> {
        let mut found = BTreeMap::new();
        for (driver, backend) in &self.backends {
            match timeout(self.config.detach, backend.survivors()).await {
                Ok(survivors) => {
                    found.extend(
                        survivors.into_iter().map(|survivor| (survivor.key.clone(), (*driver, survivor))),
                    );
                }
                Err(_) => {
                    tracing::error!(%driver, "the backend did not say in time what survived; its mounts count as dead");
                }
            }
        }
        found
    }

    async fn judge(
        &self,
        key: &MountKey,
        verdict: Verdict,
        driver: Option<Driver>,
        mountpoint: Option<PathBuf>,
        mounts: &[Mounted],
    ) {
        let Ok(_guard) = self.keys.try_enter(key) else { return };
        let Some(driver) = driver
            .or_else(|| self.row(key).map(|row| row.driver))
            .or_else(|| self.backends.keys().next().copied())
        else {
            return;
        };
        let mountpoint = mountpoint.unwrap_or_else(|| self.mountpoint(key));
        let there = at(mounts, &mountpoint);
        if verdict == Verdict::Stray && there.is_some_and(|there| there.fs_type != FS_TYPE) {
            tracing::warn!(%key, "something that is not ours is mounted in our directory; left alone");
            return;
        }
        let row = self.row(key).unwrap_or(MountRow {
            driver,
            resolved: None,
            state: MountState::Absent,
            mountpoint: mountpoint.clone(),
            device: None,
        });
        let row = MountRow { mountpoint, device: there.map(|there| there.device).or(row.device), ..row };
        let event = match verdict {
            Verdict::Adopted | Verdict::AdoptedUnknown => Event::FoundLive,
            Verdict::Dead | Verdict::Stray => Event::FoundDead,
            Verdict::Missing => Event::FoundAbsent,
        };
        let noted = self.note_row(key, event, row, Vec::new()).await;
        let settled = match noted {
            Ok(()) => self.settle(key).await,
            Err(fault) => Err(fault),
        };
        let references = self.tables.lock().mounts.get(key).map_or(0, |mount| mount.references.len());
        tracing::info!(%key, ?verdict, references, "start: mount compared with the journal");
        let cleaned = match (settled, verdict) {
            (Err(fault), _) => Err(fault),
            // What is dead is cleaned away now, also if it is referred to: the path must not hang.
            (Ok(()), Verdict::Dead | Verdict::Stray) => self.take_down(key).await,
            (Ok(()), Verdict::Adopted | Verdict::AdoptedUnknown | Verdict::Missing) => Ok(()),
        };
        match cleaned {
            Ok(()) if matches!(verdict, Verdict::Dead | Verdict::Stray) => {
                tracing::warn!(%key, references, "start: a dead mount was cleaned away; it is mounted anew at the next request");
            }
            Ok(()) => {}
            Err(fault) => {
                tracing::error!(%key, %fault, "start: a mount could not be put in order; tried again later");
            }
        }
        match self.let_go(key).await {
            LetGo::Referred => {}
            LetGo::Gone => tracing::info!(%key, "start: nobody refers to the mount; it is gone"),
            LetGo::Seen(who) => {
                tracing::info!(%key, who, "start: nobody refers to the mount but it is seen; kept");
            }
            LetGo::Failed(_) => self.sweep_soon.notify_one(),
        }
        if self.tables.lock().mounts.get(key).is_some_and(crate::table::Mount::is_counted_on) {
            // The sweeper makes it again if it is not live.
            self.sweep_soon.notify_one();
        }
    }

    /// Takes back what an operation left unfinished, because the daemon died in it or the kernel refused to undo it: its
    /// caller got no answer, or an error, and holds nothing. The key's guard is held, so none is under way.
    pub(crate) async fn settle(&self, key: &MountKey) -> Result<(), volume::Fault> {
        let unsettled: Vec<RefId> = {
            let tables = self.tables.lock();
            let references = tables.mounts.get(key).into_iter().flat_map(|mount| &mount.references);
            references
                .filter(|(id, held)| !held.row.settled && !tables.claims.holds(id))
                .map(|(id, _)| id.clone())
                .collect()
        };
        for reference in &unsettled {
            tracing::info!(%reference, %key, "an unfinished mount request is taken back");
        }
        self.drop_references(&unsettled).await
    }

    /// The journal's content becomes the tables.
    pub(crate) fn fill(&self, changes: Vec<Change>) {
        let mut tables = self.tables.lock();
        for change in changes {
            tables.apply(change);
        }
        let (volumes, mounts) = (tables.volumes.len(), tables.mounts.len());
        tracing::info!(volumes, mounts, references = tables.references().count(), "start: journal read");
    }
}
