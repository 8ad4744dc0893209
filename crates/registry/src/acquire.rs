//! Making a volume available to somebody.

use std::sync::Arc;

use host::mount::place::Node;
use tokio::time::Instant;
use volume::{
    Acquired, Caller, Driver, Fault, FaultKind, MountKey, MountState, RefId, Target, VolumeName, VolumeSpec,
};

use crate::bind::Source;
use crate::core::{Core, dated};
use crate::delivery::Abandoned;
use crate::mounting::LetGo;
use crate::publish::repeats;
use crate::table::{Change, ReferenceRow};

/// A reference's texts are journalled and compared, not looked into; each may have so many bytes.
const TEXT_LIMIT: usize = 4096;

/// What is wanted, by whom, where.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) what: What,
    pub(crate) reference: RefId,
    pub(crate) target: Target,
    /// When it came in: a look at the mount that began later is news enough for it.
    pub(crate) began: Instant,
    /// Whether its caller has gone away meanwhile.
    pub(crate) abandoned: Abandoned,
}

impl Request {
    /// One that comes in now.
    pub(crate) fn new(what: What, reference: &RefId, target: &Target) -> Self {
        Request {
            what,
            reference: reference.clone(),
            target: target.clone(),
            began: Instant::now(),
            abandoned: Abandoned::default(),
        }
    }
}

/// A volume by its name, or described.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Named(Driver, VolumeName),
    Given(VolumeSpec, Caller),
}

impl Core {
    pub(crate) async fn acquire(self: &Arc<Self>, request: Request) -> Result<Acquired, Fault> {
        let reference = request.reference.clone();
        if reference.scope.len() > TEXT_LIMIT || reference.id.len() > TEXT_LIMIT {
            let detail = format!("scope and id of a reference may have {TEXT_LIMIT} bytes each");
            return Err(Fault::new(FaultKind::InvalidArgument, "mount", "", detail));
        }
        if let Target::Bind(target) = &request.target {
            self.check_target(&target.path)?;
        }
        let deadline = Instant::now() + self.config.acquire;
        // Until here the caller can hang up and nothing has begun.
        let lane = self.lane(&reference, deadline).await?;
        let (core, abandoned) = (self.clone(), request.abandoned.clone());
        let work = async move { core.acquire_in_lane(&request, deadline).await };
        self.deliver(reference, lane, deadline, abandoned, work).await
    }

    /// The path, and whether the reference was not held before.
    async fn acquire_in_lane(&self, request: &Request, deadline: Instant) -> Result<(Acquired, bool), Fault> {
        self.wait_ready(deadline).await?;
        let (spec, volume, caller) = match &request.what {
            What::Named(driver, name) => {
                let spec = self.spec_of(*driver, name);
                let spec = spec.ok_or_else(|| crate::define::unknown(*driver, name))?;
                (spec, Some((*driver, name)), Caller::admin(request.reference.frontend))
            }
            What::Given(spec, caller) => (spec.clone(), None, caller.clone()),
        };
        let outcome =
            self.acquire_spec(request, &spec, volume.map(|(_, name)| name), &caller, deadline).await;
        if let Some((driver, name)) = volume {
            self.note_volume_error(driver, name, outcome.as_ref().err());
        }
        outcome
    }

    pub(crate) fn spec_of(&self, driver: Driver, name: &VolumeName) -> Option<VolumeSpec> {
        self.tables.lock().volumes.get(&(driver, name.clone())).map(|volume| volume.row.spec.clone())
    }

    /// For those who look at a volume that is not mounted.
    pub(crate) fn note_volume_error(&self, driver: Driver, name: &VolumeName, fault: Option<&Fault>) {
        if let Some(volume) = self.tables.lock().volumes.get_mut(&(driver, name.clone())) {
            volume.last_error = fault.map(|fault| dated(&fault.to_string()));
        }
    }

