//! The Node service on the fake registry.

use std::collections::HashMap;
use std::path::PathBuf;

use proto::csi::v1::VolumeCapability;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use tempfile::TempDir;
use tonic::Code;
use volume::fake::FakeService;
use volume::{Driver, Fault, FaultKind};

use super::*;
use crate::CsiConfig;

struct Ground {
    kubelet: TempDir,
    fake: Arc<FakeService>,
    node: NodeService,
}

impl Ground {
    fn new() -> Ground {
        let kubelet = tempfile::tempdir().unwrap();
        let fake = Arc::new(FakeService::default());
        let mut config = CsiConfig::new(Driver::Cvmfs, "node-1".parse().unwrap());
        config.kubelet_dir = kubelet.path().to_owned();
        config.max_volumes = 7;
        config.topology.insert("topology.cvmfs.csi.cern.ch/site".into(), "meyrin".into());
        let node = NodeService::new(Service { volumes: fake.clone(), config: Arc::new(config) });
        Ground { kubelet, fake, node }
    }

    fn path(&self, part: &str) -> String {
        self.kubelet.path().join(part).to_str().unwrap().to_owned()
    }

    fn publish(&self) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: "pvc-1".into(),
            staging_target_path: self.path("plugins/s/globalmount"),
            target_path: self.path("pods/p/volumes/kubernetes.io~csi/v/mount"),
            volume_capability: mounted(Mode::SingleNodeWriter),
            volume_context: HashMap::from([("repository".to_owned(), "cms.cern.ch".to_owned())]),
            ..Default::default()
        }
    }

    fn stage(&self) -> NodeStageVolumeRequest {
        NodeStageVolumeRequest {
            volume_id: "pvc-1".into(),
            staging_target_path: self.path("plugins/s/globalmount"),
            volume_capability: mounted(Mode::SingleNodeWriter),
            volume_context: HashMap::from([("repository".to_owned(), "cms.cern.ch".to_owned())]),
            ..Default::default()
        }
    }

    fn held(&self) -> Vec<String> {
        let root = self.kubelet.path().to_str().unwrap().to_owned();
        let inner = self.fake.inner.lock();
        inner.references.iter().map(|reference| reference.to_string().replace(&root, "")).collect()
    }
}

fn mounted(mode: Mode) -> Option<VolumeCapability> {
    Some(VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: mode.into() }),
    })
}

#[tokio::test]
async fn a_pod_comes_and_goes_and_every_call_may_come_twice() {
    let ground = Ground::new();
    for _ in 0..2 {
        ground.node.stage(ground.stage()).await.unwrap();
        ground.node.publish(ground.publish()).await.unwrap();
    }
    assert_eq!(
        ground.held(),
        ["csi|pvc-1|/plugins/s/globalmount", "csi|pvc-1|/pods/p/volumes/kubernetes.io~csi/v/mount"]
    );
    for _ in 0..2 {
        let target = NodeUnpublishVolumeRequest {
            volume_id: "pvc-1".into(),
            target_path: ground.path("pods/p/volumes/kubernetes.io~csi/v/mount/"),
        };
        ground.node.unpublish(target).await.unwrap();
        let staged = NodeUnstageVolumeRequest {
            volume_id: "pvc-1".into(),
            staging_target_path: ground.path("plugins/s/globalmount"),
        };
        ground.node.unstage(staged).await.unwrap();
    }
    assert!(ground.held().is_empty());
}

#[tokio::test]
async fn each_missing_field_is_named() {
    let ground = Ground::new();
    let refused = |change: fn(&mut NodePublishVolumeRequest)| {
        let mut request = ground.publish();
        change(&mut request);
        let node = ground.node.clone();
        async move {
            let status = node.publish(request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            status.message().split(':').next().unwrap().to_owned()
        }
    };
    assert_eq!(refused(|r| r.volume_id.clear()).await, "volume_id");
    assert_eq!(refused(|r| r.target_path.clear()).await, "target_path");
    assert_eq!(refused(|r| r.target_path = "/etc".into()).await, "target_path");
    assert_eq!(refused(|r| r.target_path.push_str("/../../../../../..")).await, "target_path");
    assert_eq!(refused(|r| r.staging_target_path = "/etc".into()).await, "staging_target_path");
    assert_eq!(refused(|r| r.volume_capability = None).await, "volume_capability");
    assert_eq!(
        refused(|r| r.volume_capability = mounted(Mode::MultiNodeMultiWriter)).await,
        "volume_capability"
    );
    let block = |r: &mut NodePublishVolumeRequest| {
        r.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Block(BlockVolume {}));
    };
    assert_eq!(refused(block).await, "volume_capability");
    assert_eq!(
        refused(|r| {
            r.secrets.insert("k".into(), "x".repeat(1 << 20));
        })
        .await,
        "secrets"
    );
    assert_eq!(
        refused(|r| {
            r.volume_context.insert("k".into(), "x".repeat(1 << 20));
        })
        .await,
        "volume_context"
    );
    assert_eq!(ground.fake.inner.lock().acquires, 0);
}

