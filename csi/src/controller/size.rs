//! GetCapacity and ControllerExpandVolume.

use proto::csi::v1 as csi;
use tonic::Status;
use tracing::Span;

use crate::status::invalid;
use crate::{Service, request, status};

pub(super) async fn capacity(
    service: &Service,
    asked: csi::GetCapacityRequest,
) -> Result<csi::GetCapacityResponse, Status> {
    let abilities = super::abilities(service)?;
    let tells = abilities.capacity.ok_or_else(|| super::unimplemented(service, "its capacity"))?;
    if !asked.volume_capabilities.is_empty() {
        let can = service.volumes.node_abilities(service.driver()).map_err(|fault| status::of(&fault))?;
        super::create::forms(&asked.volume_capabilities, can)?;
    }
    let parameters = super::options(request::map("parameters", asked.parameters)?);
    let place = asked.accessible_topology.map(|place| request::map("accessible_topology", place.segments));
    let place = place.transpose()?;
    let told = tells.capacity(&parameters, place.as_ref()).await.map_err(|fault| status::of(&fault))?;
    Ok(csi::GetCapacityResponse {
        available_capacity: super::signed(told.available),
        maximum_volume_size: told.largest.map(super::signed),
        minimum_volume_size: told.smallest.map(super::signed),
    })
}

pub(super) async fn expand(
    service: &Service,
    asked: csi::ControllerExpandVolumeRequest,
) -> Result<csi::ControllerExpandVolumeResponse, Status> {
    let abilities = super::abilities(service)?;
    let grow = abilities.grow.ok_or_else(|| super::unimplemented(service, "volumes that grow"))?;
    let id = request::required("volume_id", &asked.volume_id)?;
    Span::current().record("volume", id);
    if asked.capacity_range.is_none() {
        return Err(invalid("capacity_range", "is missing"));
    }
    let size = request::size(asked.capacity_range)?;
    if asked.volume_capability.is_some() {
        let can = service.volumes.node_abilities(service.driver()).map_err(|fault| status::of(&fault))?;
        request::usage("volume_capability", asked.volume_capability.as_ref(), can)?;
    }
    let secrets = request::secrets(asked.secrets)?;
    let grown = grow.grow(id, size, &secrets).await;
    let (bytes, node_expansion_required) = grown.map_err(|fault| status::of(&fault))?;
    Ok(csi::ControllerExpandVolumeResponse { capacity_bytes: super::signed(bytes), node_expansion_required })
}
