//! Volumes and mounts as they are shown. From memory, at once.

use std::path::Path;

use volume::{MountKey, MountState, MountStatus, RefId, VolumeInfo, VolumeName};

use crate::table::{Mount, Tables, Volume};

impl Mount {
    pub(crate) fn status(&self, key: &MountKey) -> MountStatus {
        let report = self.report.as_ref();
        let health = match self.row.state {
            MountState::Live => match report.and_then(|report| report.trouble.clone()) {
                Some(trouble) => trouble,
                None => "healthy".to_owned(),
            },
            MountState::Absent => "not mounted; mounted at the next request".to_owned(),
            MountState::Stale => "dead; mounted anew at the next request".to_owned(),
            MountState::Attaching => "being mounted".to_owned(),
            MountState::Detaching => "being unmounted".to_owned(),
        };
        MountStatus {
            key: key.clone(),
            backend: self.row.driver,
            state: self.row.state,
            mountpoint: self.row.mountpoint.clone(),
            worker_pid: report.map(|report| report.pid).filter(|pid| *pid > 0),
            references: self.references.keys().cloned().collect(),
            in_use_without_reference: self.seen
                && self.references.is_empty()
                && self.row.state != MountState::Absent,
            last_error: self
                .last_error
                .clone()
                .or_else(|| report.and_then(|report| report.last_error.clone())),
            revision: report.and_then(|report| report.revision.clone()),
            health,
            restarts: report.map_or(0, |report| report.restarts),
            details: report.map(|report| report.details.clone()).unwrap_or_default(),
        }
    }
}

impl Volume {
    pub(crate) fn info(&self, name: &VolumeName, tables: &Tables, mount_dir: &Path) -> VolumeInfo {
        let key = self.row.last_key.as_ref();
        let mount = key.and_then(|key| Some((key, tables.mounts.get(key)?)));
        let mounted = mount.filter(|(_, mount)| mount.row.state != MountState::Absent);
        let failed = || {
            // Nothing is mounted, but its newest error is what its user looks for.
            let text = self.last_error.clone()?;
            let key = key.cloned().or_else(|| MountKey::new(name.as_str().replace(':', "_")))?;
            Some(MountStatus {
                mountpoint: mount_dir.join(key.as_str()),
                key,
                backend: self.row.spec.driver(),
                state: MountState::Absent,
                worker_pid: None,
                references: Vec::new(),
                in_use_without_reference: false,
                last_error: Some(text),
                revision: None,
                health: "could not be mounted; tried again at the next request".to_owned(),
                restarts: 0,
                details: Default::default(),
            })
        };
        VolumeInfo {
            name: name.clone(),
            spec: self.row.spec.clone(),
            options: self.row.options.clone(),
            created_at: self.row.created_at,
            mountpoint: mounted.map(|(_, mount)| mount.row.mountpoint.clone()),
            mount: mounted.or(mount).map(|(key, mount)| mount.status(key)).or_else(failed),
        }
    }
}

impl Tables {
    /// The mount that a reference holds.
    pub(crate) fn status_of(&self, reference: &RefId) -> Option<MountStatus> {
        let key = self.key_of(reference)?;
        Some(self.mounts.get(key)?.status(key))
    }

    /// All mounts that are there or that somebody refers to.
    pub(crate) fn statuses(&self) -> Vec<MountStatus> {
        let shown = |mount: &Mount| mount.row.state != MountState::Absent || !mount.references.is_empty();
        self.mounts.iter().filter(|(_, mount)| shown(mount)).map(|(key, mount)| mount.status(key)).collect()
    }
}
