//! Random requests, valid and not, at the Node and Controller services of the real daemon: it goes on answering, mounts
//! and makes nothing outside kubelet's directory, and nothing stays when everything was taken back.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::v1::{
    CapacityRange, ControllerExpandVolumeRequest, CreateVolumeRequest, DeleteVolumeRequest,
    ListVolumesRequest, NodeExpandVolumeRequest, NodeGetVolumeHealthRequest, NodeGetVolumeStatsRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
    ValidateVolumeCapabilitiesRequest, VolumeCapability,
};
use system_tests::daemon::Scene;
use system_tests::kubelet::{Volume, text, timed};
use tonic::Code;

use crate::ground::{Node, REPO, mounts_below};

/// One call.
#[derive(Debug, Clone)]
enum Call {
    Stage(Request),
    Unstage(Request),
    Publish(Request),
    Unpublish(Request),
    Stats(Request),
    Health(Request),
    Expand(Request),
    Create(Request),
    Delete(Request),
    Validate(Request),
    ControllerExpand(Request),
    List(i32, String),
}

/// What a call is made of; each takes what it has a field for.
#[derive(Debug, Clone)]
struct Request {
    id: String,
    target: String,
    staging: String,
    capability: Option<VolumeCapability>,
    context: HashMap<String, String>,
    secrets: HashMap<String, String>,
    read_only: bool,
    size: (i64, i64),
}

/// Mostly a few, so that calls meet; sometimes anything.
fn ids() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["v1", "v2", "v3"]).prop_map(str::to_owned),
        1 => Just(String::new()),
        1 => Just("x".repeat(1 << 20)),
        1 => ".{0,40}",
        1 => Just("../../etc".to_owned()),
    ]
}

fn paths(root: PathBuf) -> impl Strategy<Value = String> {
    let below = move |part: &str| text(&root.join(part));
    let known = vec![
        below("pods/a/volumes/kubernetes.io~csi/v/mount"),
        below("pods/b/volumes/kubernetes.io~csi/v/mount"),
        below("plugins/kubernetes.io/csi/s1/globalmount"),
        below("plugins/kubernetes.io/csi/s2/globalmount"),
    ];
    let strange = vec![
        String::new(),
        "relative/path".to_owned(),
        "/".to_owned(),
        "/etc".to_owned(),
        below("").trim_end_matches('/').to_owned(),
        below("../outside/mount"),
        below("pods/a/../../../outside/mount"),
        // `link` leads out of kubelet's directory, `file` is one.
        below("pods/link/mount"),
        below("pods/link"),
        below("pods/file/mount"),
        below("pods/file"),
        below("pods/a//volumes/./kubernetes.io~csi/v/mount/"),
        below("pods/nobody/volumes/mount"),
        below(&"p".repeat(300)),
        below(&"p/".repeat(3000)),
        format!("{}\0", below("pods/a/zero")),
        "x".repeat(1 << 20),
    ];
    prop_oneof![
        5 => prop::sample::select(known),
        3 => prop::sample::select(strange),
        1 => "/?[a-z./]{0,30}",
    ]
}

fn capabilities() -> impl Strategy<Value = Option<VolumeCapability>> {
    let mode = prop_oneof![6 => 1..8_i32, 1 => any::<i32>(), 1 => Just(0)];
    let kind = prop_oneof![
        6 => Just(Some(AccessType::Mount(MountVolume::default()))),
        1 => Just(Some(AccessType::Block(BlockVolume {}))),
        1 => Just(None),
        1 => ".{0,8}".prop_map(|group| Some(AccessType::Mount(MountVolume {
            fs_type: group.clone(),
            mount_flags: vec![group.clone(); 3],
            volume_mount_group: group,
        }))),
    ];
    let there = (kind, prop::option::weighted(0.9, mode)).prop_map(|(access_type, mode)| {
        Some(VolumeCapability { access_type, access_mode: mode.map(|mode| AccessMode { mode }) })
    });
    let good = Just(Some(VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: Mode::MultiNodeReaderOnly.into() }),
    }));
    prop_oneof![4 => good, 3 => there, 1 => Just(None)]
}

fn contexts() -> impl Strategy<Value = HashMap<String, String>> {
    let of = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    prop_oneof![
        5 => Just(of(&[("repository", REPO)])),
        1 => Just(of(&[("repository", "../../etc")])),
        1 => Just(of(&[("repository", "nobody.cern.ch")])),
        1 => Just(of(&[("repository", REPO), ("csi.storage.k8s.io/ephemeral", "true"), ("server", "http://x/")])),
        1 => Just(of(&[("clientConfigFilepath", "/etc/shadow"), ("repository", REPO)])),
        1 => Just(HashMap::from([("repository".to_owned(), "x".repeat(1 << 20))])),
        1 => prop::collection::hash_map(".{0,12}", ".{0,12}", 0..4),
    ]
}

