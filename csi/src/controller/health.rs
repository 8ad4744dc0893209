//! ControllerGetVolumeHealth and ControllerListVolumeHealth.

use proto::csi::v1 as csi;
use tonic::Status;
use tracing::Span;
use volume::{MountStatus, StoredVolume, Trouble};

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
    let trouble = trouble(&stored, &mounts);
    Ok(csi::ControllerGetVolumeHealthResponse { volume_health: Some(health::of(&stored.id, trouble)) })
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
    let entry = |stored: &StoredVolume| health::of(&stored.id, trouble(stored, &mounts));
    Ok(csi::ControllerListVolumeHealthResponse {
        entries: listed.entries.iter().map(entry).collect(),
        next_token: listed.next.unwrap_or_default(),
    })
}

/// What the storage says of the volume, or else what its mounts on this node say.
fn trouble(stored: &StoredVolume, mounts: &[MountStatus]) -> Option<Trouble> {
    stored.trouble.clone().or_else(|| health::of_mounts(&stored.id, mounts))
}
