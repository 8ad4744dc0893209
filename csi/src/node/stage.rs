//! NodeStageVolume and NodeUnstageVolume.

use proto::csi::v1::{
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};
use tonic::Status;
use volume::Sharing;

use super::publish::Mounting;
use super::{NodeService, reference};
use crate::context::Context;
use crate::request::usage;
use crate::{fields, status};

impl NodeService {
    /// Mounts the volume and binds it to the staging path. A repeat (kubelet was restarted, or gave up waiting) heals what
    /// is dead and leaves alone what works.
    pub(super) async fn stage(
        &self,
        request: NodeStageVolumeRequest,
    ) -> Result<NodeStageVolumeResponse, Status> {
        let volume_id = fields::volume_id(&request.volume_id)?;
        fields::show("path", &request.staging_target_path);
        let path = fields::path("staging_target_path", &request.staging_target_path, self.kubelet_dir())?;
        let abilities = self.abilities()?;
        let wanted = usage("volume_capability", request.volume_capability.as_ref(), abilities)?;
        let context = Context::read(volume_id, request.volume_context, request.secrets, true)?;
        // Who writes is settled target by target; a staging place is nobody's.
        let read_only = !abilities.writable || wanted.reader;
        self.mount(Mounting {
            volume_id,
            path,
            wanted,
            context,
            publish_context: request.publish_context,
            read_only,
            sharing: Sharing::Staging,
        })
        .await?;
        Ok(NodeStageVolumeResponse {})
    }

    /// Takes the staging place back. The directory is kubelet's own and stays.
    pub(super) async fn unstage(
        &self,
        request: NodeUnstageVolumeRequest,
    ) -> Result<NodeUnstageVolumeResponse, Status> {
        let volume_id = fields::volume_id(&request.volume_id)?;
        fields::show("path", &request.staging_target_path);
        let path = fields::path("staging_target_path", &request.staging_target_path, self.kubelet_dir())?;
        let reference = reference(volume_id, path.to_string_lossy());
        self.service.volumes.release(&reference).await.map_err(|fault| status::of(&fault))?;
        self.failures.forget(volume_id);
        Ok(NodeUnstageVolumeResponse {})
    }
}
