//! ControllerPublishVolume and ControllerUnpublishVolume: a volume opened to a node (attach).
//!
//! The external-attacher often sends the same publish twice within milliseconds.

use proto::csi::v1 as csi;
use tonic::Status;
use tracing::Span;

use crate::{Service, request, status};

/// Bytes of a node id (field `NodeGetInfoResponse.node_id`).
const NODE_LIMIT: usize = 256;

pub(super) async fn publish(
    service: &Service,
    asked: csi::ControllerPublishVolumeRequest,
) -> Result<csi::ControllerPublishVolumeResponse, Status> {
    let abilities = super::abilities(service)?;
    let publish = abilities.publish.ok_or_else(|| super::unimplemented(service, "publishing"))?;
    let id = request::required("volume_id", &asked.volume_id)?;
    Span::current().record("volume", id);
    let node = request::bounded("node_id", &asked.node_id, NODE_LIMIT)?
        .ok_or_else(|| status::invalid("node_id", "is missing"))?;
    let can = service.volumes.node_abilities(service.driver()).map_err(|fault| status::of(&fault))?;
    let usage = request::usage("volume_capability", asked.volume_capability.as_ref(), can)?;
    request::map("volume_context", asked.volume_context)?;
    let secrets = request::secrets(asked.secrets)?;
    let read_only = asked.readonly || usage.reader;
    let context = publish.publish(id, node, read_only, usage.single_node, &secrets).await;
    let context = context.map_err(|fault| status::of(&fault))?;
    Ok(csi::ControllerPublishVolumeResponse { publish_context: context.into_iter().collect() })
}

pub(super) async fn unpublish(
    service: &Service,
    asked: csi::ControllerUnpublishVolumeRequest,
) -> Result<csi::ControllerUnpublishVolumeResponse, Status> {
    let abilities = super::abilities(service)?;
    let publish = abilities.publish.ok_or_else(|| super::unimplemented(service, "publishing"))?;
    let id = request::required("volume_id", &asked.volume_id)?;
    Span::current().record("volume", id);
    let node = request::bounded("node_id", &asked.node_id, NODE_LIMIT)?;
    let secrets = request::secrets(asked.secrets)?;
    publish.unpublish(id, node, &secrets).await.map_err(|fault| status::of(&fault))?;
    Ok(csi::ControllerUnpublishVolumeResponse {})
}