    async fn acquire_spec(
        &self,
        request: &Request,
        spec: &VolumeSpec,
        volume: Option<&VolumeName>,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<(Acquired, bool), Fault> {
        match &request.target {
            Target::Shared => self.acquire_shared(request, spec, volume, caller, deadline).await,
            Target::Bind(target) => self.acquire_at(request, target, spec, volume, caller, deadline).await,
        }
    }

    async fn acquire_shared(
        &self,
        request: &Request,
        spec: &VolumeSpec,
        volume: Option<&VolumeName>,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<(Acquired, bool), Fault> {
        let reference = &request.reference;
        let resolved = self.resolve(spec, caller, &reference.scope, deadline).await?;
        let key = &resolved.key;
        if self.key_of(reference).is_some_and(|held| held != *key) {
            // The volume or the configuration was changed since: the old use is over.
            self.release_in_lane(reference, false).await?;
        }
        let guard = self.key(key, deadline).await?;
        let before = self.held(reference).filter(|held| held.settled);
        let provided = async {
            let anew = self.make_live(&resolved, request.began, deadline).await?;
            if anew && let Some((_hold, device)) = self.hold(key) {
                self.heal_binds(Source { key, device, node: Node::Directory }, Some(reference)).await;
            }
            self.refer(reference, key, volume, before.as_ref()).await?;
            Ok::<_, Fault>(self.mountpoint(key))
        };
        match provided.await {
            Ok(path) => {
                self.touch(reference, key);
                self.remember_key(spec.driver(), volume, key).await;
                tracing::info!(%reference, %key, path = %path.display(), again = before.is_some(), "acquired");
                Ok((Acquired { path }, before.is_none()))
            }
            Err(fault) => {
                self.remember(key, &fault.to_string());
                drop(guard);
                self.take_back(reference, key, before.is_some()).await;
                Err(fault)
            }
        }
    }

    /// Records a reference without a bind.
    async fn refer(
        &self,
        reference: &RefId,
        key: &MountKey,
        volume: Option<&VolumeName>,
        before: Option<&ReferenceRow>,
    ) -> Result<(), Fault> {
        if before.is_some_and(|before| before.volume.as_ref() == volume) {
            return Ok(());
        }
        let bind = before.and_then(|before| before.bind.clone());
        let row = ReferenceRow { key: key.clone(), volume: volume.cloned(), bind, settled: true };
        self.commit(vec![Change::PutReference(reference.clone(), row)]).await
    }

    pub(crate) fn touch(&self, reference: &RefId, key: &MountKey) {
        let mut tables = self.tables.lock();
        if let Some(mount) = tables.mounts.get_mut(key) {
            mount.linger_until = None;
            if let Some(held) = mount.references.get_mut(reference) {
                held.renewed = Instant::now();
            }
        }
    }

    /// Remembers which mount a volume is used through, for its removal after a loss of references.
    pub(crate) async fn remember_key(&self, driver: Driver, volume: Option<&VolumeName>, key: &MountKey) {
        let Some(name) = volume else { return };
        let row = self.tables.lock().volumes.get(&(driver, name.clone())).map(|volume| volume.row.clone());
        if let Some(mut row) = row.filter(|row| row.last_key.as_ref() != Some(key)) {
            row.last_key = Some(key.clone());
            if let Err(fault) = self.commit(vec![Change::PutVolume(driver, name.clone(), row)]).await {
                tracing::warn!(volume = %name, %fault, "the mount of a volume could not be noted");
            }
        }
    }

    /// After a failed acquire. A reference that was not held before is not held now. One that was held goes too when
    /// there is no mount left that it could stand for: no engine sends an Unmount after a failed Mount, and kubelet takes
    /// what is left at a target for success. Only what a person has bound stays until that person takes it away.
    pub(crate) async fn take_back(&self, reference: &RefId, key: &MountKey, held_before: bool) {
        let Some(row) = self.held(reference) else {
            self.let_go_now(key).await;
            return;
        };
        let gone = self.state(key) != MountState::Live;
        let drop = match (held_before, &row.bind) {
            (false, None) => true,
            (true, None) => gone,
            (true, Some(_)) if !gone || !repeats(reference.frontend) => false,
            (_, Some(bind)) => match self.unbind(reference, bind, false).await {
                Ok(()) => true,
                Err(fault) => {
                    tracing::warn!(%reference, %fault, "the target of a failed mount could not be freed");
                    false
                }
            },
        };
        if drop {
            match self.commit(vec![Change::DropReference(reference.clone())]).await {
                Ok(()) => tracing::info!(%reference, %key, "reference dropped after a failed mount"),
                Err(fault) => tracing::warn!(%reference, %fault, "reference of a failed mount stays"),
            }
        }
        self.let_go_now(key).await;
    }

    /// Under the key's guard, unless it is wanted by others for too long: the sweeper has time.
    pub(crate) async fn let_go_now(&self, key: &MountKey) {
        let gone = match self.key(key, Instant::now() + self.config.release).await {
            Ok(_guard) => self.let_go(key).await,
            Err(fault) => LetGo::Failed(fault),
        };
        match gone {
            LetGo::Gone | LetGo::Referred => {}
            LetGo::Seen(_) | LetGo::Failed(_) => self.sweep_soon.notify_one(),
        }
    }
}
