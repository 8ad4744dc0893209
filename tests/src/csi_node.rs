//! The node service of a CSI driver, called as kubelet calls it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use proto::csi::v1::node_client::NodeClient;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use proto::csi::v1::{
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    VolumeCapability,
};
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::wait;

/// A volume as a PersistentVolume or a pod describes it.
#[derive(Debug, Clone)]
pub struct CsiVolume {
    /// The handle.
    pub id: String,
    /// `volumeAttributes`.
    pub attributes: HashMap<String, String>,
    /// Where it is staged; `None` for a pod's inline volume.
    pub staging: Option<PathBuf>,
}

impl CsiVolume {
    /// A PersistentVolume, staged below kubelet's directory.
    pub fn persistent(kubelet: &Path, id: &str, attributes: &[(&str, &str)]) -> CsiVolume {
        let staging =
            kubelet.join("plugins/kubernetes.io/csi/cvmfs.csi.cern.ch").join(id).join("globalmount");
        CsiVolume { id: id.to_owned(), attributes: map(attributes), staging: Some(staging) }
    }

    /// An inline volume; `number` makes its handle, which kubelet makes from pod and volume name.
    pub fn inline(number: u64, attributes: &[(&str, &str)]) -> CsiVolume {
        let mut attributes = map(attributes);
        attributes.insert("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned());
        CsiVolume { id: format!("csi-{number:064x}"), attributes, staging: None }
    }
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn text(path: &Path) -> String {
    path.to_str().expect("temporary paths are UTF-8").to_owned()
}

/// A connection to a driver's socket.
pub struct CsiNode {
    runtime: Runtime,
    client: NodeClient<Channel>,
}

impl CsiNode {
    /// Connects as soon as the socket answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn connect(socket: &Path) -> CsiNode {
        let runtime = Runtime::new().expect("threads can be started");
        let endpoint =
            Endpoint::from_shared(format!("unix://{}", text(socket))).expect("a path makes an address");
        let endpoint = endpoint.connect_timeout(wait::LONG).timeout(wait::LONG);
        let channel = wait::until("the CSI socket answers", || runtime.block_on(endpoint.connect()).ok());
        CsiNode { runtime, client: NodeClient::new(channel) }
    }

    /// NodeStageVolume; makes the staging directory as kubelet does.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Panics
    /// For an inline volume, or when the directory cannot be made.
    pub fn stage(&self, volume: &CsiVolume) -> Result<(), Status> {
        self.runtime.block_on(stage(self.client.clone(), volume.clone()))
    }

    /// NodePublishVolume; makes the directory that the target is in, as kubelet does.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Panics
    /// When the directory cannot be made.
    pub fn publish(&self, volume: &CsiVolume, target: &Path) -> Result<(), Status> {
        self.runtime.block_on(publish(self.client.clone(), volume.clone(), target.to_owned()))
    }

    /// NodeUnpublishVolume.
    ///
    /// # Errors
    /// The driver's.
    pub fn unpublish(&self, volume: &CsiVolume, target: &Path) -> Result<(), Status> {
        self.runtime.block_on(unpublish(self.client.clone(), volume.clone(), target.to_owned()))
    }

    /// NodeUnstageVolume.
    ///
    /// # Errors
    /// The driver's.
    ///
    /// # Panics
    /// For an inline volume.
    pub fn unstage(&self, volume: &CsiVolume) -> Result<(), Status> {
        let staging = volume.staging.as_deref().expect("an inline volume is not staged");
        let request =
            NodeUnstageVolumeRequest { volume_id: volume.id.clone(), staging_target_path: text(staging) };
        let mut client = self.client.clone();
        self.runtime.block_on(async move { client.node_unstage_volume(request).await.map(|_| ()) })
    }

    /// NodeStageVolume for all at once; the first error, if there is one.
    ///
    /// # Errors
    /// The driver's.
    pub fn stage_all(&self, volumes: &[CsiVolume]) -> Result<(), Status> {
        let calls = volumes.iter().map(|volume| stage(self.client.clone(), volume.clone()));
        self.together(calls)
    }

    /// NodePublishVolume for all at once.
    ///
    /// # Errors
    /// The driver's.
    pub fn publish_all(&self, uses: &[(CsiVolume, PathBuf)]) -> Result<(), Status> {
        let calls =
            uses.iter().map(|(volume, target)| publish(self.client.clone(), volume.clone(), target.clone()));
        self.together(calls)
    }

    /// NodeUnpublishVolume for all at once.
    ///
    /// # Errors
    /// The driver's.
    pub fn unpublish_all(&self, uses: &[(CsiVolume, PathBuf)]) -> Result<(), Status> {
        let calls = uses
            .iter()
            .map(|(volume, target)| unpublish(self.client.clone(), volume.clone(), target.clone()));
        self.together(calls)
    }

    fn together<F>(&self, calls: impl Iterator<Item = F>) -> Result<(), Status>
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let calls: Vec<_> = calls.collect();
        self.runtime.block_on(async move {
            let tasks: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
            let mut outcome = Ok(());
            for task in tasks {
                outcome = outcome.and(task.await.expect("a call does not panic"));
            }
            outcome
        })
    }
}

fn capability() -> VolumeCapability {
    let mount =
        MountVolume { fs_type: String::new(), mount_flags: Vec::new(), volume_mount_group: String::new() };
    VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::MultiNodeReaderOnly.into() }),
        access_type: Some(AccessType::Mount(mount)),
    }
}

async fn stage(mut client: NodeClient<Channel>, volume: CsiVolume) -> Result<(), Status> {
    let staging = volume.staging.as_deref().expect("an inline volume is not staged");
    std::fs::create_dir_all(staging).expect("kubelet's directory is ours");
    let request = NodeStageVolumeRequest {
        volume_id: volume.id.clone(),
        staging_target_path: text(staging),
        volume_capability: Some(capability()),
        volume_context: volume.attributes.clone(),
        ..NodeStageVolumeRequest::default()
    };
    client.node_stage_volume(request).await.map(|_| ())
}

async fn publish(mut client: NodeClient<Channel>, volume: CsiVolume, target: PathBuf) -> Result<(), Status> {
    let parent = target.parent().expect("a target has a parent");
    std::fs::create_dir_all(parent).expect("kubelet's directory is ours");
    let request = NodePublishVolumeRequest {
        volume_id: volume.id.clone(),
        staging_target_path: volume.staging.as_deref().map(text).unwrap_or_default(),
        target_path: text(&target),
        volume_capability: Some(capability()),
        readonly: true,
        volume_context: volume.attributes.clone(),
        ..NodePublishVolumeRequest::default()
    };
    client.node_publish_volume(request).await.map(|_| ())
}

async fn unpublish(
    mut client: NodeClient<Channel>,
    volume: CsiVolume,
    target: PathBuf,
) -> Result<(), Status> {
    let request = NodeUnpublishVolumeRequest { volume_id: volume.id, target_path: text(&target) };
    client.node_unpublish_volume(request).await.map(|_| ())
}
