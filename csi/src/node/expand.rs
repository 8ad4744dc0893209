//! NodeExpandVolume: the node's part of growing a volume.

use proto::csi::v1::{NodeExpandVolumeRequest, NodeExpandVolumeResponse};
use tonic::Status;

use super::{NodeService, reference};
use crate::{fields, request, status};

impl NodeService {
    /// Kubelet names the pod's target path as `volume_path`; the staging path serves as well.
    pub(super) async fn expand(
        &self,
        wanted: NodeExpandVolumeRequest,
    ) -> Result<NodeExpandVolumeResponse, Status> {
        let volume_id = fields::volume_id(&wanted.volume_id)?;
        fields::show("path", &wanted.volume_path);
        let path = fields::looked_up("volume_path", &wanted.volume_path)?;
        if !self.abilities()?.grow {
            let text = format!("volumes of {} have no size that could grow", self.service.driver());
            return Err(Status::unimplemented(text));
        }
        let size = request::size(wanted.capacity_range)?;
        let grown = self.service.volumes.grow(&reference(volume_id, path), size).await;
        let size = grown.map_err(|fault| status::of(&fault))?;
        Ok(NodeExpandVolumeResponse { capacity_bytes: i64::try_from(size).unwrap_or(i64::MAX) })
    }
}
