//! NodeGetVolumeHealth and NodeGetStorageHealth (CSI 1.13, which has them instead of VolumeCondition).
//!
//! A volume whose mount works has no entry. One that works badly (no server answers, a cache that cannot be written) is
//! DEGRADED, one that nobody serves INACCESSIBLE. `reason` is one word per situation, `message` what the worker says.

use proto::csi::v1::node_get_storage_health_response::StorageBackendHealth;
use proto::csi::v1::{
    NodeGetStorageHealthResponse, NodeGetVolumeHealthRequest, NodeGetVolumeHealthResponse,
    StorageHealthErrorType, VolumeHealthErrorType,
};
use tonic::Status;
use volume::{MountStatus, RefId};

use super::{NodeService, reference};
use crate::fields;
use crate::health::{self, Trouble};

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
        let counts = |held: &RefId| places.is_empty() || places.contains(held);
        let used = health::mounts_of(volume_id, &mounts, counts);
        let mut known = false;
        let mut troubles = Vec::new();
        for mount in used {
            known = true;
            troubles.extend(health::of_mount(mount));
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
        Ok(NodeGetVolumeHealthResponse { volume_health: Some(health::of(volume_id, troubles)) })
    }

    /// The driver's storage as this node sees it: its mounts that are in use.
    pub(super) async fn storage_health(&self) -> NodeGetStorageHealthResponse {
        let driver = self.service.driver();
        let mounts = self.service.volumes.mounts().await;
        let used: Vec<&MountStatus> =
            mounts.iter().filter(|mount| mount.backend == driver && !mount.references.is_empty()).collect();
        let ill: Vec<(&MountStatus, Trouble)> =
            used.iter().filter_map(|mount| Some((*mount, health::of_mount(mount)?))).collect();
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
