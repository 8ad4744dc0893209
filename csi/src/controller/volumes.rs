//! ListVolumes and ControllerGetVolume, and a stored volume in the interface's words.

use std::collections::BTreeSet;

use proto::csi::v1 as csi;
use proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use proto::csi::v1::{controller_get_volume_response, list_volumes_response};
use tonic::Status;
use tracing::Span;
use volume::{Frontend, Source, StoredVolume};

use crate::{Service, request, status};

pub(super) async fn list(
    service: &Service,
    asked: csi::ListVolumesRequest,
) -> Result<csi::ListVolumesResponse, Status> {
    let page = super::page(asked.max_entries, &asked.starting_token)?;
    let provision = super::abilities(service)?.provision;
    let listed = provision.volumes(&page).await.map_err(|fault| super::list_status(&fault))?;
    let here = on_this_node(service).await?;
    let entry = |stored: StoredVolume| {
        let published_node_ids = nodes(service, &stored, &here);
        list_volumes_response::Entry {
            volume: Some(as_volume(stored)),
            status: Some(list_volumes_response::VolumeStatus { published_node_ids }),
        }
    };
    Ok(csi::ListVolumesResponse {
        entries: listed.entries.into_iter().map(entry).collect(),
        next_token: listed.next.unwrap_or_default(),
    })
}

pub(super) async fn get(
    service: &Service,
    asked: csi::ControllerGetVolumeRequest,
) -> Result<csi::ControllerGetVolumeResponse, Status> {
    let id = request::required("volume_id", &asked.volume_id)?;
    Span::current().record("volume", id);
    let provision = super::abilities(service)?.provision;
    let stored = provision.volume(id).await.map_err(|fault| status::of(&fault))?;
    let published_node_ids = nodes(service, &stored, &on_this_node(service).await?);
    Ok(csi::ControllerGetVolumeResponse {
        volume: Some(as_volume(stored)),
        status: Some(controller_get_volume_response::VolumeStatus { published_node_ids }),
    })
}

/// Ids of volumes that this node has mounted, of a driver whose volumes need not be opened to a node first: nobody else
/// knows where they are. Empty for other drivers.
async fn on_this_node(service: &Service) -> Result<BTreeSet<String>, Status> {
    if super::abilities(service)?.publish.is_some() {
        return Ok(BTreeSet::new());
    }
    let mounts = service.volumes.mounts().await;
    let references = mounts.into_iter().filter(|mount| mount.backend == service.driver());
    let references = references.flat_map(|mount| mount.references);
    Ok(references.filter(|one| one.frontend == Frontend::Csi).map(|one| one.scope).collect())
}

fn nodes(service: &Service, stored: &StoredVolume, here: &BTreeSet<String>) -> Vec<String> {
    let mut nodes = stored.nodes.clone();
    let own = service.config.node_id.as_str();
    if here.contains(&stored.id) && !nodes.iter().any(|node| node == own) {
        nodes.push(own.to_owned());
    }
    nodes
}

/// A stored volume in the interface's words.
pub(super) fn as_volume(stored: StoredVolume) -> csi::Volume {
    let source = stored.source.map(|source| match source {
        Source::Snapshot(snapshot_id) => Type::Snapshot(SnapshotSource { snapshot_id }),
        Source::Volume(volume_id) => Type::Volume(VolumeSource { volume_id }),
    });
    csi::Volume {
        capacity_bytes: super::signed(stored.size),
        volume_id: stored.id,
        volume_context: stored.context.into_iter().collect(),
        content_source: source.map(|source| csi::VolumeContentSource { r#type: Some(source) }),
        accessible_topology: super::topologies(stored.places),
    }
}
