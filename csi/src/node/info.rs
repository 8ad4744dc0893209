//! NodeGetCapabilities and NodeGetInfo.

use proto::csi::v1::node_service_capability::{Rpc, Type, rpc};
use proto::csi::v1::{NodeGetCapabilitiesResponse, NodeGetInfoResponse, NodeServiceCapability, Topology};
use tonic::Status;

use super::NodeService;

impl NodeService {
    /// What mounts of the driver can do on this node. SINGLE_NODE_MULTI_WRITER says that the driver tells the two modes
    /// for writers of one node apart, which it does for read-only volumes too: ReadWriteOncePod then reaches it as
    /// SINGLE_NODE_SINGLE_WRITER and is kept.
    pub(super) fn capabilities(&self) -> Result<NodeGetCapabilitiesResponse, Status> {
        let abilities = self.abilities()?;
        let each = [
            (true, rpc::Type::StageUnstageVolume),
            (true, rpc::Type::GetVolumeStats),
            (abilities.grow, rpc::Type::ExpandVolume),
            (true, rpc::Type::SingleNodeMultiWriter),
            (abilities.group, rpc::Type::VolumeMountGroup),
            (true, rpc::Type::GetVolumeHealth),
            (true, rpc::Type::GetStorageHealth),
        ];
        let there = each.into_iter().filter(|(there, _)| *there);
        let capabilities = there
            .map(|(_, rpc)| NodeServiceCapability { r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })) })
            .collect();
        Ok(NodeGetCapabilitiesResponse { capabilities })
    }

    /// Who and where this node is. The answer never changes in a process's life.
    pub(super) fn info(&self) -> NodeGetInfoResponse {
        let config = &self.service.config;
        let segments = &config.topology;
        NodeGetInfoResponse {
            node_id: config.node_id.to_string(),
            max_volumes_per_node: i64::from(config.max_volumes),
            accessible_topology: (!segments.is_empty())
                .then(|| Topology { segments: segments.clone().into_iter().collect() }),
        }
    }
}
