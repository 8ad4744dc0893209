//! Volumes by name: defining, removing, showing.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::Instant;
use volume::{
    Caller, Driver, Fault, FaultKind, Frontend, MountKey, OptionMap, RefId, VolumeInfo, VolumeName,
    VolumeSpec,
};

use crate::core::{Core, now};
use crate::kernel::Asked;
use crate::mounting::LetGo;
use crate::table::{Change, VolumeRow};

/// Volumes that may be defined; each takes a few kilobytes of memory and journal.
const VOLUMES: usize = 100_000;
/// Bytes of all options of a volume together.
const OPTION_BYTES: usize = 256 * 1024;

pub(crate) fn unknown(driver: Driver, name: &VolumeName) -> Fault {
    let detail = format!("no {driver} volume has this name; define it first");
    Fault::new(FaultKind::NotFound, "find volume", name.as_str(), detail)
}

impl Core {
    pub(crate) async fn define(
        self: &Arc<Self>,
        driver: Driver,
        name: &VolumeName,
        options: &OptionMap,
        caller: &Caller,
    ) -> Result<VolumeInfo, Fault> {
        let bytes: usize = options.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > OPTION_BYTES {
            let detail = format!("its options have {bytes} bytes; {OPTION_BYTES} is the limit");
            return Err(Fault::new(FaultKind::InvalidArgument, "define volume", name.as_str(), detail));
        }
        let deadline = Instant::now() + self.config.release;
        let lane = self.lanes.enter(&name.as_str().to_owned(), deadline).await;
        let lane = lane.map_err(|_| {
            let detail = "another operation on it is under way; try again later";
            Fault::new(FaultKind::Busy, "define volume", name.as_str(), detail)
        })?;
        let spec =
            self.backend(driver)?.parse(Some(name.as_str()), options, &volume::Form::default(), caller);
        if let Some(info) = self.same(driver, name, options, spec.as_ref())? {
            return Ok(info);
        }
        let (core, name, options, spec) = (self.clone(), name.clone(), options.clone(), spec?);
        let caller = caller.clone();
        let subject = name.to_string();
        let work = async move {
            let _lane = lane;
            let row = VolumeRow { spec, options, created_at: now(), last_key: None };
            core.commit(vec![Change::PutVolume(driver, name.clone(), row)]).await?;
            tracing::info!(volume = %name, %driver, "volume defined");
            let info = core.get(driver, &name);
            match caller.frontend {
                Frontend::Podman => drop(tokio::spawn(core.warm(driver, name, caller))),
                Frontend::Docker | Frontend::Flexvolume | Frontend::Csi | Frontend::Cli => {}
            }
            info
        };
        self.complete("define volume", &subject, deadline, work).await
    }

    /// The volume, if it is defined just so already; an error if it is defined otherwise.
    fn same(
        &self,
        driver: Driver,
        name: &VolumeName,
        options: &OptionMap,
        spec: Result<&VolumeSpec, &Fault>,
    ) -> Result<Option<VolumeInfo>, Fault> {
        let tables = self.tables.lock();
        let Some(volume) = tables.volumes.get(&(driver, name.clone())) else {
            if tables.volumes.len() >= VOLUMES {
                let detail = format!("{VOLUMES} volumes are defined; remove some");
                return Err(Fault::new(FaultKind::ResourceExhausted, "define volume", name.as_str(), detail));
            }
            return Ok(None);
        };
        // An engine that was told an error by Get defines again, without the options it never knew.
        let same =
            options.is_empty() || *options == volume.row.options || spec.is_ok_and(|s| *s == volume.row.spec);
        if same {
            return Ok(Some(volume.info(name, &tables, &self.config.mount_dir)));
        }
        let detail = format!(
            "it is defined with {}, not with {}; remove it first or choose another name",
            shown(&volume.row.options),
            shown(options)
        );
        Err(Fault::new(FaultKind::AlreadyExists, "define volume", name.as_str(), detail))
    }

    pub(crate) fn get(&self, driver: Driver, name: &VolumeName) -> Result<VolumeInfo, Fault> {
        let tables = self.tables.lock();
        let volume = tables.volumes.get(&(driver, name.clone())).ok_or_else(|| unknown(driver, name))?;
        Ok(volume.info(name, &tables, &self.config.mount_dir))
    }

