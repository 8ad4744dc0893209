//! Provisioned volumes over CSI with real data: what csi-sanity does not look at, namely what is in them.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use proto::csi::v1 as csi;
use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::group_controller_client::GroupControllerClient;
use proto::csi::v1::node_client::NodeClient;
use proto::csi::v1::snapshot_metadata_client::SnapshotMetadataClient;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::v1::volume_content_source::{SnapshotSource, Type, VolumeSource};
use system_tests::reference_driver::{PASSWORD, ReferenceDriver};
use system_tests::{process, reference, wait};
use tokio::runtime::Runtime;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

const MIB: u64 = 1 << 20;
const NODE: &str = "reference-node";

/// The driver, its clients, and what kind of volumes a test has.
struct Scene {
    driver: ReferenceDriver,
    runtime: Runtime,
    channel: Channel,
    capability: csi::VolumeCapability,
}

fn secrets() -> HashMap<String, String> {
    HashMap::from([("password".to_owned(), PASSWORD.to_owned())])
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn connect(runtime: &Runtime, socket: &Path) -> Channel {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    let endpoint = endpoint.timeout(wait::LONG);
    wait::until("the driver answers", || runtime.block_on(endpoint.connect()).ok())
}

impl Scene {
    fn new(access_type: AccessType) -> Scene {
        let driver = ReferenceDriver::start(Path::new(env!("CARGO_BIN_EXE_reference-driver")));
        let runtime = Runtime::new().unwrap();
        let channel = connect(&runtime, &driver.socket());
        let capability = csi::VolumeCapability {
            access_type: Some(access_type),
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        };
        Scene { driver, runtime, channel, capability }
    }

    fn files() -> Scene {
        Scene::new(AccessType::Mount(MountVolume::default()))
    }

    fn devices() -> Scene {
        Scene::new(AccessType::Block(BlockVolume {}))
    }

    fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    fn create(&self, name: &str, bytes: u64, source: Option<Type>) -> csi::Volume {
        let request = csi::CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(csi::CapacityRange { required_bytes: bytes as i64, limit_bytes: 0 }),
            volume_capabilities: vec![self.capability.clone()],
            secrets: secrets(),
            volume_content_source: source.map(|source| csi::VolumeContentSource { r#type: Some(source) }),
            ..Default::default()
        };
        let made = self.runtime.block_on(self.controller().create_volume(request)).unwrap();
        made.into_inner().volume.unwrap()
    }

    fn snapshot(&self, name: &str, volume: &csi::Volume) -> csi::Snapshot {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.volume_id.clone(),
            name: name.to_owned(),
            secrets: secrets(),
            ..Default::default()
        };
        let taken = self.runtime.block_on(self.controller().create_snapshot(request)).unwrap();
        taken.into_inner().snapshot.unwrap()
    }

    fn staging(&self, volume: &csi::Volume) -> PathBuf {
        self.driver.kubelet_dir().join("plugins").join(&volume.volume_id)
    }

    fn target(&self, volume: &csi::Volume) -> PathBuf {
        self.driver.kubelet_dir().join("pods").join(&volume.volume_id).join("volume")
    }

    /// What the attacher and kubelet do before a pod starts; repeating it changes nothing. Answers where the volume is.
    fn mount(&self, volume: &csi::Volume) -> PathBuf {
        let request = csi::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: NODE.to_owned(),
            volume_capability: Some(self.capability.clone()),
            secrets: secrets(),
            volume_context: volume.volume_context.clone(),
            ..Default::default()
        };
        let (mut one, mut two) = (self.controller(), self.controller());
        let both = async {
            tokio::join!(
                one.controller_publish_volume(request.clone()),
                two.controller_publish_volume(request)
            )
        };
        let (first, second) = self.runtime.block_on(both);
        let publish_context = first.unwrap().into_inner().publish_context;
        assert_eq!(
            second.unwrap().into_inner().publish_context,
            publish_context,
            "the attacher sends it twice"
        );
        let (staging, target) = (self.staging(volume), self.target(volume));
        fs::create_dir_all(&staging).unwrap();
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let stage = csi::NodeStageVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: text(&staging),
            volume_capability: Some(self.capability.clone()),
            secrets: secrets(),
            volume_context: volume.volume_context.clone(),
        };
        self.runtime.block_on(self.node().node_stage_volume(stage)).unwrap();
        let publish = csi::NodePublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            publish_context,
            staging_target_path: text(&staging),
            target_path: text(&target),
            volume_capability: Some(self.capability.clone()),
            secrets: secrets(),
            volume_context: volume.volume_context.clone(),
            ..Default::default()
        };
        self.runtime.block_on(self.node().node_publish_volume(publish)).unwrap();
        target
    }

    /// What kubelet and the attacher do when the pod has gone.
    fn unmount(&self, volume: &csi::Volume) {
        let volume_id = volume.volume_id.clone();
        let (staging, target) = (self.staging(volume), self.target(volume));
        let request =
            csi::NodeUnpublishVolumeRequest { volume_id: volume_id.clone(), target_path: text(&target) };
        self.runtime.block_on(self.node().node_unpublish_volume(request)).unwrap();
        assert!(!target.exists(), "the target is removed");
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: volume_id.clone(),
            staging_target_path: text(&staging),
        };
        self.runtime.block_on(self.node().node_unstage_volume(request)).unwrap();
        let request =
            csi::ControllerUnpublishVolumeRequest { volume_id, node_id: NODE.to_owned(), secrets: secrets() };
        self.runtime.block_on(self.controller().controller_unpublish_volume(request)).unwrap();
    }

    fn delete(&self, volume: &csi::Volume) -> Result<(), tonic::Status> {
        let request = csi::DeleteVolumeRequest { volume_id: volume.volume_id.clone(), secrets: secrets() };
        self.runtime.block_on(self.controller().delete_volume(request)).map(|_| ())
    }

    /// Asks kubelet's and the resizer's way for more; answers what the node says of the size.
    fn expand(&self, volume: &csi::Volume, bytes: u64) -> u64 {
        let capacity_range = Some(csi::CapacityRange { required_bytes: bytes as i64, limit_bytes: 0 });
        let request = csi::ControllerExpandVolumeRequest {
            volume_id: volume.volume_id.clone(),
            capacity_range,
            secrets: secrets(),
            volume_capability: Some(self.capability.clone()),
        };
        let grown =
            self.runtime.block_on(self.controller().controller_expand_volume(request)).unwrap().into_inner();
        assert_eq!((grown.capacity_bytes as u64, grown.node_expansion_required), (bytes, true));
        let request = csi::NodeExpandVolumeRequest {
            volume_id: volume.volume_id.clone(),
            volume_path: text(&self.target(volume)),
            capacity_range,
            staging_target_path: text(&self.staging(volume)),
            volume_capability: Some(self.capability.clone()),
            secrets: secrets(),
        };
        self.runtime.block_on(self.node().node_expand_volume(request)).unwrap().into_inner().capacity_bytes
            as u64
    }

    fn total_bytes(&self, volume: &csi::Volume) -> u64 {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: volume.volume_id.clone(),
            volume_path: text(&self.target(volume)),
            staging_target_path: text(&self.staging(volume)),
        };
        let answer = self.runtime.block_on(self.node().node_get_volume_stats(request)).unwrap().into_inner();
        let bytes = answer.usage.iter().find(|usage| usage.unit() == csi::volume_usage::Unit::Bytes);
        bytes.unwrap().total as u64
    }

    /// The driver dies and comes back; mounts and state stay.
    fn restart(&mut self) {
        self.driver.kill();
        self.driver.launch();
        self.channel = connect(&self.runtime, &self.driver.socket());
    }

    fn assert_nothing_left(&self) {
        wait::until_true("all mounts are gone", || self.driver.mounts().is_empty());
        wait::until_true("all loop devices are given back", || self.driver.loop_devices().is_empty());
        assert!(!self.driver.log().contains(PASSWORD), "secrets are not logged");
    }
}

