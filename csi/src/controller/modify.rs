//! ControllerModifyVolume: parameters of a volume's attributes class, changed while it is used.

use proto::csi::v1 as csi;
use tonic::Status;
use tracing::Span;

use crate::{Service, request, status};

pub(super) async fn modify(
    service: &Service,
    asked: csi::ControllerModifyVolumeRequest,
) -> Result<csi::ControllerModifyVolumeResponse, Status> {
    let abilities = super::abilities(service)?;
    let modify = abilities.modify.ok_or_else(|| super::unimplemented(service, "mutable parameters"))?;
    let id = request::required("volume_id", &asked.volume_id)?;
    Span::current().record("volume", id);
    let parameters = request::map("mutable_parameters", asked.mutable_parameters)?;
    let secrets = request::secrets(asked.secrets)?;
    modify.modify(id, &parameters, &secrets).await.map_err(|fault| status::of(&fault))?;
    Ok(csi::ControllerModifyVolumeResponse {})
}