fn requests(root: &Path) -> impl Strategy<Value = Request> + use<> {
    let paths = paths(root.to_owned()).boxed();
    let secrets =
        prop_oneof![8 => Just(HashMap::new()), 1 => prop::collection::hash_map(".{0,8}", ".{0,8}", 1..3)];
    let size = prop_oneof![3 => Just((0, 0)), 1 => any::<(i64, i64)>()];
    let staging = prop_oneof![1 => Just(String::new()), 3 => paths.clone()];
    (ids(), paths, staging, capabilities(), contexts(), secrets, any::<bool>(), size).prop_map(
        |(id, target, staging, capability, context, secrets, read_only, size)| Request {
            id,
            target,
            staging,
            capability,
            context,
            secrets,
            read_only,
            size,
        },
    )
}

fn calls(root: &Path) -> impl Strategy<Value = Call> + use<> {
    let request = requests(root).boxed();
    prop_oneof![
        3 => request.clone().prop_map(Call::Stage),
        2 => request.clone().prop_map(Call::Unstage),
        6 => request.clone().prop_map(Call::Publish),
        4 => request.clone().prop_map(Call::Unpublish),
        1 => request.clone().prop_map(Call::Stats),
        1 => request.clone().prop_map(Call::Health),
        1 => request.clone().prop_map(Call::Expand),
        2 => request.clone().prop_map(Call::Create),
        1 => request.clone().prop_map(Call::Delete),
        1 => request.clone().prop_map(Call::Validate),
        1 => request.prop_map(Call::ControllerExpand),
        1 => (any::<i32>(), ".{0,20}").prop_map(|(entries, token)| Call::List(entries, token)),
    ]
}

/// Sends a call; answers its code.
async fn send(channel: tonic::transport::Channel, call: Call) -> Code {
    use proto::csi::v1::controller_client::ControllerClient;
    use proto::csi::v1::node_client::NodeClient;
    let (mut node, mut controller) = (NodeClient::new(channel.clone()), ControllerClient::new(channel));
    let range = |(required_bytes, limit_bytes)| Some(CapacityRange { required_bytes, limit_bytes });
    let sent = match call {
        Call::Stage(r) => {
            let request = NodeStageVolumeRequest {
                volume_id: r.id,
                staging_target_path: r.target,
                volume_capability: r.capability,
                volume_context: r.context,
                secrets: r.secrets,
                ..Default::default()
            };
            node.node_stage_volume(timed(request)).await.map(drop)
        }
        Call::Unstage(r) => {
            let request = NodeUnstageVolumeRequest { volume_id: r.id, staging_target_path: r.target };
            node.node_unstage_volume(timed(request)).await.map(drop)
        }
        Call::Publish(r) => {
            let request = NodePublishVolumeRequest {
                volume_id: r.id,
                target_path: r.target,
                staging_target_path: r.staging,
                volume_capability: r.capability,
                volume_context: r.context,
                secrets: r.secrets,
                readonly: r.read_only,
                ..Default::default()
            };
            node.node_publish_volume(timed(request)).await.map(drop)
        }
        Call::Unpublish(r) => {
            let request = NodeUnpublishVolumeRequest { volume_id: r.id, target_path: r.target };
            node.node_unpublish_volume(timed(request)).await.map(drop)
        }
        Call::Stats(r) => {
            let request = NodeGetVolumeStatsRequest {
                volume_id: r.id,
                volume_path: r.target,
                staging_target_path: r.staging,
            };
            node.node_get_volume_stats(timed(request)).await.map(drop)
        }
        Call::Health(r) => {
            let request = NodeGetVolumeHealthRequest {
                volume_id: r.id,
                volume_publish_path: r.target,
                staging_target_path: r.staging,
            };
            node.node_get_volume_health(timed(request)).await.map(drop)
        }
        Call::Expand(r) => {
            let request = NodeExpandVolumeRequest {
                volume_id: r.id,
                volume_path: r.target,
                staging_target_path: r.staging,
                capacity_range: range(r.size),
                volume_capability: r.capability,
                secrets: r.secrets,
            };
            node.node_expand_volume(timed(request)).await.map(drop)
        }
        Call::Create(r) => {
            let request = CreateVolumeRequest {
                name: r.id,
                capacity_range: range(r.size),
                volume_capabilities: r.capability.into_iter().collect(),
                parameters: r.context,
                secrets: r.secrets,
                ..Default::default()
            };
            controller.create_volume(timed(request)).await.map(drop)
        }
        Call::Delete(r) => {
            let request = DeleteVolumeRequest { volume_id: r.id, secrets: r.secrets };
            controller.delete_volume(timed(request)).await.map(drop)
        }
        Call::Validate(r) => {
            let request = ValidateVolumeCapabilitiesRequest {
                volume_id: r.id,
                volume_context: r.context,
                volume_capabilities: r.capability.into_iter().collect(),
                secrets: r.secrets,
                ..Default::default()
            };
            controller.validate_volume_capabilities(timed(request)).await.map(drop)
        }
        Call::ControllerExpand(r) => {
            let request = ControllerExpandVolumeRequest {
                volume_id: r.id,
                capacity_range: range(r.size),
                volume_capability: r.capability,
                secrets: r.secrets,
            };
            controller.controller_expand_volume(timed(request)).await.map(drop)
        }
        Call::List(max_entries, starting_token) => {
            let request = ListVolumesRequest { max_entries, starting_token };
            controller.list_volumes(timed(request)).await.map(drop)
        }
    };
    sent.err().map_or(Code::Ok, |status| status.code())
}

