//! Kubelet's side of CSI: its paths, and its calls over real gRPC, as a current kubelet and an old one make them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::node_client::NodeClient;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use proto::csi::v1::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    ProbeRequest, VolumeCapability,
};
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::codegen::http::Uri;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::daemon::Scene;
use crate::wait;

/// Kubelet gives node calls so long.
const LIMIT: Duration = Duration::from_secs(120);

/// The name that the driver has in tests.
pub const DRIVER: &str = "cvmfs.csi.cern.ch";

/// A kubelet with the root directory `kubelet/` of a scene.
pub struct Kubelet {
    root: PathBuf,
    socket: PathBuf,
    /// What asynchronous calls run on.
    pub runtime: Runtime,
}

/// A volume as a PersistentVolume describes it.
#[derive(Debug, Clone)]
pub struct Volume {
    /// `volumeHandle`.
    pub handle: String,
    /// Name of the PersistentVolume.
    pub name: String,
    /// `volumeAttributes`.
    pub attributes: HashMap<String, String>,
    /// Access mode that kubelet sends.
    pub mode: Mode,
}

impl Volume {
    /// A volume of these attributes that many nodes read.
    pub fn new(handle: &str, attributes: &[(&str, &str)]) -> Volume {
        Volume {
            handle: handle.to_owned(),
            name: format!("pv-{handle}"),
            attributes: attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            mode: Mode::MultiNodeReaderOnly,
        }
    }

    fn capability(&self) -> VolumeCapability {
        VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode { mode: self.mode.into() }),
        }
    }

    fn context(&self) -> HashMap<String, String> {
        let mut context = self.attributes.clone();
        for (key, value) in [
            ("storage.kubernetes.io/csiProvisionerIdentity", "1700000000000-1-cvmfs.csi.cern.ch"),
            ("csi.storage.k8s.io/ephemeral", "false"),
            ("csi.storage.k8s.io/pod.name", "p"),
            ("csi.storage.k8s.io/pod.namespace", "default"),
            ("csi.storage.k8s.io/pod.uid", "u"),
            ("csi.storage.k8s.io/serviceAccount.name", "default"),
        ] {
            context.insert(key.to_owned(), value.to_owned());
        }
        context
    }
}

impl Kubelet {
    /// A kubelet whose directories exist.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn new(scene: &Scene) -> Kubelet {
        let root = scene.path("kubelet");
        for part in ["plugins", "plugins_registry", "pods"] {
            fs::create_dir_all(root.join(part)).expect("the scene is ours");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let socket = root.join("plugins").join(DRIVER).join("csi.sock");
        Kubelet { root, socket, runtime }
    }

    /// Arguments of `serve` that put a driver where this kubelet finds it.
    pub fn arguments(&self) -> Vec<String> {
        vec![
            format!("--kubelet-dir={}", self.root.display()),
            format!("--csi-endpoint=cvmfs=unix://{}", self.socket.display()),
            "--node-id=node-1".to_owned(),
        ]
    }

    /// Its root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The driver's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection, once the driver answers and says that it is ready.
    ///
    /// # Panics
    /// When it never is.
    pub fn channel(&self) -> Channel {
        wait::until("the driver is ready", || {
            self.runtime.block_on(async {
                let channel = dial(&self.socket).await.ok()?;
                let probed = IdentityClient::new(channel.clone()).probe(ProbeRequest {}).await.ok()?;
                (probed.into_inner().ready == Some(true)).then_some(channel)
            })
        })
    }

