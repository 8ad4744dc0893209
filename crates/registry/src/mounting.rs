//! The steps that change a mount. For each the guard of its key is held.

use tokio::time::{Instant, timeout, timeout_at};
use volume::{Fault, FaultKind, Inspection, MountKey, MountState, Resolved};

use crate::core::{Core, late};
use crate::kernel::Asked;
use crate::state::{Event, Step, step};
use crate::table::{Change, MountRow};

/// What became of a mount that nobody refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LetGo {
    /// Somebody refers to it.
    Referred,
    /// It is gone.
    Gone,
    /// Somebody sees it; who.
    Seen(String),
    /// It could not be found out, or it could not be taken down; asked again later.
    Failed(Fault),
}

impl Core {
    /// Walks the state table until the mount is live. `true` if it was mounted anew.
    /// A look that found it alive and began after `since` need not be repeated.
    pub(crate) async fn make_live(
        &self,
        resolved: &Resolved,
        since: Instant,
        deadline: Instant,
    ) -> Result<bool, Fault> {
        let key = &resolved.key;
        if self.was_live(key, since) {
            self.update_payload(resolved).await?;
            return Ok(false);
        }
        // The longest way: what is dead is taken down, is looked at once more, is attached.
        for _ in 0..4 {
            // What is believed may be wrong both ways: a mount whose unmounting failed can be alive and in use.
            let state = match self.state(key) {
                MountState::Absent => MountState::Absent,
                _ => self.look(key).await?,
            };
            match step(state) {
                Step::Attach => {
                    self.attach(resolved, deadline).await?;
                    return Ok(true);
                }
                Step::Use => {
                    self.update_payload(resolved).await?;
                    return Ok(false);
                }
                Step::TakeDown => self.take_down(key).await?,
            }
        }
        Err(Fault::new(FaultKind::Unavailable, "mount", key.as_str(), "it dies as soon as it is mounted")
            .with_retry(volume::Retry::Later))
    }

    /// Whether a look that began after `since` found it alive, and nothing else was heard.
    fn was_live(&self, key: &MountKey, since: Instant) -> bool {
        self.tables.lock().mounts.get(key).is_some_and(|mount| {
            mount.row.state == MountState::Live && mount.looked.is_some_and(|looked| looked >= since)
        })
    }

    /// Looks whether it lives, and changes nothing. The key's guard is held.
    pub(crate) async fn is_live(&self, key: &MountKey, since: Instant) -> Result<bool, Fault> {
        Ok(self.was_live(key, since) || self.look(key).await? == MountState::Live)
    }

    async fn update_payload(&self, resolved: &Resolved) -> Result<(), Fault> {
        match self.row(&resolved.key) {
            Some(row) if row.resolved.as_ref() != Some(resolved) => {
                let row = MountRow { resolved: Some(resolved.clone()), ..row };
                self.commit(vec![Change::PutMount(resolved.key.clone(), row)]).await
            }
            _ => Ok(()),
        }
    }

    async fn attach(&self, resolved: &Resolved, deadline: Instant) -> Result<(), Fault> {
        let key = &resolved.key;
        let backend = self.backend(resolved.spec.driver())?;
        let mountpoint = self.config.mount_dir.join(key.as_str());
        let row = MountRow {
            driver: resolved.spec.driver(),
            resolved: Some(resolved.clone()),
            state: MountState::Absent,
            mountpoint: mountpoint.clone(),
            device: None,
        };
        self.note_row(key, Event::AttachStarts, row, Vec::new()).await?;
        let attached = async {
            self.kernel.make_mountpoint(&mountpoint).await?;
            match timeout_at(deadline, backend.attach(resolved, &mountpoint)).await {
                Ok(answer) => answer.map(|()| true),
                Err(_) => Ok(false),
            }
        };
        match attached.await {
            Ok(true) => {}
            Ok(false) => {
                self.note(key, Event::AttachUnknown, Vec::new()).await?;
                return Err(late("mount", key.as_str(), "the backend was not ready in time"));
            }
            Err(fault) => {
                self.note(key, Event::AttachFailed, Vec::new()).await?;
                return Err(fault);
            }
        }
        let device = match self.kernel.device_at(&mountpoint).await {
            Ok(Some(device)) => device,
            other => {
                self.note(key, Event::AttachUnknown, Vec::new()).await?;
                return Err(match other {
                    Err(fault) => fault,
                    Ok(_) => {
                        let detail =
                            "the backend says that it is mounted, but the mount table does not show it";
                        Fault::new(FaultKind::Internal, "mount", key.as_str(), detail)
                    }
                });
            }
        };
        let row = self.row(key).map(|row| MountRow { device: Some(device), ..row });
        let row =
            row.ok_or_else(|| Fault::new(FaultKind::Internal, "mount", key.as_str(), "its row vanished"))?;
        self.note_row(key, Event::Attached, row, Vec::new()).await?;
        if let Some(mount) = self.tables.lock().mounts.get_mut(key) {
            mount.last_error = None;
            mount.report = None;
            mount.looked = Some(Instant::now());
        }
        self.look_soon.notify_one();
        tracing::info!(%key, mountpoint = %mountpoint.display(), "mounted");
        Ok(())
    }

