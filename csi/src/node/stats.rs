//! NodeGetVolumeStats: kubelet asks about once a minute for every volume, also inline ones.

use proto::csi::v1::volume_usage::Unit;
use proto::csi::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeUsage};
use tonic::Status;
use volume::Usage;

use super::{NodeService, reference};
use crate::{fields, status};

impl NodeService {
    /// Bytes and inodes where the file system tells them, bytes for a device. The path is looked up among those in use and
    /// never touched, so any unknown one is NOT_FOUND.
    pub(super) async fn stats(
        &self,
        request: NodeGetVolumeStatsRequest,
    ) -> Result<NodeGetVolumeStatsResponse, Status> {
        let volume_id = fields::volume_id(&request.volume_id)?;
        fields::show("path", &request.volume_path);
        let path = fields::looked_up("volume_path", &request.volume_path)?;
        let stats = self.service.volumes.stats(&reference(volume_id, path)).await;
        let stats = stats.map_err(|fault| status::of(&fault))?;
        let parts = [(Unit::Bytes, stats.bytes), (Unit::Inodes, stats.inodes)];
        let usage = parts.into_iter().filter_map(|(unit, usage)| Some(usage_of(unit, usage?))).collect();
        Ok(NodeGetVolumeStatsResponse { usage })
    }
}

fn usage_of(unit: Unit, usage: Usage) -> VolumeUsage {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    VolumeUsage {
        available: number(usage.available),
        total: number(usage.total),
        used: number(usage.used),
        unit: unit.into(),
    }
}