    pub(crate) fn list(&self, driver: Driver) -> Vec<VolumeInfo> {
        let tables = self.tables.lock();
        let of_driver = tables.volumes.iter().filter(|((of, _), _)| *of == driver);
        of_driver.map(|((_, name), volume)| volume.info(name, &tables, &self.config.mount_dir)).collect()
    }

    pub(crate) async fn remove(self: &Arc<Self>, driver: Driver, name: &VolumeName) -> Result<(), Fault> {
        let deadline = Instant::now() + self.config.release;
        let lane = self.lanes.enter(&name.as_str().to_owned(), deadline).await;
        let lane = lane.map_err(|_| {
            let detail = "another operation on it is under way; try again later";
            Fault::new(FaultKind::Busy, "remove volume", name.as_str(), detail)
        })?;
        let (core, subject) = (self.clone(), name.clone());
        let work = async move {
            let _lane = lane;
            core.wait_ready(deadline).await?;
            core.remove_in_lane(driver, &subject, deadline).await
        };
        self.complete("remove volume", name.as_str(), deadline, work).await
    }

    async fn remove_in_lane(
        &self,
        driver: Driver,
        name: &VolumeName,
        deadline: Instant,
    ) -> Result<(), Fault> {
        self.get(driver, name)?;
        let keys = self.keys_of(driver, name);
        for key in &keys {
            self.refuse_if_seen(key, name).await?;
        }
        // From here on the engine will not ask for it again: what remains is taken away piece by piece.
        for key in &keys {
            let _guard = self.key(key, deadline).await?;
            let references = self.references_of(key, name);
            if !references.is_empty() {
                tracing::info!(volume = %name, %key, ?references, "references end with their volume");
            }
            self.drop_references(&references).await?;
            if let LetGo::Seen(_) | LetGo::Failed(_) = self.let_go(key).await {
                self.sweep_soon.notify_one();
            }
        }
        self.commit(vec![Change::DropVolume(driver, name.clone())]).await?;
        tracing::info!(volume = %name, %driver, "volume removed");
        Ok(())
    }

    /// The mounts that a volume is or was used through.
    fn keys_of(&self, driver: Driver, name: &VolumeName) -> BTreeSet<MountKey> {
        let tables = self.tables.lock();
        let last = tables.volumes.get(&(driver, name.clone())).and_then(|volume| volume.row.last_key.clone());
        let referred = tables.mounts.iter().filter(|(_, mount)| {
            mount.row.driver == driver
                && mount.references.values().any(|held| held.row.volume.as_ref() == Some(name))
        });
        let referred: BTreeSet<_> = referred.map(|(key, _)| key.clone()).collect();
        referred.into_iter().chain(last.filter(|key| tables.mounts.contains_key(key))).collect()
    }

    fn references_of(&self, key: &MountKey, name: &VolumeName) -> Vec<RefId> {
        let tables = self.tables.lock();
        let references = tables.mounts.get(key).into_iter().flat_map(|mount| &mount.references);
        references
            .filter(|(_, held)| held.row.volume.as_ref() == Some(name))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// An engine that forgot a volume (an error to its Get is enough) removes it while a container runs. Only the
    /// mount namespaces know. A mount that others refer to, and this volume does not, is theirs.
    async fn refuse_if_seen(&self, key: &MountKey, name: &VolumeName) -> Result<(), Fault> {
        let asked = {
            let tables = self.tables.lock();
            let Some(mount) = tables.mounts.get(key) else { return Ok(()) };
            let others = mount.references.values().any(|held| held.row.volume.as_ref() != Some(name));
            let own = mount.references.values().any(|held| held.row.volume.as_ref() == Some(name));
            if others && !own {
                return Ok(());
            }
            Asked { primary: mount.row.mountpoint.clone(), device: mount.row.device }
        };
        match self.kernel.seen(&[asked]).await?.pop().flatten() {
            None => Ok(()),
            Some(who) => {
                let detail = format!("it is in use: {who} shows it; stop what uses it first");
                Err(Fault::new(FaultKind::InUse, "remove volume", name.as_str(), detail))
            }
        }
    }
}

fn shown(options: &OptionMap) -> String {
    if options.is_empty() {
        return "no options".to_owned();
    }
    let mut text: Vec<String> = options
        .iter()
        .take(20)
        .map(|(key, value)| {
            let short: String = value.chars().take(80).collect();
            format!("{key}={short}")
        })
        .collect();
    if options.len() > 20 {
        text.push("…".to_owned());
    }
    text.join(" ")
}