    /// Compares what is believed with the backend and the mount table, and notes it. No network.
    pub(crate) async fn look(&self, key: &MountKey) -> Result<MountState, Fault> {
        let Some(row) = self.row(key) else { return Ok(MountState::Absent) };
        let backend = self.backend(row.driver)?;
        let began = Instant::now();
        let found = timeout(self.config.inspect, backend.inspect(key, &row.mountpoint))
            .await
            .map_err(|_| late("look at", key.as_str(), "the backend gave no answer in time"))?;
        let device = self.kernel.device_at(&row.mountpoint).await?;
        let (event, trouble) = match (found, device) {
            (Inspection::Live(report), Some(_)) => {
                if let Some(mount) = self.tables.lock().mounts.get_mut(key) {
                    mount.report = Some(*report);
                    mount.looked = Some(began);
                }
                (Event::FoundLive, None)
            }
            (Inspection::Live(_), None) => {
                (Event::FoundDead, Some("somebody else has unmounted it from its mountpoint".to_owned()))
            }
            (Inspection::Dead(why), _) => (Event::FoundDead, Some(why)),
            (Inspection::Absent, Some(_)) => (
                Event::FoundDead,
                Some("something is mounted at its mountpoint that nobody serves".to_owned()),
            ),
            (Inspection::Absent, None) => (Event::FoundAbsent, None),
        };
        if let Some(trouble) = &trouble
            && row.state == MountState::Live
        {
            tracing::warn!(%key, trouble, "a mount is dead; it is mounted anew at the next request");
            self.remember(key, trouble);
        }
        let device = device.or(row.device);
        if crate::state::next(row.state, event) != Some(row.state) || device != row.device {
            self.note_row(key, event, MountRow { device, ..row }, Vec::new()).await?;
        }
        Ok(self.state(key))
    }

    /// Takes away what is there, dead or alive.
    pub(crate) async fn take_down(&self, key: &MountKey) -> Result<(), Fault> {
        let Some(row) = self.row(key) else { return Ok(()) };
        let (mountpoint, was) = (row.mountpoint.clone(), row.state);
        let backend = self.backend(row.driver)?;
        self.note(key, Event::DetachStarts, Vec::new()).await?;
        match timeout(self.config.detach, backend.detach(key, &mountpoint)).await {
            Ok(Ok(())) => {
                self.note(key, Event::Detached, Vec::new()).await?;
                tracing::info!(%key, mountpoint = %mountpoint.display(), "unmounted");
                Ok(())
            }
            Ok(Err(fault)) if fault.kind == FaultKind::InUse => {
                let event =
                    if was == MountState::Live { Event::DetachBusyLive } else { Event::DetachBusyDead };
                self.note(key, event, Vec::new()).await?;
                Err(fault)
            }
            Ok(Err(fault)) => {
                self.note(key, Event::DetachUnknown, Vec::new()).await?;
                Err(fault)
            }
            Err(_) => {
                self.note(key, Event::DetachUnknown, Vec::new()).await?;
                Err(late("unmount", key.as_str(), "the backend gave no answer in time"))
            }
        }
    }

    /// Takes a mount down if nobody refers to it and no namespace shows it, and forgets it.
    pub(crate) async fn let_go(&self, key: &MountKey) -> LetGo {
        let Some(row) = self.row(key) else { return LetGo::Gone };
        let referred = |mount: &crate::table::Mount| !mount.references.is_empty() || mount.holds > 0;
        if self.tables.lock().mounts.get(key).is_some_and(referred) {
            return LetGo::Referred;
        }
        let asked = Asked { primary: row.mountpoint.clone(), device: row.device };
        match self.kernel.seen(std::slice::from_ref(&asked)).await.map(|mut answers| answers.pop().flatten())
        {
            Err(fault) => return self.keep(key, LetGo::Failed(fault)),
            Ok(Some(who)) => return self.keep(key, LetGo::Seen(who)),
            Ok(None) => {}
        }
        let taken = match row.state {
            MountState::Absent => Ok(()),
            _ => self.take_down(key).await,
        };
        match taken {
            Ok(()) => match self.commit(vec![Change::DropMount(key.clone())]).await {
                Ok(()) => {
                    self.kernel.remove_mountpoint(&row.mountpoint).await;
                    LetGo::Gone
                }
                Err(fault) => self.keep(key, LetGo::Failed(fault)),
            },
            Err(fault) if fault.kind == FaultKind::InUse => self.keep(key, LetGo::Seen(fault.detail)),
            Err(fault) => self.keep(key, LetGo::Failed(fault)),
        }
    }

    fn keep(&self, key: &MountKey, why: LetGo) -> LetGo {
        let mut tables = self.tables.lock();
        if let Some(mount) = tables.mounts.get_mut(key) {
            match &why {
                LetGo::Seen(who) => {
                    if !mount.seen {
                        tracing::info!(%key, seen_at = who, "nobody refers to the mount but it is in use; kept");
                    }
                    mount.seen = true;
                    mount.last_seen = Some(Instant::now());
                }
                LetGo::Failed(fault) => {
                    tracing::warn!(%key, %fault, "an unused mount could not be taken down; tried again later");
                    mount.last_error = Some(fault.to_string());
                }
                LetGo::Referred | LetGo::Gone => {}
            }
        }
        why
    }
}
