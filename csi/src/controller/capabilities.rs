//! ControllerGetCapabilities: exactly what the backend's abilities say.

use proto::csi::v1::controller_service_capability::rpc::Type;
use proto::csi::v1::controller_service_capability::{self, Rpc};
use proto::csi::v1::{ControllerGetCapabilitiesResponse, ControllerServiceCapability};
use tonic::{Code, Status};
use volume::Abilities;

use crate::Service;

pub(super) fn get(service: &Service) -> Result<ControllerGetCapabilitiesResponse, Status> {
    let types = match super::abilities(service) {
        Ok(abilities) => of(&abilities),
        // A driver without a backend has nothing to offer, which is no error.
        Err(status) if status.code() == Code::Unimplemented => Vec::new(),
        Err(status) => return Err(status),
    };
    let capability = |rpc: Type| ControllerServiceCapability {
        r#type: Some(controller_service_capability::Type::Rpc(Rpc { r#type: rpc.into() })),
    };
    Ok(ControllerGetCapabilitiesResponse { capabilities: types.into_iter().map(capability).collect() })
}

/// What a driver with these abilities offers.
fn of(abilities: &Abilities) -> Vec<Type> {
    let groups: [(bool, &[Type]); 7] = [
        (
            true,
            &[
                Type::CreateDeleteVolume,
                Type::ListVolumes,
                Type::ListVolumesPublishedNodes,
                Type::GetVolume,
                Type::SingleNodeMultiWriter,
                Type::GetVolumeHealth,
                Type::ListVolumeHealth,
            ],
        ),
        (abilities.clone, &[Type::CloneVolume]),
        (abilities.publish.is_some(), &[Type::PublishUnpublishVolume, Type::PublishReadonly]),
        (abilities.capacity.is_some(), &[Type::GetCapacity]),
        (abilities.grow.is_some(), &[Type::ExpandVolume]),
        (abilities.modify.is_some(), &[Type::ModifyVolume]),
        (
            abilities.snapshots.is_some(),
            &[Type::CreateDeleteSnapshot, Type::ListSnapshots, Type::GetSnapshot],
        ),
    ];
    groups.into_iter().filter(|(able, _)| *able).flat_map(|(_, types)| types).copied().collect()
}
