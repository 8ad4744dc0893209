//! Everything at once: what a node does after a reboot.

use std::path::PathBuf;
use std::time::Instant;

use proto::csi::v1::NodeUnpublishVolumeRequest;
use system_tests::daemon::Scene;
use system_tests::kubelet::{Volume, text, timed};

use crate::ground::{Node, REPO, mounts_below, shows};

const VOLUMES: usize = 50;
const PODS: usize = 10;

#[test]
fn five_hundred_publishes_at_once_and_their_end_in_any_order() {
    let scene = Scene::new();
    let node = Node::start(&scene);
    let kubelet = &node.kubelet;
    let volumes: Vec<Volume> =
        (0..VOLUMES).map(|number| Volume::new(&format!("pvc-{number}"), &[("repository", REPO)])).collect();
    let mut uses: Vec<(Volume, PathBuf)> = Vec::new();
    for pod in 0..PODS {
        for volume in &volumes {
            uses.push((volume.clone(), kubelet.target(&format!("pod-{pod}"), volume)));
        }
    }
    // A shuffle that is the same in every run.
    let mut seed = 88_172_645_463_325_252_u64;
    let mut shuffled = |uses: &mut Vec<(Volume, PathBuf)>| {
        for last in (1..uses.len()).rev() {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            uses.swap(last, usize::try_from(seed % (last as u64 + 1)).unwrap());
        }
    };
    shuffled(&mut uses);
    let client = kubelet.node();
    let begun = Instant::now();
    let published = kubelet.runtime.block_on(async {
        let calls = uses.iter().map(|(volume, target)| {
            let staging = kubelet.staging(volume);
            let request = kubelet.publish_request(volume, &staging, target);
            let mut client = client.clone();
            tokio::spawn(async move { client.node_publish_volume(timed(request)).await })
        });
        let mut failed = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            if let Err(status) = call.await.unwrap() {
                failed.push(status.to_string());
            }
        }
        failed
    });
    eprintln!("{} publishes took {:?}", uses.len(), begun.elapsed());
    assert_eq!(published, Vec::<String>::new());
    assert_eq!(node.daemon.mounts().len(), 1);
    assert_eq!(node.references(REPO), uses.len());
    assert_eq!(mounts_below(kubelet.root()).len(), uses.len());
    assert!(shows(&uses[0].1));

    shuffled(&mut uses);
    let begun = Instant::now();
    let unpublished = kubelet.runtime.block_on(async {
        let calls = uses.iter().map(|(volume, target)| {
            let request =
                NodeUnpublishVolumeRequest { volume_id: volume.handle.clone(), target_path: text(target) };
            let mut client = client.clone();
            tokio::spawn(async move { client.node_unpublish_volume(timed(request)).await })
        });
        let mut failed = Vec::new();
        for call in calls.collect::<Vec<_>>() {
            if let Err(status) = call.await.unwrap() {
                failed.push(status.to_string());
            }
        }
        failed
    });
    eprintln!("{} unpublishes took {:?}", uses.len(), begun.elapsed());
    assert_eq!(unpublished, Vec::<String>::new());
    assert!(uses.iter().all(|(_, target)| !target.exists()));
    node.is_clean();
}
