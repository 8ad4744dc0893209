//! CreateSnapshot, DeleteSnapshot, ListSnapshots, GetSnapshot.

use proto::csi::v1 as csi;
use proto::csi::v1::list_snapshots_response::Entry;
use tonic::Status;
use tracing::Span;
use volume::{SnapshotFilter, StoredSnapshot};

use crate::status::invalid;
use crate::{Service, request, status};

fn ability(service: &Service) -> Result<std::sync::Arc<dyn volume::Snapshots>, Status> {
    super::abilities(service)?.snapshots.ok_or_else(|| super::unimplemented(service, "snapshots"))
}

pub(super) async fn create(
    service: &Service,
    asked: csi::CreateSnapshotRequest,
) -> Result<csi::CreateSnapshotResponse, Status> {
    let snapshots = ability(service)?;
    let name = request::name(&asked.name)?;
    let volume = request::required("source_volume_id", &asked.source_volume_id)?;
    Span::current().record("volume", volume);
    let places = asked.accessibility_requirements.map(super::create::places).transpose()?.unwrap_or_default();
    if !places.is_empty() && !snapshots.are_placed() {
        return Err(invalid("accessibility_requirements", "this driver's snapshots are bound to no place"));
    }
    let parameters = super::options(request::map("parameters", asked.parameters)?);
    let secrets = request::secrets(asked.secrets)?;
    let taken = snapshots.snapshot(name, volume, &places, &parameters, &secrets).await;
    let taken = taken.map_err(|fault| status::of(&fault))?;
    Ok(csi::CreateSnapshotResponse { snapshot: Some(as_snapshot(taken)) })
}

pub(super) async fn delete(
    service: &Service,
    asked: csi::DeleteSnapshotRequest,
) -> Result<csi::DeleteSnapshotResponse, Status> {
    let snapshots = ability(service)?;
    let id = request::required("snapshot_id", &asked.snapshot_id)?;
    let secrets = request::secrets(asked.secrets)?;
    snapshots.delete_snapshot(id, &secrets).await.map_err(|fault| status::of(&fault))?;
    Ok(csi::DeleteSnapshotResponse {})
}

pub(super) async fn list(
    service: &Service,
    asked: csi::ListSnapshotsRequest,
) -> Result<csi::ListSnapshotsResponse, Status> {
    let snapshots = ability(service)?;
    let page = super::page(asked.max_entries, &asked.starting_token)?;
    let filter = SnapshotFilter {
        id: request::optional("snapshot_id", &asked.snapshot_id)?.map(str::to_owned),
        volume: request::optional("source_volume_id", &asked.source_volume_id)?.map(str::to_owned),
    };
    request::secrets(asked.secrets)?;
    let listed = snapshots.snapshots(&filter, &page).await.map_err(|fault| super::list_status(&fault))?;
    let entry = |stored| Entry { snapshot: Some(as_snapshot(stored)) };
    Ok(csi::ListSnapshotsResponse {
        entries: listed.entries.into_iter().map(entry).collect(),
        next_token: listed.next.unwrap_or_default(),
    })
}

pub(super) async fn get(
    service: &Service,
    asked: csi::GetSnapshotRequest,
) -> Result<csi::GetSnapshotResponse, Status> {
    let snapshots = ability(service)?;
    let id = request::required("snapshot_id", &asked.snapshot_id)?;
    request::secrets(asked.secrets)?;
    let stored = snapshots.snapshot_of_id(id).await.map_err(|fault| status::of(&fault))?;
    Ok(csi::GetSnapshotResponse { snapshot: Some(as_snapshot(stored)) })
}

/// A stored snapshot in the interface's words.
pub(crate) fn as_snapshot(stored: StoredSnapshot) -> csi::Snapshot {
    csi::Snapshot {
        size_bytes: super::signed(stored.size),
        snapshot_id: stored.id,
        source_volume_id: stored.volume,
        creation_time: Some(stored.created_at.into()),
        ready_to_use: stored.ready,
        group_snapshot_id: stored.group.unwrap_or_default(),
        accessible_topology: super::topologies(stored.places),
    }
}