/// `write` with a sync, so that a copy of the device has it.
fn write(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn snapshots_and_clones_have_the_files_of_their_instant() {
    if let Some(reason) = reference::missing() {
        return process::skip("provisioned::snapshots_and_clones_have_the_files_of_their_instant", reason);
    }
    let scene = Scene::files();
    let origin = scene.create("origin", 300 * MIB, None);
    let at = scene.mount(&origin);
    write(&at.join("before"), "one");
    let snapshot = scene.snapshot("instant", &origin);
    assert!(snapshot.ready_to_use && snapshot.size_bytes as u64 == 300 * MIB);
    write(&at.join("after"), "two");
    let restored = Type::Snapshot(SnapshotSource { snapshot_id: snapshot.snapshot_id });
    // Larger than its source: the file system grows when it is mounted.
    let restored = scene.create("restored", 400 * MIB, Some(restored));
    let clone = Type::Volume(VolumeSource { volume_id: origin.volume_id.clone() });
    let clone = scene.create("clone", 0, Some(clone));
    assert!(restored.content_source.is_some());

    let from_snapshot = scene.mount(&restored);
    assert_eq!(fs::read_to_string(from_snapshot.join("before")).unwrap(), "one");
    assert!(!from_snapshot.join("after").exists());
    assert!(scene.total_bytes(&restored) > 300 * MIB);
    let from_clone = scene.mount(&clone);
    assert_eq!(fs::read_to_string(from_clone.join("after")).unwrap(), "two");
    write(&from_clone.join("before"), "changed");
    assert_eq!(fs::read_to_string(at.join("before")).unwrap(), "one", "copies are their own");

    let in_use = scene.delete(&origin).unwrap_err();
    assert_eq!(in_use.code(), Code::FailedPrecondition, "{}", in_use.message());
    for volume in [&origin, &restored, &clone] {
        scene.unmount(volume);
        scene.delete(volume).unwrap();
        scene.delete(volume).unwrap();
    }
    scene.assert_nothing_left();
}

#[test]
fn a_volume_grows_under_its_user_and_survives_the_driver() {
    if let Some(reason) = reference::missing() {
        return process::skip("provisioned::a_volume_grows_under_its_user_and_survives_the_driver", reason);
    }
    let mut scene = Scene::files();
    let volume = scene.create("grows", 300 * MIB, None);
    let at = scene.mount(&volume);
    write(&at.join("file"), "content");
    let before = scene.total_bytes(&volume);
    let open = File::open(at.join("file")).unwrap();
    assert_eq!(scene.expand(&volume, 500 * MIB), 500 * MIB);
    assert!(scene.total_bytes(&volume) > before + 150 * MIB);

    scene.restart();
    let mut content = [0; 7];
    open.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(&content, b"content", "the mount outlives the driver");
    drop(open);
    // Kubelet, restarted too, repeats what it has done.
    assert_eq!(scene.mount(&volume), at);
    assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "content");
    scene.unmount(&volume);
    // Grown while nobody uses it.
    let request = csi::ControllerExpandVolumeRequest {
        volume_id: volume.volume_id.clone(),
        capacity_range: Some(csi::CapacityRange { required_bytes: 600 << 20, limit_bytes: 0 }),
        secrets: secrets(),
        volume_capability: None,
    };
    scene.runtime.block_on(scene.controller().controller_expand_volume(request)).unwrap();
    scene.mount(&volume);
    assert!(scene.total_bytes(&volume) > 500 * MIB);
    scene.unmount(&volume);
    scene.delete(&volume).unwrap();
    scene.assert_nothing_left();
}

