//! The GroupController service: snapshots of several volumes at one instant.

use std::sync::Arc;

use proto::csi::v1 as csi;
use proto::csi::v1::group_controller_service_capability::rpc::Type;
use proto::csi::v1::group_controller_service_capability::{self, Rpc};
use tonic::{Request, Response, Status};
use volume::{GroupSnapshots, StoredGroup};

use crate::controller::{abilities, as_snapshot, options, unimplemented};
use crate::status::invalid;
use crate::{Service, request, status};

/// The service of one driver.
#[derive(Clone)]
pub(crate) struct GroupController(pub(crate) Service);

impl GroupController {
    fn ability(&self) -> Result<Arc<dyn GroupSnapshots>, Status> {
        let ability = abilities(&self.0)?.group_snapshots;
        ability.ok_or_else(|| unimplemented(&self.0, "snapshots of several volumes"))
    }
}

#[tonic::async_trait]
impl csi::group_controller_server::GroupController for GroupController {
    async fn group_controller_get_capabilities(
        &self,
        _request: Request<csi::GroupControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::GroupControllerGetCapabilitiesResponse>, Status> {
        let rpc = Rpc { r#type: Type::CreateDeleteGetVolumeGroupSnapshot.into() };
        let capability = csi::GroupControllerServiceCapability {
            r#type: Some(group_controller_service_capability::Type::Rpc(rpc)),
        };
        let able = self.ability().is_ok();
        let capabilities = Some(capability).filter(|_| able).into_iter().collect();
        Ok(Response::new(csi::GroupControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn create_volume_group_snapshot(
        &self,
        request: Request<csi::CreateVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::CreateVolumeGroupSnapshotResponse>, Status> {
        let asked = request.into_inner();
        let ability = self.ability()?;
        let name = request::name(&asked.name)?;
        if asked.source_volume_ids.is_empty() {
            return Err(invalid("source_volume_ids", "are missing"));
        }
        let volumes = ids("source_volume_ids", &asked.source_volume_ids)?;
        let parameters = options(request::map("parameters", asked.parameters)?);
        let secrets = request::secrets(asked.secrets)?;
        let taken = ability.snapshot_group(name, volumes, &parameters, &secrets).await;
        let taken = taken.map_err(|fault| status::of(&fault))?;
        let group_snapshot = Some(as_group(taken));
        Ok(Response::new(csi::CreateVolumeGroupSnapshotResponse { group_snapshot }))
    }

    async fn delete_volume_group_snapshot(
        &self,
        request: Request<csi::DeleteVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::DeleteVolumeGroupSnapshotResponse>, Status> {
        let asked = request.into_inner();
        let ability = self.ability()?;
        let id = request::required("group_snapshot_id", &asked.group_snapshot_id)?;
        let snapshots = ids("snapshot_ids", &asked.snapshot_ids)?;
        let secrets = request::secrets(asked.secrets)?;
        ability.delete_group(id, snapshots, &secrets).await.map_err(|fault| status::of(&fault))?;
        Ok(Response::new(csi::DeleteVolumeGroupSnapshotResponse {}))
    }

    async fn get_volume_group_snapshot(
        &self,
        request: Request<csi::GetVolumeGroupSnapshotRequest>,
    ) -> Result<Response<csi::GetVolumeGroupSnapshotResponse>, Status> {
        let asked = request.into_inner();
        let ability = self.ability()?;
        let id = request::required("group_snapshot_id", &asked.group_snapshot_id)?;
        let snapshots = ids("snapshot_ids", &asked.snapshot_ids)?;
        let secrets = request::secrets(asked.secrets)?;
        let group = ability.group(id, snapshots, &secrets).await.map_err(|fault| status::of(&fault))?;
        Ok(Response::new(csi::GetVolumeGroupSnapshotResponse { group_snapshot: Some(as_group(group)) }))
    }
}

/// A list of ids, each of which is one. It may be empty: csi-sanity and old sidecars send none with a group's id, which
/// names the group well enough.
fn ids<'a>(field: &str, ids: &'a [String]) -> Result<&'a [String], Status> {
    request::count(field, ids.len())?;
    ids.iter().try_for_each(|id| request::required(field, id).map(drop))?;
    Ok(ids)
}

fn as_group(stored: StoredGroup) -> csi::VolumeGroupSnapshot {
    csi::VolumeGroupSnapshot {
        group_snapshot_id: stored.id,
        snapshots: stored.snapshots.into_iter().map(as_snapshot).collect(),
        creation_time: Some(stored.created_at.into()),
        ready_to_use: stored.ready,
    }
}
