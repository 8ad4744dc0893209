//! Acquires with a target of the caller's.
//!
//! The mount is made live under the guard of its key; then it is held, the guard is left, and the bind is made, so that ten
//! targets of one volume are bound side by side. Afterwards the mount is looked at again: if it died meanwhile, what
//! was bound is dead too, and the whole is done once more.
//!
//! Kubelet repeats its requests for volumes that work (facts: kubernetes-current 4, kubelet restart). Such a repeat
//! must not disturb what is there, even if the site's configuration would resolve to another mount by now.

use host::mount::place::Node;
use tokio::time::{Instant, timeout_at};
use volume::{
    Acquired, BindTarget, Caller, Fault, FaultKind, Frontend, MountKey, RefId, Resolved, Sharing, VolumeName,
    VolumeSpec,
};

use crate::acquire::Request;
use crate::bind::Source;
use crate::core::{Core, late};
use crate::table::ReferenceRow;

/// How often a mount may die while it is bound.
const TRIES: usize = 4;

/// One acquire at a target.
struct Publication<'a> {
    request: &'a Request,
    target: &'a BindTarget,
    node: Node,
    volume: Option<&'a VolumeName>,
    deadline: Instant,
}

/// Whether a frontend's caller repeats what it has, with the volume described anew.
pub(crate) fn repeats(frontend: Frontend) -> bool {
    match frontend {
        Frontend::Flexvolume | Frontend::Csi => true,
        Frontend::Docker | Frontend::Podman | Frontend::Cli => false,
    }
}

impl Core {
    /// The path, and whether the reference was not held before.
    pub(crate) async fn acquire_at(
        &self,
        request: &Request,
        target: &BindTarget,
        spec: &VolumeSpec,
        volume: Option<&VolumeName>,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<(Acquired, bool), Fault> {
        let reference = &request.reference;
        let _claim = self.claim(reference, target)?;
        // A staging place is a directory that kubelet has made, also for a device.
        let is_file = spec.is_block() && target.sharing != Sharing::Staging;
        let node = if is_file { Node::File } else { Node::Directory };
        let publication = Publication { request, target, node, volume, deadline };
        let acquired = Acquired { path: target.path.clone() };
        let before = self.held(reference).filter(|held| held.settled);
        if let Some(held) = before.as_ref().filter(|_| repeats(reference.frontend)) {
            self.refuse_other_use(reference, held, spec, target)?;
            if self.show(&publication, &held.key, None).await? {
                tracing::debug!(%reference, key = %held.key, "acquired again");
                return Ok((acquired, false));
            }
        }
        let resolved = self.resolve(spec, caller, &reference.scope, deadline).await?;
        let key = &resolved.key;
        if self.key_of(reference).is_some_and(|held| held != *key) {
            // The volume or the configuration was changed since: the old use is over.
            self.release_in_lane(reference, false).await?;
        }
        match self.show(&publication, key, Some(&resolved)).await {
            Ok(_) => {
                self.remember_key(spec.driver(), volume, key).await;
                tracing::info!(%reference, %key, path = %target.path.display(), again = before.is_some(), "acquired");
                Ok((acquired, before.is_none()))
            }
            Err(fault) if fault.kind == FaultKind::Cancelled && self.held(reference).is_none() => {
                tracing::info!(%reference, %key, "caller went away before it was bound; the mount is kept for a while");
                self.linger(key);
                Err(fault)
            }
            Err(fault) => {
                self.remember(key, &fault.to_string());
                self.take_back(reference, key, before.is_some()).await;
                Err(fault)
            }
        }
    }

    /// An error if a repeat asks for something else than is there.
    fn refuse_other_use(
        &self,
        reference: &RefId,
        held: &ReferenceRow,
        spec: &VolumeSpec,
        target: &BindTarget,
    ) -> Result<(), Fault> {
        let refuse = |detail: String| {
            Err(Fault::new(FaultKind::AlreadyExists, "mount", target.path.display().to_string(), detail))
        };
        let Some(bind) = &held.bind else { return Ok(()) };
        if bind.target != target.path {
            return refuse(format!("{reference} is bound to {} already", bind.target.display()));
        }
        let old = self.row(&held.key).and_then(|row| row.resolved);
        if old.is_some_and(|old| old.spec != *spec) {
            let detail = format!("another volume ({}) is mounted there; unmount that first", held.key);
            return refuse(detail);
        }
        if bind.read_only != target.read_only {
            let how = if bind.read_only { "read-only" } else { "writable" };
            return refuse(format!("it is mounted there {how} already; unmount it first"));
        }
        Ok(())
    }

    /// Makes the mount live (with `resolved`) and the target show it. Without `resolved` nothing is mounted: `false`
    /// says that the mount does not live.
    async fn show(
        &self,
        publication: &Publication<'_>,
        key: &MountKey,
        resolved: Option<&Resolved>,
    ) -> Result<bool, Fault> {
        let Publication { request, target, node, volume, deadline } = publication;
        let mut since = request.began;
        for _ in 0..TRIES {
            let guard = self.key(key, *deadline).await?;
            let anew = match resolved {
                Some(resolved) => self.make_live(resolved, since, *deadline).await?,
                None if self.is_live(key, since).await? => false,
                None => return Ok(false),
            };
            let held = self.hold(key);
            drop(guard);
            // Kubelet was told of a failure, looks at the target when it comes again, and would take a bind for success.
            if request.abandoned.is_set() {
                let target = target.path.display().to_string();
                return Err(Fault::new(FaultKind::Cancelled, "bind onto", target, "its caller went away"));
            }
            let Some((_hold, device)) = held else { continue };
            let source = Source { key, device, node: *node };
            if anew {
                self.heal_binds(source, Some(&request.reference)).await;
            }
            let bound = self.bind_to(source, &request.reference, *volume, target).await;
            if self.is_still(key, device) {
                bound?;
                self.touch(&request.reference, key);
                return Ok(true);
            }
            since = Instant::now();
        }
        let detail = "it dies as soon as it is mounted";
        Err(Fault::new(FaultKind::Unavailable, "mount", key.as_str(), detail))
    }

    /// Keeps a mount that nobody refers to, as its caller may come again.
    fn linger(&self, key: &MountKey) {
        if let Some(mount) = self.tables.lock().mounts.get_mut(key) {
            mount.linger_until = Some(Instant::now() + self.config.linger);
        }
    }

    pub(crate) async fn resolve(
        &self,
        spec: &VolumeSpec,
        caller: &Caller,
        subject: &str,
        deadline: Instant,
    ) -> Result<Resolved, Fault> {
        let backend = self.backend(spec.driver())?;
        timeout_at(deadline, backend.resolve(spec, caller))
            .await
            .map_err(|_| late("read the configuration for", subject, "gave no answer in time"))?
    }
}