#[test]
fn files_belong_to_the_group_that_is_asked_for() {
    if let Some(reason) = reference::missing() {
        return process::skip("provisioned::files_belong_to_the_group_that_is_asked_for", reason);
    }
    let group = MountVolume { volume_mount_group: "4321".to_owned(), ..Default::default() };
    let scene = Scene::new(AccessType::Mount(group));
    let volume = scene.create("group", 300 * MIB, None);
    let at = scene.mount(&volume);
    write(&at.join("file"), "content");
    let (directory, file) = (at.metadata().unwrap(), at.join("file").metadata().unwrap());
    assert_eq!((directory.gid(), file.gid()), (4321, 4321));
    assert_eq!(directory.mode() & 0o2070, 0o2070);
    scene.unmount(&volume);
    scene.delete(&volume).unwrap();
    scene.assert_nothing_left();
}

#[test]
fn a_device_is_published_and_its_changes_are_told() {
    if let Some(reason) = reference::missing() {
        return process::skip("provisioned::a_device_is_published_and_its_changes_are_told", reason);
    }
    let scene = Scene::devices();
    let volume = scene.create("device", 64 * MIB, None);
    let at = scene.mount(&volume);
    assert!(at.metadata().unwrap().file_type().is_block_device());
    let device = File::options().read(true).write(true).open(&at).unwrap();
    let put = |offset: u64| {
        device.write_all_at(&[7; 4096], offset).unwrap();
        device.sync_all().unwrap();
    };
    for offset in [0, 8 * MIB, 16 * MIB] {
        put(offset);
    }
    let base = scene.snapshot("base", &volume);
    put(32 * MIB);
    put(8 * MIB); // the same content again
    let target = scene.snapshot("target", &volume);

    let mut client = SnapshotMetadataClient::new(scene.channel.clone());
    let allocated = |client: &mut SnapshotMetadataClient<Channel>, starting_offset, max_results| {
        let request = csi::GetMetadataAllocatedRequest {
            snapshot_id: target.snapshot_id.clone(),
            starting_offset,
            max_results,
            secrets: secrets(),
        };
        scene.runtime.block_on(async {
            let mut stream = client.get_metadata_allocated(request).await?.into_inner();
            let mut messages = Vec::new();
            while let Some(message) = stream.message().await? {
                assert_eq!(message.volume_capacity_bytes as u64, 64 * MIB);
                assert!(max_results == 0 || message.block_metadata.len() <= max_results as usize);
                messages.extend(message.block_metadata);
            }
            Ok::<_, tonic::Status>(messages)
        })
    };
    let all = allocated(&mut client, 0, 0).unwrap();
    let holds = |blocks: &[csi::BlockMetadata], offset: u64| {
        blocks
            .iter()
            .any(|block| (block.byte_offset..block.byte_offset + block.size_bytes).contains(&(offset as i64)))
    };
    for offset in [0, 8 * MIB, 16 * MIB, 32 * MIB] {
        assert!(holds(&all, offset), "{offset} in {all:?}");
    }
    assert!(!holds(&all, 48 * MIB), "{all:?}");
    assert_eq!(allocated(&mut client, 0, 1).unwrap(), all, "one by one it is the same");
    let later = allocated(&mut client, 10 * MIB as i64, 0).unwrap();
    assert!(!holds(&later, 8 * MIB) && holds(&later, 16 * MIB) && holds(&later, 32 * MIB));
    assert_eq!(allocated(&mut client, 65 * MIB as i64, 0).unwrap_err().code(), Code::OutOfRange);

    let request = csi::GetMetadataDeltaRequest {
        base_snapshot_id: base.snapshot_id,
        target_snapshot_id: target.snapshot_id.clone(),
        secrets: secrets(),
        ..Default::default()
    };
    let changed = scene.runtime.block_on(async {
        let mut stream = client.get_metadata_delta(request).await.unwrap().into_inner();
        let mut blocks = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            blocks.extend(message.block_metadata);
        }
        blocks
    });
    assert!(holds(&changed, 32 * MIB) && !holds(&changed, 8 * MIB) && !holds(&changed, 0), "{changed:?}");

    assert_eq!(scene.expand(&volume, 96 * MIB), 96 * MIB);
    device.write_all_at(&[9; 4096], 90 * MIB).unwrap();
    drop(device);
    scene.unmount(&volume);
    scene.delete(&volume).unwrap();
    scene.assert_nothing_left();
}

