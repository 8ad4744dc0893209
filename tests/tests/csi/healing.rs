//! Processes that are killed below pods, and one mount behind several doors.

use std::fs;
use std::path::Path;
use std::process::Command;

use proto::csi::v1::NodeGetVolumeHealthRequest;
use system_tests::daemon::Scene;
use system_tests::kubelet::{Volume, timed};
use system_tests::{process, wait};

use crate::ground::{Node, REPO, shows};

fn first_file(directory: &Path) -> Option<std::path::PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(directory).ok()?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    entries
        .iter()
        .map(fs::DirEntry::path)
        .find(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0))
}

#[test]
fn pods_read_on_when_the_worker_the_daemon_or_both_are_killed() {
    let scene = Scene::new();
    let mut node = Node::start(&scene);
    let volume = Volume::new("pvc-1", &[("repository", REPO)]);
    let (staging, target) = (node.kubelet.staging(&volume), node.kubelet.target("pod-1", &volume));
    node.kubelet.stage(&volume, &staging).unwrap();
    node.kubelet.publish(&volume, &staging, &target).unwrap();
    let file = first_file(&target).unwrap();
    let content = fs::read(&file).unwrap();

    let worker = node.daemon.worker(REPO).unwrap();
    process::run(Command::new("kill").args(["-9", &worker.to_string()]));
    assert_eq!(fs::read(&file).unwrap(), content);
    wait::until_true("another worker serves", || node.daemon.worker(REPO).is_some_and(|now| now != worker));

    node.daemon.kill();
    assert_eq!(fs::read(&file).unwrap(), content);
    node.daemon.launch();
    node.kubelet.publish(&volume, &staging, &target).unwrap();
    assert_eq!(fs::read(&file).unwrap(), content);
    assert_eq!(node.references(REPO), 2);

    // Without an fd store nothing outlives both; the next publish heals, and every other place with it.
    let worker = wait::until("a worker serves", || node.daemon.worker(REPO));
    node.daemon.kill();
    process::run(Command::new("kill").args(["-9", &worker.to_string()]));
    node.daemon.launch();
    let health = NodeGetVolumeHealthRequest { volume_id: "pvc-1".into(), ..Default::default() };
    let mut client = node.kubelet.node();
    let health = node.kubelet.runtime.block_on(client.node_get_volume_health(timed(health)));
    if let Ok(health) = health {
        let entries = health.into_inner().volume_health.unwrap().health_statuses;
        assert!(entries.iter().all(|entry| !entry.reason.is_empty()), "{entries:?}");
    }
    node.kubelet.publish(&volume, &staging, &target).unwrap();
    assert_eq!(fs::read(&file).unwrap(), content);
    node.kubelet.stage(&volume, &staging).unwrap();
    assert!(shows(&target));
    node.kubelet.unpublish(&volume.handle, &target).unwrap();
    node.kubelet.unstage(&volume, &staging).unwrap();
    node.is_clean();
}

/// `POST` to the Docker plugin's socket.
fn docker(scene: &Scene, call: &str, body: &str) {
    let socket = scene.path("plugins/cvmfs.sock");
    let mut curl = Command::new("curl");
    curl.args(["-sSf", "--max-time", "60", "--unix-socket"]).arg(socket);
    process::run(curl.args(["-d", body, &format!("http://plugin/VolumeDriver.{call}")]));
}

#[test]
fn docker_flexvolume_and_csi_share_one_mount() {
    let scene = Scene::new();
    let node = Node::start(&scene);
    let volume = Volume::new("pvc-1", &[("repository", REPO)]);
    let (staging, target) = (node.kubelet.staging(&volume), node.kubelet.target("pod-1", &volume));
    let plugins = scene.path("volumeplugins");
    process::run(&mut node.daemon.command(&["flexvolume", "install", "--dir", plugins.to_str().unwrap()]));
    let flex = node.kubelet.root().join("pods/pod-2/volumes/cern~cvmfs/v");
    fs::create_dir_all(flex.parent().unwrap()).unwrap();
    let flexvolume = |call: &str, more: &[&str]| {
        let mut driver = Command::new(plugins.join("cern~cvmfs/cvmfs"));
        let answer = process::run(driver.arg(call).arg(&flex).args(more));
        assert!(answer.contains("Success"), "{answer}");
    };
    let options = format!(
        "{{\"repository\":\"{REPO}\",\"kubernetes.io/fsType\":\"\",\"kubernetes.io/readwrite\":\"ro\",\
         \"kubernetes.io/pvOrVolumeName\":\"v\"}}"
    );
    let acquire = |door: usize| match door {
        0 => {
            docker(&scene, "Create", &format!("{{\"Name\":\"{REPO}\"}}"));
            docker(&scene, "Mount", &format!("{{\"Name\":\"{REPO}\",\"ID\":\"c1\"}}"));
        }
        1 => flexvolume("mount", &[&options]),
        _ => node.kubelet.publish(&volume, &staging, &target).unwrap(),
    };
    let release = |door: usize| match door {
        0 => docker(&scene, "Unmount", &format!("{{\"Name\":\"{REPO}\",\"ID\":\"c1\"}}")),
        1 => flexvolume("unmount", &[]),
        _ => node.kubelet.unpublish(&volume.handle, &target).unwrap(),
    };
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0], [2, 1, 0]] {
        for door in [0, 1, 2] {
            acquire(door);
        }
        assert_eq!(node.daemon.mounts().len(), 1);
        assert_eq!(node.references(REPO), 3);
        for (left, door) in [2, 1, 0].into_iter().zip(order) {
            release(door);
            assert_eq!(node.references(REPO), left, "{order:?}");
        }
        node.is_clean();
    }
}
