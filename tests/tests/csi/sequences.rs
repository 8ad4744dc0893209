//! Kubelet's sequences of calls, as measured with Kubernetes 1.20 and 1.36.

use std::fs;
use std::process::Command;

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessType, BlockVolume};
use proto::csi::v1::{NodeGetVolumeHealthRequest, NodeGetVolumeStatsRequest};
use system_tests::daemon::Scene;
use system_tests::kubelet::{Volume, text, timed};
use system_tests::{process, wait};
use tonic::Code;

use crate::ground::{Node, REPO, mounts_below, shows};

#[test]
fn a_pod_starts_is_looked_at_and_goes() {
    let scene = Scene::new();
    let node = Node::start(&scene);
    let kubelet = &node.kubelet;
    let volume = Volume::new("pvc-1", &[("repository", REPO)]);
    for staging in [kubelet.staging(&volume), kubelet.old_staging(&volume)] {
        let target = kubelet.target("pod-1", &volume);
        kubelet.stage(&volume, &staging).unwrap();
        kubelet.publish(&volume, &staging, &target).unwrap();
        // Kubelet never unstages a path whose file system it finds mounted elsewhere, so nothing is mounted there.
        assert!(shows(&target) && !shows(&staging));
        assert!(fs::write(target.join("new"), "x").is_err());
        assert_eq!(node.references(REPO), 2);

        let mut client = kubelet.node();
        let stats = NodeGetVolumeStatsRequest {
            volume_id: "pvc-1".into(),
            volume_path: text(&target),
            ..Default::default()
        };
        let usage = kubelet.runtime.block_on(client.node_get_volume_stats(timed(stats))).unwrap();
        assert!(!usage.into_inner().usage.is_empty());
        let health = NodeGetVolumeHealthRequest { volume_id: "pvc-1".into(), ..Default::default() };
        let health = kubelet.runtime.block_on(client.node_get_volume_health(timed(health))).unwrap();
        assert_eq!(health.into_inner().volume_health.unwrap().health_statuses, []);

        kubelet.unpublish(&volume.handle, &target).unwrap();
        assert!(!target.exists() && target.parent().unwrap().exists());
        kubelet.unstage(&volume, &staging).unwrap();
        assert!(staging.exists());
        node.is_clean();
    }
}

#[test]
fn a_restarted_kubelet_stages_and_publishes_again_what_runs() {
    let scene = Scene::new();
    let node = Node::start(&scene);
    let kubelet = &node.kubelet;
    let volume = Volume::new("pvc-1", &[("repository", REPO)]);
    let (staging, target) = (kubelet.staging(&volume), kubelet.target("pod-1", &volume));
    kubelet.stage(&volume, &staging).unwrap();
    kubelet.publish(&volume, &staging, &target).unwrap();
    let before = mounts_below(kubelet.root());
    let held = fs::File::open(&target).unwrap();
    for _ in 0..3 {
        kubelet.stage(&volume, &staging).unwrap();
        kubelet.publish(&volume, &staging, &target).unwrap();
    }
    assert_eq!(mounts_below(kubelet.root()), before);
    assert_eq!(node.references(REPO), 2);
    // The pod was force-deleted while kubelet was down; both calls come again until they succeed.
    drop(held);
    for _ in 0..2 {
        kubelet.unpublish(&volume.handle, &target).unwrap();
        kubelet.unstage(&volume, &staging).unwrap();
    }
    node.is_clean();
}

#[test]
fn two_pods_share_a_volume_and_a_repeat_must_fit() {
    let scene = Scene::new();
    let node = Node::start(&scene);
    let kubelet = &node.kubelet;
    let volume = Volume::new("pvc-1", &[("repository", REPO)]);
    let staging = kubelet.staging(&volume);
    let targets = [kubelet.target("pod-1", &volume), kubelet.target("pod-2", &volume)];
    kubelet.stage(&volume, &staging).unwrap();
    for target in &targets {
        kubelet.publish(&volume, &staging, target).unwrap();
    }
    assert_eq!(node.references(REPO), 3);
    let mut other = volume.clone();
    other.attributes.insert("tag".into(), "trunk-previous".into());
    let refused = kubelet.publish(&other, &staging, &targets[0]).unwrap_err();
    assert!([Code::AlreadyExists, Code::NotFound].contains(&refused.code()), "{refused}");
    assert!(shows(&targets[0]));
    kubelet.unpublish(&volume.handle, &targets[0]).unwrap();
    assert!(shows(&targets[1]));
    kubelet.unpublish(&volume.handle, &targets[1]).unwrap();
    kubelet.unstage(&volume, &staging).unwrap();
    node.is_clean();
}

