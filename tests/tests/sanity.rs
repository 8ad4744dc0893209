//! csi-sanity on the CVMFS driver of a real daemon, and on the reference driver with every ability.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::fs;
use std::path::Path;

use system_tests::daemon::{Daemon, Scene};
use system_tests::process;
use system_tests::reference;
use system_tests::reference_driver::{PASSWORD, ReferenceDriver};
use system_tests::sanity::{Outcome, Sanity};
use system_tests::site::Site;

/// Skipped everywhere, and why.
const EVERYWHERE: [(&str, &str); 1] = [(
    "Controller Service [Controller Server] ListVolumes pagination should detect volumes added between pages",
    "switched off in csi-sanity itself",
)];

/// Skipped on the reference driver; `tests/provisioned.rs` has a test of its own for it.
const REFERENCE: [(&str, &str); 1] = [(
    "CreateSnapshot [Controller Server] should succeed when creating a snapshot with accessibility requirements",
    "csi-sanity 5.6.0 compares places with the size caches of their messages: no driver that tells places can pass",
)];

/// Skipped on the CVMFS driver: a repository is there whether anybody provisions it or not, and nobody writes it.
const CVMFS: [(&str, &str); 20] = [
    ("Controller Service [Controller Server] ControllerPublishVolume", ATTACH),
    ("Controller Service [Controller Server] ControllerUnpublishVolume", ATTACH),
    ("Controller Service [Controller Server] volume lifecycle", ATTACH),
    ("Controller Service [Controller Server] GetCapacity", "repositories take no room of the cluster's"),
    (
        "Controller Service [Controller Server] CreateVolume should create volume from an existing source",
        COPY,
    ),
    ("Controller Service [Controller Server] CreateVolume should fail when the volume source", COPY),
    (
        "Controller Service [Controller Server] CreateVolume should create volume with a volume attribute",
        FIXED,
    ),
    ("Controller Service [Controller Server] CreateVolume should not create volume with an invalid", FIXED),
    ("ModifyVolume [Controller Server]", FIXED),
    ("CreateSnapshot [Controller Server]", COPY),
    ("DeleteSnapshot [Controller Server]", COPY),
    ("ListSnapshots [Controller Server]", COPY),
    ("GetSnapshot [Controller Server]", COPY),
    ("GroupController Service [GroupController Server]", COPY),
    ("GroupController Service [GroupController VolumeGroupSnapshots]", COPY),
    ("ExpandVolume [Controller Server]", GROW),
    ("Node Service NodeExpandVolume should fail when no volume id is provided", GROW),
    ("Node Service NodeExpandVolume should fail when no volume path is provided", GROW),
    ("Node Service NodeExpandVolume should fail when volume is not found", GROW),
    ("Node Service NodeExpandVolume should work if node-expand is called after node-publish", GROW),
];
const ATTACH: &str = "any node can mount a repository without being told so first";
const COPY: &str = "a repository is read-only; its revisions are tags of its own";
const FIXED: &str = "a repository has no parameters that change while it is used";
const GROW: &str = "a repository has the size that its publisher gave it";

/// Size of the test volumes, bytes.
const SIZE: u64 = 300 << 20;

fn reference(access_type: &str) {
    let name = "sanity::reference_driver";
    if let Some(reason) = reference::missing() {
        return process::skip(name, reason);
    }
    let driver = ReferenceDriver::start(Path::new(env!("CARGO_BIN_EXE_reference-driver")));
    let sanity = match Sanity::new(&driver.socket(), &driver.kubelet_dir(), &driver.path("")) {
        Ok(sanity) => sanity,
        Err(reason) => return process::skip(name, &reason),
    };
    let outcome = sanity
        .with(format!("--csi.testvolumeaccesstype={access_type}"))
        .with(format!("--csi.testvolumesize={SIZE}"))
        .with(format!("--csi.testvolumeexpandsize={}", 2 * SIZE))
        .with("--csi.testnodevolumeattachlimit")
        .with("--ginkgo.skip=with accessibility requirements$")
        .with_map("--csi.testvolumeparameters", &[("pool", "fast")])
        .with_map("--csi.testvolumemutableparameters", &[("iops", "500")])
        .with_secret("password", PASSWORD)
        .run(|| driver.log());
    outcome.expect_skips(
        &format!("the reference driver ({access_type})"),
        &[&EVERYWHERE[..], &REFERENCE[..]].concat(),
    );
    assert_eq!(driver.mounts(), Vec::<std::path::PathBuf>::new(), "nothing stays mounted");
    assert_eq!(driver.loop_devices(), Vec::<String>::new());
    assert!(!driver.log().contains(PASSWORD), "secrets are not logged");
    let left: Vec<_> = fs::read_dir(driver.kubelet_dir()).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn reference_driver_with_file_systems() {
    reference("mount");
}

#[test]
fn reference_driver_with_devices() {
    reference("block");
}

#[test]
fn cvmfs_driver_of_a_real_daemon() {
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    let repository = "test.cern.ch";
    site.configure(&scene, repository);
    let kubelet_dir = scene.path("kubelet");
    fs::create_dir(&kubelet_dir).unwrap();
    let socket = scene.path("run/csi.sock");
    let endpoint = format!("cvmfs=unix://{}", socket.display());
    let daemon = Daemon::start_with(
        &scene,
        &[
            "--csi-endpoint",
            &endpoint,
            "--csi-register",
            "false",
            "--kubelet-dir",
            kubelet_dir.to_str().unwrap(),
            "--node-id",
            "sanity-node",
        ],
    );
    let sanity = match Sanity::new(&socket, &kubelet_dir, &scene.path("log")) {
        Ok(sanity) => sanity,
        Err(reason) => return process::skip("sanity::cvmfs_driver", &reason),
    };
    let outcome: Outcome = sanity
        .with_map("--csi.testvolumeparameters", &[("repository", repository)])
        .with_secret("unused", "hunter2")
        .run(|| daemon.log());
    outcome.expect_skips("the CVMFS driver", &[&EVERYWHERE[..], &CVMFS[..]].concat());
    let log = daemon.log();
    assert!(log.contains("mounted"), "real mounts were made");
    assert!(!log.contains("hunter2"), "secrets are not logged");
    let left: Vec<_> = fs::read_dir(&kubelet_dir).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
