//! ControllerGetVolumeHealth and ControllerListVolumeHealth.

use proto::csi::v1 as csi;
use tonic::Status;
use tracing::Span;
use volume::{MountStatus, StoredVolume};

use crate::{Service, health, request, status};

pub(super) async fn get(
    service: &Service,
    asked: csi::ControllerGetVolumeHealthRequest,
) -> Result<csi::ControllerGetVolumeHealthResponse, Status> {
    let id = request::required("volume_id", &asked.volume_id)?;
    Span::current().record("volume", id);
    request::secrets(asked.secrets)?;
    let provision = super::abilities(service)?.provision;
    let stored = provision.volume(id).await.map_err(|fault| status::of(&fault))?;
    let mounts = service.volumes.mounts().await;
    Ok(csi::ControllerGetVolumeHealthResponse { volume_health: Some(health(&stored, &mounts)) })
}

pub(super) async fn list(
    service: &Service,
    asked: csi::ControllerListVolumeHealthRequest,
) -> Result<csi::ControllerListVolumeHealthResponse, Status> {
    let page = super::page(asked.max_entries, &asked.starting_token)?;
    request::secrets(asked.secrets)?;
    let provision = super::abilities(service)?.provision;
    let listed = provision.volumes(&page).await.map_err(|fault| super::list_status(&fault))?;
    let mounts = service.volumes.mounts().await;
    Ok(csi::ControllerListVolumeHealthResponse {
        entries: listed.entries.iter().map(|stored| health(stored, &mounts)).collect(),
        next_token: listed.next.unwrap_or_default(),
    })
}

/// What the storage says of the volume, and what its mounts on this node say.
fn health(stored: &StoredVolume, mounts: &[MountStatus]) -> csi::VolumeHealth {
    let mounted = health::mounts_of(&stored.id, mounts, |_| true).filter_map(health::of_mount);
    health::of(&stored.id, stored.trouble.iter().map(health::of_storage).chain(mounted))
}
