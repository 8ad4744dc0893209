//! The Controller service: volumes and snapshots of the whole cluster, over [`volume::Abilities`].
//!
//! What a driver offers is what its backend can ([`capabilities`]); a call for anything else is UNIMPLEMENTED. Sidecars
//! repeat every call with a back-off until it succeeds, also while an earlier one runs, so nothing here keeps state:
//! backends are idempotent by name and id.

mod capabilities;
mod create;
mod health;
mod modify;
mod publish;
mod size;
mod snapshots;
#[cfg(test)]
mod tests;
mod validate;
mod volumes;

use proto::csi::v1 as csi;
use tonic::{Request, Response, Status};
use volume::{Abilities, FaultKind, OptionMap};

use crate::{Service, status};

pub(crate) use snapshots::as_snapshot;

/// Prefix of what the external-provisioner and external-snapshotter add to parameters: names of the claim and the like. They
/// are no options.
const SIDECARS: &str = "csi.storage.k8s.io/";

/// The service of one driver.
#[derive(Clone)]
pub(crate) struct Controller(pub(crate) Service);

/// What the driver's backend can do with volumes; UNIMPLEMENTED if it has none.
pub(crate) fn abilities(service: &Service) -> Result<Abilities, Status> {
    service.volumes.abilities(service.driver()).map_err(|fault| match fault.kind {
        FaultKind::Unsupported => Status::unimplemented(fault.to_string()),
        _ => status::of(&fault),
    })
}

/// The answer to a call for an ability that the backend does not have.
pub(crate) fn unimplemented(service: &Service, what: &str) -> Status {
    Status::unimplemented(format!("{} does not offer {what}", service.config.name))
}

/// Parameters without those that sidecars add.
pub(crate) fn options(mut parameters: OptionMap) -> OptionMap {
    parameters.retain(|key, _| !key.starts_with(SIDECARS));
    parameters
}

/// Bytes as the interface counts them.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Places in the interface's words.
fn topologies(places: Vec<volume::Segments>) -> Vec<csi::Topology> {
    places.into_iter().map(|place| csi::Topology { segments: place.into_iter().collect() }).collect()
}

/// Which part of a list is wanted.
fn page(max_entries: i32, starting_token: &str) -> Result<volume::PageRequest, Status> {
    let limit = usize::try_from(max_entries).map_err(|_| status::invalid("max_entries", "is negative"))?;
    let start = crate::request::optional("starting_token", starting_token)?.map(str::to_owned);
    Ok(volume::PageRequest { start, limit })
}

/// The status of a fault in a list call. An unknown token is ABORTED: the caller begins anew.
fn list_status(fault: &volume::Fault) -> Status {
    match fault.kind {
        FaultKind::InvalidArgument => status::coded(tonic::Code::Aborted, fault),
        _ => status::of(fault),
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl csi::controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Answer<csi::CreateVolumeResponse> {
        create::create(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Answer<csi::DeleteVolumeResponse> {
        create::delete(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Answer<csi::ControllerPublishVolumeResponse> {
        publish::publish(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Answer<csi::ControllerUnpublishVolumeResponse> {
        publish::unpublish(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<csi::ValidateVolumeCapabilitiesResponse> {
        validate::validate(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Answer<csi::ListVolumesResponse> {
        volumes::list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Answer<csi::ControllerGetVolumeResponse> {
        volumes::get(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<csi::ControllerListVolumeHealthRequest>,
    ) -> Answer<csi::ControllerListVolumeHealthResponse> {
        health::list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<csi::ControllerGetVolumeHealthRequest>,
    ) -> Answer<csi::ControllerGetVolumeHealthResponse> {
        health::get(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn get_capacity(
        &self,
        request: Request<csi::GetCapacityRequest>,
    ) -> Answer<csi::GetCapacityResponse> {
        size::capacity(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Answer<csi::ControllerGetCapabilitiesResponse> {
        capabilities::get(&self.0).map(Response::new)
    }

    async fn create_snapshot(
        &self,
        request: Request<csi::CreateSnapshotRequest>,
    ) -> Answer<csi::CreateSnapshotResponse> {
        snapshots::create(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn delete_snapshot(
        &self,
        request: Request<csi::DeleteSnapshotRequest>,
    ) -> Answer<csi::DeleteSnapshotResponse> {
        snapshots::delete(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn list_snapshots(
        &self,
        request: Request<csi::ListSnapshotsRequest>,
    ) -> Answer<csi::ListSnapshotsResponse> {
        snapshots::list(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn get_snapshot(
        &self,
        request: Request<csi::GetSnapshotRequest>,
    ) -> Answer<csi::GetSnapshotResponse> {
        snapshots::get(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Answer<csi::ControllerExpandVolumeResponse> {
        size::expand(&self.0, request.into_inner()).await.map(Response::new)
    }

    async fn controller_modify_volume(
        &self,
        request: Request<csi::ControllerModifyVolumeRequest>,
    ) -> Answer<csi::ControllerModifyVolumeResponse> {
        modify::modify(&self.0, request.into_inner()).await.map(Response::new)
    }
}
