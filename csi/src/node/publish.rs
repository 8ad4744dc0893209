//! NodePublishVolume and NodeUnpublishVolume.
//!
//! Where all mounts of a driver are read-only (CVMFS), every mode of a single node is taken, also those for writers:
//! kubelet sends one for inline volumes and for ReadWriteOnce, and nobody is misled, as a write fails with EROFS. Modes
//! for writers on several nodes promise that what one node writes others will see; they are refused with the reason.
//! SINGLE_NODE_SINGLE_WRITER (ReadWriteOncePod) is kept whether or not anything can be written: who asks for it says that
//! one workload uses the volume, so a second target is refused. Inline volumes are never in the way of each other
//! (kubelet makes an id for each).

use std::collections::HashMap;
use std::path::PathBuf;

use proto::csi::v1::{
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse,
};
use tonic::Status;
use volume::{BindTarget, Sharing, Target};

use super::{NodeService, leftover, reference};
use crate::context::Context;
use crate::request::{Usage, usage};
use crate::{fields, status};

/// A volume that shall appear at a path, or be held for it.
pub(super) struct Mounting<'a> {
    pub(super) volume_id: &'a str,
    pub(super) path: PathBuf,
    pub(super) wanted: Usage,
    pub(super) context: Context,
    pub(super) publish_context: HashMap<String, String>,
    /// Whether it is bound to the path, and how.
    pub(super) target: Target,
}

impl NodeService {
    /// Binds the volume to the target path; mounts it first where it is not staged (inline volumes, or a node that was
    /// booted since).
    pub(super) async fn publish(
        &self,
        request: NodePublishVolumeRequest,
    ) -> Result<NodePublishVolumeResponse, Status> {
        let volume_id = fields::volume_id(&request.volume_id)?;
        fields::show("path", &request.target_path);
        let path = fields::path("target_path", &request.target_path, self.kubelet_dir())?;
        let staged = !request.staging_target_path.is_empty();
        if staged {
            fields::path("staging_target_path", &request.staging_target_path, self.kubelet_dir())?;
        }
        let abilities = self.abilities()?;
        let wanted = usage("volume_capability", request.volume_capability.as_ref(), abilities)?;
        let context = Context::read(volume_id, request.volume_context, request.secrets, staged)?;
        let sharing = if wanted.alone { Sharing::Single } else { Sharing::Shared };
        let read_only = request.readonly || !abilities.writable || wanted.reader;
        let beneath = Some(self.kubelet_dir().to_owned());
        let target = Target::Bind(BindTarget { path: path.clone(), beneath, read_only, sharing });
        let publish_context = request.publish_context;
        self.mount(Mounting { volume_id, path, wanted, context, publish_context, target }).await?;
        Ok(NodePublishVolumeResponse {})
    }

    /// Makes the volume appear. The registry keeps the promise that a failure, a deadline or a caller that went away
    /// leaves nothing behind.
    pub(super) async fn mount(&self, mounting: Mounting<'_>) -> Result<(), Status> {
        let Mounting { volume_id, path, wanted, mut context, publish_context, target } = mounting;
        let driver = self.service.driver();
        let volumes = &self.service.volumes;
        if volumes.abilities(driver).is_ok_and(|abilities| abilities.publish.is_some()) {
            context.publish(publish_context)?;
        }
        let reference = reference(volume_id, path.to_string_lossy());
        let mounted = async {
            let spec =
                volumes.parse(driver, Some(volume_id), &context.options, &wanted.form, &context.caller)?;
            volumes.acquire(&spec, &reference, &target, &context.caller).await
        };
        match mounted.await {
            Ok(_) => {
                self.failures.forget(volume_id);
                Ok(())
            }
            Err(fault) => {
                self.failures.note(volume_id, &fault);
                Err(status::of(&fault))
            }
        }
    }

    /// Takes the target away. Success also if it was never published, or not by this life of the daemon; what is left of
    /// the target then is removed, if it is empty.
    pub(super) async fn unpublish(
        &self,
        request: NodeUnpublishVolumeRequest,
    ) -> Result<NodeUnpublishVolumeResponse, Status> {
        let volume_id = fields::volume_id(&request.volume_id)?;
        fields::show("path", &request.target_path);
        let path = fields::path("target_path", &request.target_path, self.kubelet_dir())?;
        let reference = reference(volume_id, path.to_string_lossy());
        self.service.volumes.release(&reference).await.map_err(|fault| status::of(&fault))?;
        self.failures.forget(volume_id);
        leftover::remove(self.kubelet_dir(), &path).await?;
        Ok(NodeUnpublishVolumeResponse {})
    }
}