#[test]
fn a_subpath_on_top_and_a_booted_node() {
    let scene = Scene::new();
    let mut node = Node::start(&scene);
    let volume = Volume::new("pvc-1", &[("repository", REPO)]);
    let (staging, target) = (node.kubelet.staging(&volume), node.kubelet.target("pod-1", &volume));
    node.kubelet.stage(&volume, &staging).unwrap();
    node.kubelet.publish(&volume, &staging, &target).unwrap();
    // Kubelet binds a directory of the volume for a container with subPath, and takes it away before the volume.
    let inner = fs::read_dir(&target).unwrap().flatten().find(|entry| entry.path().is_dir());
    let inner = inner.map_or(target.clone(), |entry| entry.path());
    let sub = node.kubelet.root().join("pods/pod-1/volume-subpaths/pv/c/0");
    fs::create_dir_all(&sub).unwrap();
    process::run(Command::new("mount").arg("--bind").arg(&inner).arg(&sub));
    node.kubelet.publish(&volume, &staging, &target).unwrap();
    process::run(Command::new("umount").arg(&sub));
    node.kubelet.unpublish(&volume.handle, &target).unwrap();
    node.kubelet.publish(&volume, &staging, &target).unwrap();

    // The node is switched off and on: directories stay, mounts and everything below /run go.
    node.daemon.kill();
    process::run(Command::new("umount").arg("-l").arg(&target));
    let workers = process::mentioning(&scene.path("run").to_string_lossy());
    for worker in workers {
        let _ = Command::new("kill").args(["-9", &worker.to_string()]).status();
    }
    let _ = Command::new("umount").arg("-l").arg(scene.path("run/mounts").join(REPO)).output();
    fs::remove_dir_all(scene.path("run/workers")).unwrap();
    fs::create_dir_all(&target).unwrap();
    node.daemon.launch();
    node.kubelet.stage(&volume, &staging).unwrap();
    node.kubelet.publish(&volume, &staging, &target).unwrap();
    assert!(shows(&target));
    node.kubelet.unpublish(&volume.handle, &target).unwrap();
    assert!(!target.exists());
    node.kubelet.unstage(&volume, &staging).unwrap();
    node.is_clean();
}

#[test]
fn inline_volumes_have_no_staging_and_their_authors_an_allow_list() {
    let scene = Scene::new();
    let node = Node::start(&scene);
    let (handle, target) = node.kubelet.publish_inline("pod-1", &[("repository", REPO)]).unwrap();
    assert!(shows(&target));
    node.kubelet.unpublish(&handle, &target).unwrap();
    assert!(!target.exists());
    let refused = node.kubelet.publish_inline(
        "pod-2",
        &[
            ("repository", REPO),
            ("server", "http://192.0.2.1/cvmfs/@fqrn@"),
            ("csi.storage.k8s.io/ephemeral", "false"),
        ],
    );
    let refused = refused.unwrap_err();
    assert!([Code::PermissionDenied, Code::InvalidArgument].contains(&refused.code()), "{refused}");
    assert!(refused.message().contains("server"), "{refused}");
    node.is_clean();
}

#[test]
fn all_of_cvmfs_is_a_volume_without_attributes() {
    let scene = Scene::new();
    let node = Node::start(&scene);
    let volume = Volume::new("all", &[]);
    let (staging, target) = (node.kubelet.staging(&volume), node.kubelet.target("pod-1", &volume));
    node.kubelet.stage(&volume, &staging).unwrap();
    node.kubelet.publish(&volume, &staging, &target).unwrap();
    assert!(shows(&target.join(REPO)));
    node.kubelet.unpublish(&volume.handle, &target).unwrap();
    node.kubelet.unstage(&volume, &staging).unwrap();
    node.is_clean();
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    let node = Node::start(&scene);
    let kubelet = &node.kubelet;
    let mut volume = Volume::new("pvc-1", &[("repository", REPO)]);
    let (staging, target) = (kubelet.staging(&volume), kubelet.target("pod-1", &volume));
    let code = |volume: &Volume| kubelet.publish(volume, &staging, &target).unwrap_err().code();

    volume.mode = Mode::MultiNodeMultiWriter;
    assert_eq!(code(&volume), Code::InvalidArgument);
    volume.mode = Mode::SingleNodeWriter;
    volume.attributes.insert("repositry".into(), "x".into());
    let refused = kubelet.publish(&volume, &staging, &target).unwrap_err();
    assert!(refused.code() == Code::InvalidArgument && refused.message().contains("repository"), "{refused}");
    volume.attributes.remove("repositry");
    volume.attributes.insert("tag".into(), "no-such-tag".into());
    assert_eq!(code(&volume), Code::NotFound);
    volume.attributes.remove("tag");
    volume.attributes.insert("repository".into(), "expired.cern.ch".into());
    node.site.configure(&scene, "expired.cern.ch");
    assert_eq!(code(&volume), Code::DataLoss);
    volume.attributes.insert("repository".into(), REPO.into());
    let mut block = kubelet.publish_request(&volume, &staging, &target);
    block.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Block(BlockVolume {}));
    assert_eq!(kubelet.send_publish(block).unwrap_err().code(), Code::InvalidArgument);
    assert!(!target.exists());
    wait::until_true("nothing is mounted", || node.daemon.mounts().is_empty());
    node.is_clean();

    // ReadWriteOncePod is one target.
    volume.mode = Mode::SingleNodeSingleWriter;
    kubelet.publish(&volume, &staging, &target).unwrap();
    kubelet.publish(&volume, &staging, &target).unwrap();
    let second = kubelet.target("pod-2", &volume);
    let refused = kubelet.publish(&volume, &staging, &second).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(!second.exists());
    kubelet.unpublish(&volume.handle, &target).unwrap();
    node.is_clean();
}