    /// The Node service.
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel())
    }

    /// The Controller service.
    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel())
    }

    /// The staging directory of a volume, made as kubelet makes it (since 1.24: by the handle's hash).
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn staging(&self, volume: &Volume) -> PathBuf {
        let digest = Sha256::digest(volume.handle.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let staging =
            self.root.join("plugins/kubernetes.io/csi").join(DRIVER).join(digest).join("globalmount");
        fs::create_dir_all(&staging).expect("kubelet's directory is ours");
        staging
    }

    /// The same as kubelets before 1.24 made it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn old_staging(&self, volume: &Volume) -> PathBuf {
        let staging = self.root.join("plugins/kubernetes.io/csi/pv").join(&volume.name).join("globalmount");
        fs::create_dir_all(&staging).expect("kubelet's directory is ours");
        staging
    }

    /// The target of a pod; its parent exists.
    ///
    /// # Panics
    /// When that cannot be made.
    pub fn target(&self, pod: &str, volume: &Volume) -> PathBuf {
        let parent = self.root.join("pods").join(pod).join("volumes/kubernetes.io~csi").join(&volume.name);
        fs::create_dir_all(&parent).expect("kubelet's directory is ours");
        parent.join("mount")
    }

    /// NodeStageVolume.
    pub fn stage(&self, volume: &Volume, staging: &Path) -> Result<(), Status> {
        let request = NodeStageVolumeRequest {
            volume_id: volume.handle.clone(),
            staging_target_path: text(staging),
            volume_capability: Some(volume.capability()),
            volume_context: volume.context(),
            ..Default::default()
        };
        let mut node = self.node();
        self.runtime.block_on(async { node.node_stage_volume(timed(request)).await.map(drop) })
    }

    /// The request that makes a volume appear for a pod.
    pub fn publish_request(
        &self,
        volume: &Volume,
        staging: &Path,
        target: &Path,
    ) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: volume.handle.clone(),
            staging_target_path: text(staging),
            target_path: text(target),
            volume_capability: Some(volume.capability()),
            volume_context: volume.context(),
            readonly: false,
            ..Default::default()
        }
    }

    /// NodePublishVolume.
    pub fn publish(&self, volume: &Volume, staging: &Path, target: &Path) -> Result<(), Status> {
        self.send_publish(self.publish_request(volume, staging, target))
    }

    /// NodePublishVolume of an inline volume, as its pod's author wrote it.
    pub fn publish_inline(
        &self,
        pod: &str,
        attributes: &[(&str, &str)],
    ) -> Result<(String, PathBuf), Status> {
        let digest = Sha256::digest(pod.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut volume = Volume::new(&format!("csi-{digest}"), attributes);
        volume.name = "inline".to_owned();
        volume.mode = Mode::SingleNodeMultiWriter;
        let target = self.target(pod, &volume);
        let mut request = self.publish_request(&volume, Path::new(""), &target);
        request.volume_context.insert("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned());
        self.send_publish(request).map(|()| (volume.handle, target))
    }

    /// NodePublishVolume of a request.
    pub fn send_publish(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        let mut node = self.node();
        self.runtime.block_on(async { node.node_publish_volume(timed(request)).await.map(drop) })
    }

    /// NodeUnpublishVolume.
    pub fn unpublish(&self, handle: &str, target: &Path) -> Result<(), Status> {
        let request = NodeUnpublishVolumeRequest { volume_id: handle.to_owned(), target_path: text(target) };
        let mut node = self.node();
        self.runtime.block_on(async { node.node_unpublish_volume(timed(request)).await.map(drop) })
    }

    /// NodeUnstageVolume.
    pub fn unstage(&self, volume: &Volume, staging: &Path) -> Result<(), Status> {
        let request =
            NodeUnstageVolumeRequest { volume_id: volume.handle.clone(), staging_target_path: text(staging) };
        let mut node = self.node();
        self.runtime.block_on(async { node.node_unstage_volume(timed(request)).await.map(drop) })
    }
}

/// A request with kubelet's deadline.
pub fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LIMIT);
    request
}

/// A path as a text of a request.
pub fn text(path: &Path) -> String {
    path.to_str().expect("paths of tests are UTF-8").to_owned()
}

/// Connects to a gRPC server on a unix socket.
pub async fn dial(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_static("http://localhost").connect_with_connector(Dial(socket.to_owned())).await
}

struct Dial(PathBuf);

impl Service<Uri> for Dial {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}