/// Everything in a directory, without following links or entering mounts.
fn tree(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            found.extend(tree(&path));
        }
        found.insert(path);
    }
    found
}

#[test]
fn nothing_breaks_leaks_or_leaves_kubelets_directory() {
    let scene = Scene::new();
    let mut node = Node::start(&scene);
    let root = node.kubelet.root().to_owned();
    let outside = scene.path("outside");
    fs::create_dir_all(outside.join("mount")).unwrap();
    fs::write(outside.join("precious"), "precious").unwrap();
    for part in ["pods/a", "pods/b"] {
        fs::create_dir_all(root.join(part).join("volumes/kubernetes.io~csi/v")).unwrap();
    }
    for part in ["s1", "s2"] {
        fs::create_dir_all(root.join("plugins/kubernetes.io/csi").join(part).join("globalmount")).unwrap();
    }
    symlink(&outside, root.join("pods/link")).unwrap();
    fs::write(root.join("pods/file"), "a file").unwrap();
    let before = tree(&outside);
    let pid = node.daemon.pid();

    let mut runner = TestRunner::new(Config {
        cases: 24,
        max_shrink_iters: 20,
        failure_persistence: None,
        ..Config::default()
    });
    let channel = node.kubelet.channel();
    let played = runner.run(&vec(calls(&root), 1..24), |calls| {
        let codes = node.kubelet.runtime.block_on(async {
            let sent: Vec<_> =
                calls.iter().map(|call| tokio::spawn(send(channel.clone(), call.clone()))).collect();
            let mut codes = Vec::new();
            for call in sent {
                codes.push(call.await.unwrap());
            }
            codes
        });
        for (code, call) in codes.iter().zip(&calls) {
            // UNKNOWN is what a client makes of a connection that broke or of a panic.
            prop_assert!(![Code::Unknown, Code::Internal].contains(code), "{code:?} of {call:.300?}");
        }
        prop_assert_eq!(&tree(&outside), &before);
        prop_assert!(mounts_below(&outside).is_empty());
        Ok(())
    });
    assert!(played.is_ok(), "{}", played.unwrap_err());

    // Taken back: every place of every volume.
    // References of stages and of publishes look alike, and both may stand for one path: each is given back both ways, and
    // what an answer said of a path that another one still had is said anew in the next round.
    for _round in 0..3 {
        for mount in node.daemon.mounts() {
            for reference in mount["references"].as_array().unwrap() {
                let reference = reference.as_str().unwrap().strip_prefix("csi|").unwrap();
                let (handle, path) = reference.split_once('|').unwrap();
                assert!(Path::new(path).starts_with(&root), "{reference}");
                let handle = handle.replace("%7c", "|");
                let attributes = HashMap::new();
                let volume =
                    Volume { name: handle.clone(), handle, attributes, mode: Mode::MultiNodeReaderOnly };
                let _other_way = node.kubelet.unpublish(&volume.handle, Path::new(path));
                let _other_way = node.kubelet.unstage(&volume, Path::new(path));
            }
        }
    }
    node.is_clean();
    assert_eq!(node.daemon.pid(), pid);
    assert!(!node.daemon.log().contains("panicked"));
    assert_eq!(fs::read_to_string(root.join("pods/file")).unwrap(), "a file");
    node.daemon.kill();
}
