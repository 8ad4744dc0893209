//! NodeGetVolumeHealth and NodeGetStorageHealth (CSI 1.13, which has them instead of VolumeCondition).
//!
//! A volume whose mount works has no entry. One that works badly (no server answers, a cache that cannot be written) is
//! DEGRADED, one that nobody serves INACCESSIBLE. `reason` is one word per situation, `message` what the worker says.

use std::collections::BTreeSet;

use proto::csi::v1::node_get_storage_health_response::StorageBackendHealth;
use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{
    NodeGetStorageHealthResponse, NodeGetVolumeHealthRequest, NodeGetVolumeHealthResponse,
    StorageHealthErrorType, VolumeHealth, VolumeHealthErrorType,
};
use tonic::Status;
use volume::{Frontend, MountState, MountStatus};

use super::{NodeService, reference};
use crate::fields;

/// What is wrong, in the interface's words.
struct Trouble {
    status: VolumeHealthErrorType,
    reason: &'static str,
    message: String,
}

impl NodeService {
    /// By a path where one is given, else over all places of the volume on this node.
    pub(super) async fn volume_health(
        &self,
        request: NodeGetVolumeHealthRequest,
    ) -> Result<NodeGetVolumeHealthResponse, Status> {
        let volume_id = fields::volume_id(&request.volume_id)?;
        let paths = [&request.volume_publish_path, &request.staging_target_path];
        let mut places = Vec::new();
        for path in paths.into_iter().filter(|path| !path.is_empty()) {
            places.push(reference(volume_id, fields::looked_up("volume_publish_path", path)?));
        }
        let mounts = self.service.volumes.mounts().await;
        let used = mounts.iter().filter(|mount| {
            mount.references.iter().any(|held| {
                let of_volume = held.frontend == Frontend::Csi && held.scope == volume_id;
                of_volume && (places.is_empty() || places.contains(held))
            })
        });
        let mut known = false;
        let mut troubles = Vec::new();
        for mount in used {
            known = true;
            troubles.extend(trouble(mount));
        }
        // A failed publish beside a live staging place is trouble as well.
        if let Some(fault) = self.failures.of(volume_id) {
            known = true;
            let status = VolumeHealthErrorType::Inaccessible;
            troubles.push(Trouble { status, reason: "MountFailed", message: fault.to_string() });
        }
        if !known {
            let text = format!("volume {volume_id} is not used on this node");
            return Err(Status::not_found(text));
        }
        let mut told = BTreeSet::new();
        let entries =
            troubles.into_iter().filter(|trouble| told.insert((trouble.status as i32, trouble.reason)));
        let health_statuses = entries
            .map(|trouble| VolumeHealthEntry {
                status: trouble.status.into(),
                reason: trouble.reason.to_owned(),
                message: trouble.message,
            })
            .collect();
        let health = VolumeHealth { volume_id: volume_id.to_owned(), health_statuses };
        Ok(NodeGetVolumeHealthResponse { volume_health: Some(health) })
    }

    /// The driver's storage as this node sees it: its mounts that are in use.
    pub(super) async fn storage_health(&self) -> NodeGetStorageHealthResponse {
        let driver = self.service.driver();
        let mounts = self.service.volumes.mounts().await;
        let used: Vec<&MountStatus> =
            mounts.iter().filter(|mount| mount.backend == driver && !mount.references.is_empty()).collect();
        let ill: Vec<(&MountStatus, Trouble)> =
            used.iter().filter_map(|mount| Some((*mount, trouble(mount)?))).collect();
        let Some((mount, first)) = ill.first() else { return NodeGetStorageHealthResponse::default() };
        let gone = ill.iter().all(|(_, trouble)| trouble.status == VolumeHealthErrorType::Inaccessible);
        let (status, reason) = if gone && ill.len() == used.len() {
            (StorageHealthErrorType::StorageUnreachable, "AllMountsDead")
        } else {
            (StorageHealthErrorType::StorageDegraded, "MountsIll")
        };
        let message = format!(
            "{} of {} mounts of {driver} on this node have trouble; {}: {}",
            ill.len(),
            used.len(),
            mount.key,
            first.message
        );
        let backend = StorageBackendHealth {
            status: status.into(),
            reason: reason.to_owned(),
            message,
            volume_capability: None,
        };
        NodeGetStorageHealthResponse { backend_health: vec![backend] }
    }
}

/// What is wrong with a mount that somebody uses; `None`: nothing.
fn trouble(mount: &MountStatus) -> Option<Trouble> {
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