#[test]
fn a_snapshot_is_taken_where_it_shall_be_usable_or_not_at_all() {
    if let Some(reason) = reference::missing() {
        return process::skip(
            "provisioned::a_snapshot_is_taken_where_it_shall_be_usable_or_not_at_all",
            reason,
        );
    }
    let scene = Scene::devices();
    let volume = scene.create("placed", 64 * MIB, None);
    let here = volume.accessible_topology[0].clone();
    let elsewhere = HashMap::from([("topology.reference.test/zone".to_owned(), "elsewhere".to_owned())]);
    let take = |name: &str, places: Vec<csi::Topology>| {
        let request = csi::CreateSnapshotRequest {
            source_volume_id: volume.volume_id.clone(),
            name: name.to_owned(),
            secrets: secrets(),
            accessibility_requirements: Some(csi::TopologyRequirement {
                requisite: places.clone(),
                preferred: places,
            }),
            ..Default::default()
        };
        scene.runtime.block_on(scene.controller().create_snapshot(request))
    };
    let elsewhere = csi::Topology { segments: elsewhere };
    let taken = take("here", vec![elsewhere.clone(), here.clone()]).unwrap().into_inner();
    assert_eq!(taken.snapshot.unwrap().accessible_topology, [here]);
    assert_eq!(take("there", vec![elsewhere]).unwrap_err().code(), Code::ResourceExhausted);
}

