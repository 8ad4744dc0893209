//! CreateVolume and DeleteVolume.

use proto::csi::v1 as csi;
use proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use tonic::Status;
use tracing::Span;
use volume::{Abilities, Form, NewVolume, NodeAbilities, Segments, Source};

use crate::status::invalid;
use crate::{Service, request, status};

pub(super) async fn create(
    service: &Service,
    asked: csi::CreateVolumeRequest,
) -> Result<csi::CreateVolumeResponse, Status> {
    let abilities = super::abilities(service)?;
    let node = service.volumes.node_abilities(service.driver()).map_err(|fault| status::of(&fault))?;
    let secrets = request::secrets(asked.secrets.clone())?;
    let wanted = wanted(asked, &abilities, node)?;
    Span::current().record("volume", wanted.name.as_str());
    let made = abilities.provision.create(&wanted, &secrets).await.map_err(|fault| status::of(&fault))?;
    Ok(csi::CreateVolumeResponse { volume: Some(super::volumes::as_volume(made)) })
}

pub(super) async fn delete(
    service: &Service,
    asked: csi::DeleteVolumeRequest,
) -> Result<csi::DeleteVolumeResponse, Status> {
    let id = request::required("volume_id", &asked.volume_id)?;
    let secrets = request::secrets(asked.secrets)?;
    Span::current().record("volume", id);
    let provision = super::abilities(service)?.provision;
    provision.delete(id, &secrets).await.map_err(|fault| status::of(&fault))?;
    Ok(csi::DeleteVolumeResponse {})
}

/// What is asked for, checked as far as that goes without the backend.
fn wanted(
    asked: csi::CreateVolumeRequest,
    abilities: &Abilities,
    node: NodeAbilities,
) -> Result<NewVolume, Status> {
    let name = request::name(&asked.name)?.to_owned();
    let forms = forms(&asked.volume_capabilities, node)?;
    let size = request::size(asked.capacity_range)?;
    let parameters = super::options(request::map("parameters", asked.parameters)?);
    let mutable_parameters = request::map("mutable_parameters", asked.mutable_parameters)?;
    if !mutable_parameters.is_empty() && abilities.modify.is_none() {
        return Err(invalid("mutable_parameters", "this driver's volumes have none"));
    }
    let source = asked.volume_content_source.map(|source| content(source, abilities)).transpose()?;
    let places = asked.accessibility_requirements.map(places).transpose()?.unwrap_or_default();
    Ok(NewVolume { name, size, parameters, mutable_parameters, source, forms, places })
}

/// All ways in which the volume shall be usable; at least one.
pub(super) fn forms(
    capabilities: &[csi::VolumeCapability],
    node: NodeAbilities,
) -> Result<Vec<Form>, Status> {
    request::count("volume_capabilities", capabilities.len())?;
    let form = |capability| request::usage("volume_capabilities", Some(capability), node).map(|u| u.form);
    let forms: Vec<Form> = capabilities.iter().map(form).collect::<Result<_, _>>()?;
    if forms.is_empty() {
        return Err(invalid("volume_capabilities", "are missing"));
    }
    Ok(forms)
}

fn content(source: csi::VolumeContentSource, abilities: &Abilities) -> Result<Source, Status> {
    let field = "volume_content_source";
    match source.r#type {
        None => Err(invalid(field, "names neither a snapshot nor a volume")),
        Some(Type::Snapshot(SnapshotSource { snapshot_id })) => {
            let id = request::required("volume_content_source.snapshot.snapshot_id", &snapshot_id)?;
            match abilities.snapshots {
                Some(_) => Ok(Source::Snapshot(id.to_owned())),
                None => Err(invalid(field, "this driver has no snapshots")),
            }
        }
        Some(Type::Volume(VolumeSource { volume_id })) => {
            let id = request::required("volume_content_source.volume.volume_id", &volume_id)?;
            if abilities.clone {
                Ok(Source::Volume(id.to_owned()))
            } else {
                Err(invalid(field, "this driver cannot clone volumes"))
            }
        }
    }
}

/// Preferred places first, then the other ones that would do.
pub(super) fn places(requirement: csi::TopologyRequirement) -> Result<Vec<Segments>, Status> {
    let field = "accessibility_requirements";
    request::count(field, requirement.preferred.len() + requirement.requisite.len())?;
    let mut places: Vec<Segments> = Vec::new();
    for place in requirement.preferred.into_iter().chain(requirement.requisite) {
        let place = request::map(field, place.segments)?;
        if !places.contains(&place) {
            places.push(place);
        }
    }
    Ok(places)
}