#[tokio::test]
async fn faults_become_the_codes_of_the_specification() {
    let ground = Ground::new();
    for (kind, code) in [
        (FaultKind::Busy, Code::Aborted),
        (FaultKind::InUse, Code::FailedPrecondition),
        (FaultKind::NotFound, Code::NotFound),
        (FaultKind::AlreadyExists, Code::AlreadyExists),
        (FaultKind::Unavailable, Code::Unavailable),
        (FaultKind::Untrusted, Code::DataLoss),
    ] {
        ground.fake.inner.lock().acquire_fault = Some(Fault::new(kind, "mount", "cms.cern.ch", "no"));
        assert_eq!(ground.node.publish(ground.publish()).await.unwrap_err().code(), code);
    }
    // An option that is unknown is the parser's to name.
    let mut request = ground.publish();
    request.volume_context.insert("repo".into(), "x".into());
    let status = ground.node.publish(request).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("\"repo\""), "{status}");
}

#[tokio::test]
async fn what_could_not_be_mounted_is_ill_until_it_is_or_goes() {
    let ground = Ground::new();
    let health = || async {
        let request = NodeGetVolumeHealthRequest { volume_id: "pvc-1".into(), ..Default::default() };
        ground.node.volume_health(request).await.map(|health| {
            let entries = health.volume_health.unwrap().health_statuses;
            entries.into_iter().map(|entry| entry.reason).collect::<Vec<_>>()
        })
    };
    assert_eq!(health().await.unwrap_err().code(), Code::NotFound);
    ground.fake.inner.lock().acquire_fault = Some(Fault::new(FaultKind::Unavailable, "mount", "x", "no"));
    ground.node.publish(ground.publish()).await.unwrap_err();
    assert_eq!(health().await.unwrap(), ["MountFailed"]);
    let gone = NodeUnpublishVolumeRequest {
        volume_id: "pvc-1".into(),
        target_path: ground.path("pods/p/volumes/kubernetes.io~csi/v/mount"),
    };
    ground.node.unpublish(gone).await.unwrap();
    assert_eq!(health().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn unknown_places_are_not_found_and_never_touched() {
    let ground = Ground::new();
    for path in ["some/path", "/etc/passwd", "/proc/1/cwd/../x"] {
        let stats = NodeGetVolumeStatsRequest {
            volume_id: "pvc-1".into(),
            volume_path: path.into(),
            ..Default::default()
        };
        assert_eq!(ground.node.stats(stats).await.unwrap_err().code(), Code::NotFound);
    }
    let expand = NodeExpandVolumeRequest {
        volume_id: "pvc-1".into(),
        volume_path: "some/path".into(),
        ..Default::default()
    };
    assert_eq!(ground.node.expand(expand.clone()).await.unwrap_err().code(), Code::Unimplemented);
    ground.fake.inner.lock().node_abilities.grow = true;
    assert_eq!(ground.node.expand(expand).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_leftover_target_is_removed() {
    let ground = Ground::new();
    let target = PathBuf::from(ground.path("pods/p/volumes/kubernetes.io~csi/v/mount"));
    std::fs::create_dir_all(&target).unwrap();
    let request = NodeUnpublishVolumeRequest {
        volume_id: "pvc-1".into(),
        target_path: target.to_str().unwrap().to_owned(),
    };
    ground.node.unpublish(request).await.unwrap();
    assert!(!target.exists() && target.parent().unwrap().exists());
}

#[test]
fn a_node_says_who_and_where_it_is_and_what_it_can() {
    let ground = Ground::new();
    let info = ground.node.info();
    assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("node-1", 7));
    assert_eq!(info.accessible_topology.unwrap().segments["topology.cvmfs.csi.cern.ch/site"], "meyrin");
    let of_read_only = ground.node.capabilities().unwrap().capabilities.len();
    let abilities =
        NodeAbilities { writable: true, many_writers: true, block: true, grow: true, group: true };
    ground.fake.inner.lock().node_abilities = abilities;
    assert_eq!(ground.node.capabilities().unwrap().capabilities.len(), of_read_only + 2);
}