#[test]
fn a_group_of_snapshots_lives_and_dies_together() {
    if let Some(reason) = reference::missing() {
        return process::skip("provisioned::a_group_of_snapshots_lives_and_dies_together", reason);
    }
    let scene = Scene::devices();
    let volumes = [scene.create("a", 64 * MIB, None), scene.create("b", 64 * MIB, None)];
    let mut client = GroupControllerClient::new(scene.channel.clone());
    let ids: Vec<String> = volumes.iter().map(|volume| volume.volume_id.clone()).collect();
    let mut create = |source_volume_ids: Vec<String>| {
        let request = csi::CreateVolumeGroupSnapshotRequest {
            name: "group".to_owned(),
            source_volume_ids,
            secrets: secrets(),
            ..Default::default()
        };
        scene.runtime.block_on(client.create_volume_group_snapshot(request))
    };
    let missing = vec![ids[0].clone(), "vol-99999999".to_owned()];
    assert_eq!(create(missing).unwrap_err().code(), Code::NotFound);
    let group = create(ids.clone()).unwrap().into_inner().group_snapshot.unwrap();
    assert_eq!(create(ids.clone()).unwrap().into_inner().group_snapshot.unwrap(), group, "again");
    assert_eq!(create(ids[..1].to_vec()).unwrap_err().code(), Code::AlreadyExists);
    assert!(group.ready_to_use && group.snapshots.len() == 2);
    assert!(group.snapshots.iter().all(|one| one.group_snapshot_id == group.group_snapshot_id));

    let snapshot_id = group.snapshots[0].snapshot_id.clone();
    let request = csi::DeleteSnapshotRequest { snapshot_id: snapshot_id.clone(), secrets: secrets() };
    let alone = scene.runtime.block_on(scene.controller().delete_snapshot(request)).unwrap_err();
    assert_eq!(alone.code(), Code::FailedPrecondition);
    let delete = |snapshot_ids: Vec<String>| csi::DeleteVolumeGroupSnapshotRequest {
        group_snapshot_id: group.group_snapshot_id.clone(),
        snapshot_ids,
        secrets: secrets(),
    };
    let all = group.snapshots.iter().map(|one| one.snapshot_id.clone()).collect();
    let foreign = scene.runtime.block_on(client.delete_volume_group_snapshot(delete(vec!["snap-1".into()])));
    assert_eq!(foreign.unwrap_err().code(), Code::InvalidArgument);
    scene.runtime.block_on(client.delete_volume_group_snapshot(delete(all))).unwrap();
    let request = csi::GetSnapshotRequest { snapshot_id, secrets: secrets() };
    let gone = scene.runtime.block_on(scene.controller().get_snapshot(request)).unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let listed =
        scene.runtime.block_on(scene.controller().list_snapshots(csi::ListSnapshotsRequest::default()));
    assert!(listed.unwrap().into_inner().entries.is_empty(), "nothing stays of a group that failed");
}

#[test]
fn calls_without_the_right_secret_are_refused_and_it_is_not_repeated() {
    if let Some(reason) = reference::missing() {
        return process::skip(
            "provisioned::calls_without_the_right_secret_are_refused_and_it_is_not_repeated",
            reason,
        );
    }
    let scene = Scene::devices();
    let volume = scene.create("secret", 64 * MIB, None);
    for secrets in [HashMap::new(), HashMap::from([("password".to_owned(), "guess".to_owned())])] {
        let request = csi::DeleteVolumeRequest { volume_id: volume.volume_id.clone(), secrets };
        let refused = scene.runtime.block_on(scene.controller().delete_volume(request)).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(!refused.message().contains("guess"), "{}", refused.message());
    }
    assert!(!scene.driver.log().contains("guess"));
    scene.delete(&volume).unwrap();
}
