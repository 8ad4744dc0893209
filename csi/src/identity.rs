//! The Identity service: who this is and whether it is ready.

use proto::csi::v1::identity_server::Identity;
use proto::csi::v1::plugin_capability::{self, service, volume_expansion};
use proto::csi::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use tonic::{Request, Response, Status};

use crate::Service;

#[tonic::async_trait]
impl Identity for Service {
    async fn get_plugin_info(
        &self,
        _request: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.config.name.to_string(),
            vendor_version: self.config.version.clone(),
            manifest: [("driver".to_owned(), self.driver().to_string())].into(),
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        // A driver without abilities has no services that need one.
        let abilities = self.volumes.abilities(self.driver()).ok();
        let controller = self.config.roles.controller;
        let has = |ability: bool| controller && ability;
        let grow = abilities.as_ref().is_some_and(|abilities| abilities.grow.is_some());
        let services = [
            (controller, service::Type::ControllerService),
            (!self.config.topology.is_empty(), service::Type::VolumeAccessibilityConstraints),
            (
                has(abilities.as_ref().is_some_and(|abilities| abilities.group_snapshots.is_some())),
                service::Type::GroupControllerService,
            ),
            (
                has(abilities.as_ref().is_some_and(|abilities| abilities.extents.is_some())),
                service::Type::SnapshotMetadataService,
            ),
            (
                has(abilities
                    .as_ref()
                    .and_then(|abilities| abilities.snapshots.as_ref())
                    .is_some_and(|s| s.are_placed())),
                service::Type::SnapshotAccessibilityConstraints,
            ),
        ];
        let services = services.into_iter().filter(|(there, _)| *there).map(|(_, service)| {
            plugin_capability::Type::Service(plugin_capability::Service { r#type: service.into() })
        });
        let expansion = grow.then(|| {
            plugin_capability::Type::VolumeExpansion(plugin_capability::VolumeExpansion {
                r#type: volume_expansion::Type::Online.into(),
            })
        });
        let capabilities = services
            .chain(expansion)
            .map(|capability| PluginCapability { r#type: Some(capability) })
            .collect();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    /// Ready when books and world have been compared: before, publishes would only wait.
    async fn probe(&self, _request: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        Ok(Response::new(ProbeResponse { ready: Some(self.volumes.is_ready().await) }))
    }
}
