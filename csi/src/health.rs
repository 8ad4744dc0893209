//! The health of a volume in the interface's words (CSI 1.13, which has it instead of VolumeCondition): what is wrong with
//! it, one entry for each situation; none is healthy.

use std::collections::BTreeSet;

use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{VolumeHealth, VolumeHealthErrorType};
use volume::{Frontend, MountState, MountStatus, RefId, Severity};

/// What is wrong, in the interface's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// How bad.
    pub(crate) status: VolumeHealthErrorType,
    /// One word for each situation.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

/// Health of a volume with these troubles; those of one situation are one entry.
pub(crate) fn of(volume: &str, troubles: impl IntoIterator<Item = Trouble>) -> VolumeHealth {
    let mut told = BTreeSet::new();
    let each = troubles.into_iter().filter(|trouble| told.insert((trouble.status as i32, trouble.reason)));
    let entries = each.map(|trouble| VolumeHealthEntry {
        status: trouble.status.into(),
        reason: trouble.reason.to_owned(),
        message: trouble.message,
    });
    VolumeHealth { volume_id: volume.to_owned(), health_statuses: entries.collect() }
}

/// What is wrong with a mount that somebody uses; `None`: nothing.
pub(crate) fn of_mount(mount: &MountStatus) -> Option<Trouble> {
    use VolumeHealthErrorType::{Degraded, Inaccessible};
    let (status, reason) = match mount.state {
        MountState::Live if mount.health == "healthy" => return None,
        MountState::Live => (Degraded, "Degraded"),
        MountState::Attaching => (Inaccessible, "BeingMounted"),
        MountState::Stale => (Inaccessible, "MountDead"),
        MountState::Absent | MountState::Detaching => (Inaccessible, "NotMounted"),
    };
    let mut message = format!("{}: {}", mount.key, mount.health);
    if let Some(error) = mount.last_error.as_ref().filter(|error| !message.contains(error.as_str())) {
        message = format!("{message}; last error: {error}");
    }
    Some(Trouble { status, reason, message })
}

/// What the storage says of a volume.
pub(crate) fn of_storage(trouble: &volume::Trouble) -> Trouble {
    let (status, reason) = match trouble.severity {
        Severity::Degraded => (VolumeHealthErrorType::Degraded, "StorageDegraded"),
        Severity::Inaccessible => (VolumeHealthErrorType::Inaccessible, "StorageInaccessible"),
        Severity::DataLoss => (VolumeHealthErrorType::DataLoss, "DataLost"),
    };
    Trouble { status, reason, message: trouble.detail.clone() }
}

/// The mounts that hold a reference of a CSI volume, of those references that `counts` lets through.
pub(crate) fn mounts_of<'a>(
    volume: &'a str,
    mounts: &'a [MountStatus],
    counts: impl Fn(&RefId) -> bool + 'a,
) -> impl Iterator<Item = &'a MountStatus> {
    let holds = move |held: &RefId| held.frontend == Frontend::Csi && held.scope == volume && counts(held);
    mounts.iter().filter(move |mount| mount.references.iter().any(&holds))
}
