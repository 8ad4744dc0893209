//! The daemon with a real Podman, once through.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use system_tests::daemon::{Daemon, Scene};
use system_tests::engine::IMAGE;
use system_tests::podman::Podman;
use system_tests::process;
use system_tests::site::Site;
use system_tests::wait;

const REPO: &str = "mini.cern.ch";

#[test]
fn a_volume_lives_through_podman() {
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    for fqrn in [REPO, "expired.cern.ch"] {
        site.configure(&scene, fqrn);
    }
    let daemon = Daemon::start(&scene);
    let podman = match Podman::new(&scene) {
        Ok(podman) => podman,
        Err(reason) => return process::skip("podman: a_volume_lives_through_podman", &reason),
    };

    podman.podman(&["volume", "create", "--driver", "cvmfs", REPO]);
    let output = podman.run(&["-v", &format!("{REPO}:/mnt"), IMAGE, "ls", "/mnt"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = fixtures::listing(REPO).unwrap();
    let first = listed.iter().find(|entry| !entry.path.is_empty() && !entry.path.starts_with(b"/.")).unwrap();
    let name = String::from_utf8(first.path[1..].to_vec()).unwrap();
    let names = String::from_utf8(output.stdout).unwrap();
    assert!(names.lines().any(|line| line == name), "{name} is not in {names}");
    wait::until_true("the mount goes with its last user", || daemon.mount(REPO).is_none());

    // An error must be heard: Podman takes a 200 for success and would hand out its own bundle directory.
    podman.podman(&["volume", "create", "--driver", "cvmfs", "expired.cern.ch"]);
    let output = podman.run(&["-v", "expired.cern.ch:/mnt", IMAGE, "ls", "/mnt"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("expired"), "{said}");

    assert!(podman.podman(&["volume", "ls", "-q"]).lines().any(|line| line == REPO));
    podman.podman(&["volume", "rm", REPO]);
    assert!(daemon.mounts().is_empty());
}
