//! The health of a volume in the interface's words (CSI 1.13: no entry is healthy).

use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{VolumeHealth, VolumeHealthErrorType};
use volume::{Frontend, MountState, MountStatus, Severity, Trouble};

/// Health of a volume of which `trouble` is known.
pub(crate) fn of(volume: &str, trouble: Option<Trouble>) -> VolumeHealth {
    let entry = |trouble: Trouble| {
        let (status, reason) = match trouble.severity {
            Severity::Degraded => (VolumeHealthErrorType::Degraded, "Degraded"),
            Severity::Inaccessible => (VolumeHealthErrorType::Inaccessible, "Inaccessible"),
            Severity::DataLoss => (VolumeHealthErrorType::DataLoss, "DataLost"),
        };
        VolumeHealthEntry { status: status.into(), reason: reason.to_owned(), message: trouble.detail }
    };
    VolumeHealth { volume_id: volume.to_owned(), health_statuses: trouble.into_iter().map(entry).collect() }
}

/// What is wrong with a mount: a dead one is inaccessible until the next request heals it, one whose worker complains works
/// worse than it should.
pub(crate) fn of_mount(mount: &MountStatus) -> Option<Trouble> {
    let trouble = |severity, detail: &str| Some(Trouble { severity, detail: detail.to_owned() });
    match mount.state {
        MountState::Stale => {
            let detail = mount.last_error.as_deref().unwrap_or(&mount.health);
            trouble(Severity::Inaccessible, detail)
        }
        MountState::Live if mount.health != "healthy" => trouble(Severity::Degraded, &mount.health),
        MountState::Live | MountState::Absent | MountState::Attaching | MountState::Detaching => None,
    }
}

/// What is wrong with the mounts of a CSI volume on this node; the worst of them.
pub(crate) fn of_mounts(volume: &str, mounts: &[MountStatus]) -> Option<Trouble> {
    let used = mounts.iter().filter(|mount| {
        mount.references.iter().any(|one| one.frontend == Frontend::Csi && one.scope == volume)
    });
    used.filter_map(of_mount).max_by_key(|trouble| match trouble.severity {
        Severity::Degraded => 0,
        Severity::Inaccessible => 1,
        Severity::DataLoss => 2,
    })
}
