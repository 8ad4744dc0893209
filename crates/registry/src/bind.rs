//! A volume at the place that the caller names: a bind of the mount onto it.
//!
//! What is found there decides: this very mount is success, a dead one of ours is replaced, anything else is somebody
//! else's and never touched. All this happens in the lane of the reference; no guard of a mount's key is needed, the
//! mount is held instead (`claim`), so that binds of one volume do not wait for each other.

use std::path::Path;

use host::DeviceId;
use host::mount::place::{Found, Node};
use volume::{
    BindTarget, DEVICE_NODE, Fault, FaultKind, Frontend, MountKey, MountState, RefId, Sharing, VolumeName,
};

use crate::core::Core;
use crate::kernel::{Mounted, Spot};
use crate::table::{BindRow, Change, ReferenceRow};

/// The file system type of our mounts.
pub(crate) const FS_TYPE: &str = "fuse.volplane";

/// A mount that is held, and what is bound of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) key: &'a MountKey,
    pub(crate) device: DeviceId,
    pub(crate) node: Node,
}

impl BindRow {
    fn spot(&self) -> Spot {
        Spot { path: self.target.clone(), beneath: self.beneath.clone(), node: self.node }
    }

    fn target(&self) -> BindTarget {
        BindTarget {
            path: self.target.clone(),
            beneath: self.beneath.clone(),
            read_only: self.read_only,
            sharing: self.sharing,
        }
    }
}

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

    /// Sees to it that `target` shows the mount, and that the reference says so.
    pub(crate) async fn bind_to(
        &self,
        source: Source<'_>,
        reference: &RefId,
        volume: Option<&VolumeName>,
        target: &BindTarget,
    ) -> Result<(), Fault> {
        let Source { key, device: live, node } = source;
        let held = self.held(reference);
        let bound = held.as_ref().and_then(|held| held.bind.as_ref());
        if let Some(bound) = bound
            && bound.target != target.path
        {
            let detail = format!("the same reference is bound to {} already", bound.target.display());
            return Err(Fault::new(FaultKind::AlreadyExists, "bind", reference.to_string(), detail));
        }
        let spot = Spot { path: target.path.clone(), beneath: target.beneath.clone(), node };
        let row = |created, settled| ReferenceRow {
            key: key.clone(),
            volume: volume.cloned(),
            bind: Some(BindRow {
                target: target.path.clone(),
                beneath: target.beneath.clone(),
                node,
                read_only: target.read_only,
                sharing: target.sharing,
                created,
                device: Some(live),
            }),
            settled,
        };
        let settled_before = held.as_ref().is_some_and(|held| held.settled);
        let mut created = bound.is_some_and(|bound| bound.created);
        let found = self.kernel.find(&spot).await?;
        // One that no reference tells of may be bound in another way than is wanted.
        let as_wanted = bound.is_some_and(|bound| bound.read_only == target.read_only && bound.node == node);
        if found != Found::Mount(live) || !as_wanted {
            if let Found::Mount(there) = found {
                self.refuse_foreign(there, live, target, bound).await?;
                tracing::info!(%key, target = %target.path.display(), "an old bind mount is replaced");
                self.kernel.unbind(&spot, true, false).await?;
            }
            let written = row(created || found == Found::Nothing, settled_before);
            self.commit(vec![Change::PutReference(reference.clone(), written)]).await?;
            let mountpoint = self.mountpoint(key);
            let from = match node {
                Node::Directory => mountpoint,
                Node::File => mountpoint.join(DEVICE_NODE),
            };
            created |= self.kernel.bind(&from, live, &spot, target.read_only).await?;
        }
        let settled = row(created, true);
        if self.held(reference).as_ref() == Some(&settled) {
            return Ok(());
        }
        self.commit(vec![Change::PutReference(reference.clone(), settled)]).await
    }

    /// An error if what is mounted at a target is neither the live mount nor a dead one of ours.
    async fn refuse_foreign(
        &self,
        there: DeviceId,
        live: DeviceId,
        target: &BindTarget,
        bound: Option<&BindRow>,
    ) -> Result<(), Fault> {
        if there == live {
            return Ok(());
        }
        let mounts = self.kernel.mounts().await?;
        if self.is_dead_and_ours(there, &mounts, bound) {
            return Ok(());
        }
        let fs_type = mounts.iter().find(|mounted| mounted.device == there).map(|mounted| &mounted.fs_type);
        let detail = format!(
            "something else ({}) is mounted there",
            fs_type.map_or_else(|| there.to_string(), Clone::clone)
        );
        Err(Fault::new(FaultKind::AlreadyExists, "bind onto", target.path.display().to_string(), detail))
    }

    fn is_dead_and_ours(&self, there: DeviceId, mounts: &[Mounted], bound: Option<&BindRow>) -> bool {
        let ours = mounts.iter().any(|mounted| mounted.device == there && mounted.fs_type == FS_TYPE)
            || bound.is_some_and(|bound| bound.device == Some(there));
        ours && !self.is_served(there, mounts)
    }

    /// Whether it is a file system that is mounted in our own directory.
    fn is_served(&self, device: DeviceId, mounts: &[Mounted]) -> bool {
        let below = |path: &Path| path.parent() == Some(self.config.mount_dir.as_path());
        mounts.iter().any(|mounted| mounted.device == device && below(&mounted.path))
    }

    /// Takes the bind of a reference away, with what was made for it; `all`: also with what an earlier life of ours may
    /// have made. What somebody else has mounted there since is left alone.
    pub(crate) async fn unbind(&self, reference: &RefId, bind: &BindRow, all: bool) -> Result<(), Fault> {
        if self.tables.lock().bound_to(&bind.target).is_some_and(|owner| owner != reference) {
            return Ok(());
        }
        // CSI: the driver makes a publish target and must delete it. After a reboot it finds one that an earlier life
        // of it made; kubelet never makes one (facts: kubernetes-current 4). Staging directories are kubelet's.
        let csi = reference.frontend == Frontend::Csi && bind.sharing != Sharing::Staging;
        let remove = bind.created || (all && csi);
        let spot = bind.spot();
        let found = match self.kernel.find(&spot).await {
            Err(fault) if fault.kind == FaultKind::InvalidArgument => {
                tracing::warn!(%reference, %fault, "the place of a target was replaced; it is left alone");
                return Ok(());
            }
            found => found?,
        };
        let dead = match found {
            Found::Nothing => return Ok(()),
            Found::Plain if remove => return self.kernel.remove(&spot).await,
            Found::Plain => return Ok(()),
            Found::Mount(there) if bind.device == Some(there) => {
                let tables = self.tables.lock();
                let live = |mount: &crate::table::Mount| mount.row.state == MountState::Live;
                !tables.mounts.values().any(|mount| mount.row.device == Some(there) && live(mount))
            }
            Found::Mount(there) => {
                let mounts = self.kernel.mounts().await?;
                if !self.is_dead_and_ours(there, &mounts, Some(bind)) {
                    tracing::warn!(
                        %reference, target = %bind.target.display(), device = %there,
                        "something else is mounted at the target of a reference; left alone"
                    );
                    return Ok(());
                }
                true
            }
        };
        self.kernel.unbind(&spot, dead, remove).await
    }

    /// After a mount was made anew: what the binds of its other references show is dead. Those that are being worked on
    /// see to it themselves.
    pub(crate) async fn heal_binds(&self, source: Source<'_>, but: Option<&RefId>) {
        let others: Vec<RefId> = {
            let tables = self.tables.lock();
            let references = tables.mounts.get(source.key).map(|mount| &mount.references);
            let bound = references
                .into_iter()
                .flatten()
                .filter(|(id, held)| Some(*id) != but && held.row.settled && held.row.bind.is_some());
            bound.map(|(id, _)| id.clone()).collect()
        };
        for id in others {
            let Ok(_lane) = self.lanes.try_enter(&Core::lane_of(&id)) else { continue };
            let Some(held) = self.held(&id).filter(|held| held.key == *source.key) else { continue };
            let Some(bind) = &held.bind else { continue };
            let source = Source { node: bind.node, ..source };
            if let Err(fault) = self.bind_to(source, &id, held.volume.as_ref(), &bind.target()).await {
                tracing::warn!(reference = %id, %fault, "a bind mount could not be healed; its next request tries again");
            }
        }
    }

    /// A release of a reference that nothing is known of, from a caller that names its target in it and comes again until
    /// the target is free: if one of our file systems is mounted there, the journal was lost, and it is taken away.
    pub(crate) async fn free_unknown(&self, reference: &RefId) -> Result<(), Fault> {
        match reference.frontend {
            Frontend::Flexvolume | Frontend::Csi => {}
            Frontend::Docker | Frontend::Podman | Frontend::Cli => return Ok(()),
        }
        let path = Path::new(&reference.id);
        if self.check_target(path).is_err() {
            return Ok(());
        }
        let beneath: Vec<Option<std::path::PathBuf>> = {
            let tables = self.tables.lock();
            if tables.bound_to(path).or_else(|| tables.claims.of_target(path)).is_some() {
                return Ok(());
            }
            let roots = tables.mounts.values().flat_map(|mount| mount.references.values());
            let roots = roots.filter_map(|held| held.row.bind.as_ref()?.beneath.clone());
            let roots: std::collections::BTreeSet<_> = roots.filter(|root| path.starts_with(root)).collect();
            // Without any: no link on the whole way.
            roots.into_iter().map(Some).chain([None]).collect()
        };
        for beneath in beneath {
            let spot = Spot { path: path.to_owned(), beneath, node: Node::Directory };
            match self.kernel.find(&spot).await {
                Ok(Found::Mount(there)) => return self.free_mount(reference, &spot, there).await,
                Ok(Found::Nothing | Found::Plain) => return Ok(()),
                Err(fault) => {
                    tracing::debug!(%reference, %fault, "the target of an unknown reference cannot be reached");
                }
            }
        }
        Ok(())
    }

    async fn free_mount(&self, reference: &RefId, spot: &Spot, there: DeviceId) -> Result<(), Fault> {
        let mounts = self.kernel.mounts().await?;
        let served = self.is_served(there, &mounts);
        if !served && !self.is_dead_and_ours(there, &mounts, None) {
            tracing::debug!(%reference, device = %there, "what is mounted there is not ours; left alone");
            return Ok(());
        }
        tracing::info!(%reference, "nothing is known of it, but one of our file systems is mounted there; unmounted");
        self.kernel.unbind(spot, !served, false).await
    }
}
