//! NodeStageVolume and NodeUnstageVolume.
//!
//! Staging mounts the volume at the registry's own place and holds it there. Nothing is bound to the staging path: before
//! it asks to unstage, kubelet looks for other mounts of the same file system (`GetDeviceMountRefs`), and would find the
//! registry's, and those of other volumes that share it, and refuse for ever to unstage. NodePublishVolume binds from the
//! registry's place; the specification leaves it to the plugin what staging does.

use proto::csi::v1::{
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};
use tonic::Status;
use volume::Target;

use super::publish::Mounting;
use super::{NodeService, reference};
use crate::context::Context;
use crate::request::usage;
use crate::{fields, status};

impl NodeService {
    /// Mounts the volume and holds the mount. A repeat (kubelet was restarted, or gave up waiting) heals what is dead and
    /// leaves alone what works.
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
        let publish_context = request.publish_context;
        self.mount(Mounting { volume_id, path, wanted, context, publish_context, target: Target::Shared })
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
