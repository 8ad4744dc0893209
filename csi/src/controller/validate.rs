//! ValidateVolumeCapabilities: whether an existing volume could be used in some way.
//!
//! "No" is a successful answer without `confirmed`, with the reason in `message`; only what makes no sense, or a volume that
//! is not there, is an error.

use proto::csi::v1 as csi;
use proto::csi::v1::validate_volume_capabilities_response::Confirmed;
use tonic::{Code, Status};
use tracing::Span;
use volume::{FaultKind, OptionMap};

use crate::status::invalid;
use crate::{Service, request, status};

/// Prefixes of keys that Kubernetes adds to a volume's context.
const ADDED: [&str; 2] = ["storage.kubernetes.io/", super::SIDECARS];

pub(super) async fn validate(
    service: &Service,
    asked: csi::ValidateVolumeCapabilitiesRequest,
) -> Result<csi::ValidateVolumeCapabilitiesResponse, Status> {
    let id = request::required("volume_id", &asked.volume_id)?;
    Span::current().record("volume", id);
    if asked.volume_capabilities.is_empty() {
        return Err(invalid("volume_capabilities", "are missing"));
    }
    request::secrets(asked.secrets)?;
    let context = request::map("volume_context", asked.volume_context.clone())?;
    let parameters = super::options(request::map("parameters", asked.parameters.clone())?);
    request::map("mutable_parameters", asked.mutable_parameters.clone())?;
    let abilities = super::abilities(service)?;
    let node = service.volumes.node_abilities(service.driver()).map_err(|fault| status::of(&fault))?;
    let stored = abilities.provision.volume(id).await.map_err(|fault| status::of(&fault))?;

    if !is_of(&context, &stored.context) {
        return Ok(no("volume_context: it is not that of the volume".to_owned()));
    }
    let forms = match super::create::forms(&asked.volume_capabilities, node) {
        Ok(forms) => forms,
        Err(status) if status.code() == Code::InvalidArgument => return Ok(no(status.message().to_owned())),
        Err(status) => return Err(status),
    };
    match abilities.provision.check(id, &forms, &parameters).await {
        Ok(()) => {}
        Err(fault) if fault.kind == FaultKind::InvalidArgument => return Ok(no(fault.to_string())),
        Err(fault) => return Err(status::of(&fault)),
    }
    let confirmed = Confirmed {
        volume_context: asked.volume_context,
        volume_capabilities: asked.volume_capabilities,
        parameters: asked.parameters,
        mutable_parameters: asked.mutable_parameters,
    };
    Ok(csi::ValidateVolumeCapabilitiesResponse { confirmed: Some(confirmed), message: String::new() })
}

fn no(message: String) -> csi::ValidateVolumeCapabilitiesResponse {
    csi::ValidateVolumeCapabilitiesResponse { confirmed: None, message }
}

/// Whether a context, if one was given, is the volume's own.
fn is_of(given: &OptionMap, own: &OptionMap) -> bool {
    let is_added = |key: &str| ADDED.iter().any(|prefix| key.starts_with(prefix));
    let given: Vec<_> = given.iter().filter(|(key, _)| !is_added(key)).collect();
    given.is_empty() || given == own.iter().filter(|(key, _)| !is_added(key)).collect::<Vec<_>>()
}
