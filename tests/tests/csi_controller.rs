//! The Controller service of the CVMFS driver in a real daemon: what the provisioner, the health monitor and people ask.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::collections::HashMap;
use std::fs;

use proto::csi::v1 as csi;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use system_tests::daemon::{Daemon, Scene};
use system_tests::kubelet::{Kubelet, Volume, timed};
use system_tests::site::Site;
use system_tests::{process, wait};
use tonic::{Code, Status};

const REPO: &str = "mini.cern.ch";

/// What a StorageClass and the external-provisioner make of a claim.
fn claim(name: &str, parameters: &[(&str, &str)], mode: Mode) -> csi::CreateVolumeRequest {
    let added = [("csi.storage.k8s.io/pvc/name", "data"), ("csi.storage.k8s.io/pvc/namespace", "default")];
    let parameters = parameters.iter().chain(&added).map(|(key, value)| ((*key).into(), (*value).into()));
    csi::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(csi::CapacityRange { required_bytes: 1 << 30, limit_bytes: 0 }),
        volume_capabilities: vec![csi::VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode { mode: mode.into() }),
        }],
        parameters: parameters.collect(),
        ..Default::default()
    }
}

struct Cluster {
    kubelet: Kubelet,
}

impl Cluster {
    fn create(&self, request: csi::CreateVolumeRequest) -> Result<csi::Volume, Status> {
        let made = self.kubelet.runtime.block_on(self.kubelet.controller().create_volume(timed(request)))?;
        Ok(made.into_inner().volume.unwrap())
    }

    fn entries(&self) -> Vec<csi::list_volumes_response::Entry> {
        let request = timed(csi::ListVolumesRequest::default());
        let listed = self.kubelet.runtime.block_on(self.kubelet.controller().list_volumes(request));
        listed.unwrap().into_inner().entries
    }

    /// Ids of the nodes that the volume is published to, by ListVolumes and ControllerGetVolume, which agree.
    fn nodes(&self, id: &str) -> Vec<String> {
        let of = |entry: csi::list_volumes_response::Entry| entry.status.unwrap().published_node_ids;
        let mut entries = self.entries().into_iter();
        let listed = entries.find(|entry| entry.volume.as_ref().unwrap().volume_id == id).map(of).unwrap();
        let request = timed(csi::ControllerGetVolumeRequest { volume_id: id.to_owned() });
        let got = self.kubelet.runtime.block_on(self.kubelet.controller().controller_get_volume(request));
        assert_eq!(got.unwrap().into_inner().status.unwrap().published_node_ids, listed);
        listed
    }

    fn health(&self, id: &str) -> Vec<csi::volume_health::VolumeHealthEntry> {
        let request =
            csi::ControllerGetVolumeHealthRequest { volume_id: id.to_owned(), ..Default::default() };
        let mut client = self.kubelet.controller();
        let got = self.kubelet.runtime.block_on(client.controller_get_volume_health(timed(request)));
        got.unwrap().into_inner().volume_health.unwrap().health_statuses
    }
}

#[test]
fn a_claim_becomes_a_volume_that_is_listed_where_it_is_used_and_told_when_it_is_ill() {
    let scene = Scene::new();
    let mut site = Site::fixtures(&scene);
    let short = "CVMFS_TIMEOUT=1\nCVMFS_TIMEOUT_DIRECT=1\nCVMFS_MAX_RETRIES=0\n";
    scene.configure(REPO, &site.repository(REPO), &fixtures::public_key(REPO), short);
    let kubelet = Kubelet::new(&scene);
    let arguments = kubelet.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut daemon = Daemon::start_with(&scene, &arguments);
    let cluster = Cluster { kubelet };

    let parameters = [("repository", REPO)];
    let made = cluster.create(claim("pvc-1", &parameters, Mode::MultiNodeReaderOnly)).unwrap();
    assert_eq!(made.volume_context, HashMap::from([("repository".to_owned(), REPO.to_owned())]));
    assert!(made.capacity_bytes >= 1 << 30, "the provisioner refuses less than was asked for");
    let again = cluster.create(claim("pvc-1", &parameters, Mode::MultiNodeReaderOnly)).unwrap();
    assert_eq!(again, made);
    let other = cluster.create(claim("pvc-1", &[("repository", "test.cern.ch")], Mode::MultiNodeReaderOnly));
    assert_eq!(other.unwrap_err().code(), Code::AlreadyExists);

    let writers = cluster.create(claim("pvc-2", &parameters, Mode::MultiNodeMultiWriter)).unwrap_err();
    assert_eq!(writers.code(), Code::InvalidArgument);
    assert!(writers.message().contains("read-only"), "{}", writers.message());
    let typo = cluster.create(claim("pvc-2", &[("repositry", REPO)], Mode::MultiNodeReaderOnly)).unwrap_err();
    assert_eq!(typo.code(), Code::InvalidArgument);
    assert!(typo.message().contains("repository"), "{}", typo.message());

    assert_eq!(cluster.nodes(&made.volume_id), Vec::<String>::new());
    let attributes: Vec<(&str, &str)> =
        made.volume_context.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let volume = Volume::new(&made.volume_id, &attributes);
    let kubelet = &cluster.kubelet;
    let (staging, target) = (kubelet.staging(&volume), kubelet.target("pod", &volume));
    kubelet.stage(&volume, &staging).unwrap();
    kubelet.publish(&volume, &staging, &target).unwrap();
    assert!(fs::read_dir(&target).unwrap().count() > 0);
    assert_eq!(cluster.nodes(&made.volume_id), ["node-1"]);
    assert_eq!(cluster.health(&made.volume_id), []);

    daemon.kill();
    daemon.launch();
    assert_eq!(cluster.nodes(&made.volume_id), ["node-1"], "after a restart too");

    // No server answers any more: what is cached is served on.
    site.kill();
    let refreshed = process::output_within(&mut daemon.command(&["refresh"]), wait::LONG);
    assert!(!refreshed.status.success());
    let ill = wait::until("the trouble is told", || cluster.health(&made.volume_id).into_iter().next());
    assert_eq!(ill.status(), csi::VolumeHealthErrorType::Degraded);
    assert!(ill.message.contains(REPO), "{}", ill.message);
    let request = timed(csi::ControllerListVolumeHealthRequest::default());
    let all = cluster.kubelet.runtime.block_on(kubelet.controller().controller_list_volume_health(request));
    let all = all.unwrap().into_inner().entries;
    assert_eq!((all.len(), all[0].health_statuses.len()), (1, 1), "{all:?}");

    kubelet.unpublish(&volume.handle, &target).unwrap();
    kubelet.unstage(&volume, &staging).unwrap();
    assert_eq!(cluster.nodes(&made.volume_id), Vec::<String>::new());
    let delete = csi::DeleteVolumeRequest { volume_id: made.volume_id.clone(), ..Default::default() };
    for _ in 0..2 {
        kubelet.runtime.block_on(kubelet.controller().delete_volume(timed(delete.clone()))).unwrap();
    }
    assert_eq!(cluster.entries(), []);
}
