//! A volume at the place that the caller names: a read-only bind of the mount onto it.
//!
//! What is found there decides: this very mount is success, a dead one of ours is replaced, anything else is somebody
//! else's and never touched.

use std::path::Path;

use host::DeviceId;
use volume::{Fault, FaultKind, MountKey, RefId, VolumeName};

use crate::core::Core;
use crate::kernel::{Mounted, at};
use crate::table::{BindRow, Change, ReferenceRow};

/// The file system type of our mounts.
pub(crate) const FS_TYPE: &str = "fuse.volplane";

impl Core {
    /// Whether the registry would bind onto a path at all.
    pub(crate) fn check_target(&self, target: &Path) -> Result<(), Fault> {
        let refuse = |detail: &str| {
            Err(Fault::new(FaultKind::InvalidArgument, "bind onto", target.display().to_string(), detail))
        };
        let rebuilt: std::path::PathBuf = target.components().collect();
        // Rebuilt from its parts: what differs has a doubled slash, a `.` or a slash at the end.
        if !host::directory::is_plain(target) || rebuilt.as_os_str() != target.as_os_str() {
            return refuse("must be an absolute path without `..`");
        }
        if target.parent().is_none() || self.config.mount_dir.starts_with(target) {
            return refuse("our own mounts are below it");
        }
        if target.starts_with(&self.config.mount_dir) {
            return refuse("is below the directory of our own mounts");
        }
        Ok(())
    }

    /// Sees to it that `target` shows the live mount, and that the reference says so.
    pub(crate) async fn bind_to(
        &self,
        key: &MountKey,
        reference: &RefId,
        volume: Option<&VolumeName>,
        target: &Path,
    ) -> Result<(), Fault> {
        let held = self.held(reference);
        let bound = held.as_ref().and_then(|held| held.bind.clone());
        if let Some(bound) = &bound
            && bound.target != target
        {
            let detail = format!("the same reference is bound to {} already", bound.target.display());
            return Err(Fault::new(FaultKind::AlreadyExists, "bind", reference.to_string(), detail));
        }
        let mounts = self.kernel.mounts().await?;
        let mountpoint = self.mountpoint(key);
        let live = at(&mounts, &mountpoint).map(|mounted| mounted.device).ok_or_else(|| {
            Fault::new(FaultKind::Unavailable, "bind", key.as_str(), "it was unmounted meanwhile")
        })?;
        let there = at(&mounts, target);
        let row = |created, settled| ReferenceRow {
            key: key.clone(),
            volume: volume.cloned(),
            bind: Some(BindRow { target: target.to_owned(), created, device: Some(live) }),
            settled,
        };
        let settled_before = held.as_ref().is_some_and(|held| held.settled);
        let mut created = bound.as_ref().is_some_and(|bound| bound.created);
        match there {
            Some(mounted) if mounted.device == live => {}
            Some(mounted) if !self.is_dead_and_ours(mounted, &mounts, bound.as_ref()) => {
                let detail = format!("something else ({}) is mounted there", mounted.fs_type);
                let target = target.display().to_string();
                return Err(Fault::new(FaultKind::AlreadyExists, "bind onto", target, detail));
            }
            other => {
                if other.is_some() {
                    tracing::info!(%key, target = %target.display(), "a dead bind mount is replaced");
                    self.kernel.unbind(target, true).await?;
                }
                created |= self.kernel.make_target(target).await?;
                self.commit(vec![Change::PutReference(reference.clone(), row(created, settled_before))])
                    .await?;
                self.kernel.bind(&mountpoint, target).await?;
            }
        }
        if held.as_ref() == Some(&row(created, true)) {
            return Ok(());
        }
        self.commit(vec![Change::PutReference(reference.clone(), row(created, true))]).await
    }

    fn is_dead_and_ours(&self, there: &Mounted, mounts: &[Mounted], bound: Option<&BindRow>) -> bool {
        let ours = there.fs_type == FS_TYPE || bound.is_some_and(|bound| bound.device == Some(there.device));
        let served = |device: DeviceId| {
            mounts
                .iter()
                .any(|m| m.device == device && m.path.parent() == Some(self.config.mount_dir.as_path()))
        };
        ours && !served(there.device)
    }

    /// Takes the bind of a reference away, and the directory that was made for it. What somebody else has mounted
    /// there since is left alone.
    pub(crate) async fn unbind(&self, reference: &RefId, bind: &BindRow) -> Result<(), Fault> {
        let shared = {
            let tables = self.tables.lock();
            tables.mounts.values().flat_map(|mount| &mount.references).any(|(id, other)| {
                id != reference && other.row.bind.as_ref().is_some_and(|other| other.target == bind.target)
            })
        };
        if shared {
            return Ok(());
        }
        let mounts = self.kernel.mounts().await?;
        if let Some(there) = at(&mounts, &bind.target) {
            let dead = self.is_dead_and_ours(there, &mounts, Some(bind));
            if dead || bind.device == Some(there.device) {
                self.kernel.unbind(&bind.target, dead).await?;
            } else {
                tracing::warn!(
                    %reference, target = %bind.target.display(), fs_type = there.fs_type,
                    "something else is mounted at the target of a reference; left alone"
                );
                return Ok(());
            }
        }
        if bind.created {
            self.kernel.remove_mountpoint(&bind.target).await;
        }
        Ok(())
    }

    /// After a mount was made anew: what the binds of its other references show is dead.
    pub(crate) async fn heal_binds(&self, key: &MountKey, but: &RefId) {
        let others: Vec<(RefId, ReferenceRow)> = {
            let tables = self.tables.lock();
            let references = tables.mounts.get(key).map(|mount| &mount.references);
            references
                .into_iter()
                .flatten()
                .filter(|(id, reference)| *id != but && reference.row.bind.is_some())
                .map(|(id, reference)| (id.clone(), reference.row.clone()))
                .collect()
        };
        for (id, row) in others {
            let Some(bind) = &row.bind else { continue };
            if let Err(fault) = self.bind_to(key, &id, row.volume.as_ref(), &bind.target).await {
                tracing::warn!(reference = %id, %fault, "a bind mount could not be healed; its next request tries again");
            }
        }
    }
}
