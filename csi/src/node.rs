//! The Node service: volumes of this node's pods.
//!
//! Kubelet names two places for a volume: a staging path, once per volume, and a target path for each pod. Both are binds
//! of the same mount, so each is a reference: scope is the volume id, id the path. Inline volumes have a target only.

mod expand;
mod failures;
mod health;
mod info;
mod leftover;
mod publish;
mod stage;
mod stats;

use std::path::Path;
use std::sync::Arc;

use proto::csi::v1::node_server::Node;
use proto::csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetStorageHealthRequest,
    NodeGetStorageHealthResponse, NodeGetVolumeHealthRequest, NodeGetVolumeHealthResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse,
};
use tonic::{Request, Response, Status};
use volume::{Frontend, NodeAbilities, RefId};

use crate::{Service, status};
use failures::Failures;

/// The Node service of one driver.
#[derive(Clone)]
pub(crate) struct NodeService {
    service: Service,
    failures: Arc<Failures>,
}

impl NodeService {
    pub(crate) fn new(service: Service) -> Self {
        NodeService { service, failures: Arc::default() }
    }

    fn kubelet_dir(&self) -> &Path {
        &self.service.config.kubelet_dir
    }

    fn abilities(&self) -> Result<NodeAbilities, Status> {
        self.service.volumes.node_abilities(self.service.driver()).map_err(|fault| status::of(&fault))
    }
}

/// The use of a volume at a path.
fn reference(volume_id: &str, path: impl Into<String>) -> RefId {
    RefId { frontend: Frontend::Csi, scope: volume_id.to_owned(), id: path.into() }
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        self.stage(request.into_inner()).await.map(Response::new)
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        self.unstage(request.into_inner()).await.map(Response::new)
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        self.publish(request.into_inner()).await.map(Response::new)
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        self.unpublish(request.into_inner()).await.map(Response::new)
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        self.stats(request.into_inner()).await.map(Response::new)
    }

    async fn node_get_volume_health(
        &self,
        request: Request<NodeGetVolumeHealthRequest>,
    ) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        self.volume_health(request.into_inner()).await.map(Response::new)
    }

    async fn node_get_storage_health(
        &self,
        _request: Request<NodeGetStorageHealthRequest>,
    ) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        Ok(Response::new(self.storage_health().await))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        self.expand(request.into_inner()).await.map(Response::new)
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        self.capabilities().map(Response::new)
    }

    async fn node_get_info(
        &self,
        _request: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(self.info()))
    }
}

#[cfg(test)]
mod tests;
