//! The socket, with a real client.

use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::node_client::NodeClient;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use proto::csi::v1::{
    ControllerGetCapabilitiesRequest, GetPluginInfoRequest, NodePublishVolumeRequest, ProbeRequest,
    VolumeCapability,
};
use tempfile::TempDir;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use volume::Driver;
use volume::fake::FakeService;

use super::*;
use crate::{Roles, dial};

struct Scene {
    directory: TempDir,
    fake: Arc<FakeService>,
    statistics: Arc<CallStatistics>,
    stop: Option<oneshot::Sender<()>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Scene {
    fn new(bounds: Bounds) -> Scene {
        let directory = tempfile::tempdir().unwrap();
        let fake = Arc::new(FakeService::default());
        let mut config = CsiConfig::new(Driver::Cvmfs, "n".parse().unwrap());
        config.kubelet_dir = directory.path().to_owned();
        config.roles = Roles { node: true, controller: false };
        let server = Server::new(fake.clone(), config, bounds);
        let statistics = server.statistics();
        let listener = UnixListener::bind(directory.path().join("csi.sock")).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(server.serve(listener, async move {
            let _ = stopped.await;
        }));
        Scene { directory, fake, statistics, stop: Some(stop), serving }
    }

    async fn channel(&self) -> Channel {
        dial::connect(&self.directory.path().join("csi.sock")).await
    }

    fn publish(&self) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: "v".into(),
            target_path: self.directory.path().join("t").to_str().unwrap().into(),
            volume_capability: Some(VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume::default())),
                access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            }),
            ..Default::default()
        }
    }
}

#[tokio::test]
async fn calls_are_answered_counted_and_those_of_other_roles_are_unimplemented() {
    let scene = Scene::new(Bounds::default());
    let channel = scene.channel().await;
    let mut identity = IdentityClient::new(channel.clone());
    let info = identity.get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, "cvmfs.csi.cern.ch");
    assert_eq!(identity.probe(ProbeRequest {}).await.unwrap().into_inner().ready, Some(true));
    let mut controller = ControllerClient::new(channel);
    let refused = controller.controller_get_capabilities(ControllerGetCapabilitiesRequest {}).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    let labels: Vec<String> = scene.statistics.samples().iter().map(|s| s.labels[1].1.clone()).collect();
    assert!(labels.contains(&"Probe".to_owned()) && labels.contains(&"other".to_owned()), "{labels:?}");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_and_the_next_one_answered() {
    let scene = Scene::new(Bounds::default());
    let mut node = NodeClient::new(scene.channel().await);
    let mut request = scene.publish();
    request.volume_context.insert("k".into(), "x".repeat(MESSAGE_LIMIT + 1));
    let refused = node.node_publish_volume(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    node.node_publish_volume(scene.publish()).await.unwrap();
}

#[tokio::test]
async fn the_callers_deadline_counts_and_more_calls_than_allowed_are_sent_away() {
    let scene = Scene::new(Bounds { calls: 1, ..Bounds::default() });
    scene.fake.inner.lock().acquire_delay = Duration::from_secs(3600);
    let mut node = NodeClient::new(scene.channel().await);
    let waiting = {
        let (mut node, mut request) = (node.clone(), tonic::Request::new(scene.publish()));
        request.set_timeout(Duration::from_millis(500));
        tokio::spawn(async move { node.node_publish_volume(request).await })
    };
    while scene.fake.inner.lock().acquires == 0 {
        tokio::task::yield_now().await;
    }
    // A stream more than allowed waits in the client, or is told to come again.
    let mut hasty = tonic::Request::new(scene.publish());
    hasty.set_timeout(Duration::from_millis(50));
    let refused = NodeClient::new(scene.channel().await).node_publish_volume(hasty).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    let late = waiting.await.unwrap().unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&late.code()), "{late}");
    scene.fake.inner.lock().acquire_delay = Duration::ZERO;
    node.node_publish_volume(scene.publish()).await.unwrap();
}

#[tokio::test]
async fn calls_in_flight_end_with_the_server_and_new_ones_are_not_taken() {
    let mut scene = Scene::new(Bounds { drain_limit: Duration::from_millis(200), ..Bounds::default() });
    let mut identity = IdentityClient::new(scene.channel().await);
    identity.probe(ProbeRequest {}).await.unwrap();
    scene.stop.take().unwrap().send(()).unwrap();
    (&mut scene.serving).await.unwrap();
    assert!(UnixStream::connect(scene.directory.path().join("csi.sock")).await.is_err());
}
