//! A worker that dies at every start.

use std::fs;
use std::process::Command;
use std::time::Duration;

use system_tests::daemon::Scene;
use system_tests::process;
use system_tests::site::Site;
use system_tests::wait;

use crate::calm::{Calm, children, command_line};

const REPO: &str = "mini.cern.ch";

#[test]
fn a_crash_loop_ends_in_an_error_that_nobody_waits_for() {
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let mut calm = Calm::start(&scene, "");
    let at = calm.mount(REPO);
    let list = || process::output_within(Command::new("ls").arg(&at), wait::LONG);
    assert!(list().status.success());

    // Whatever is started for it dies before it can do anything.
    let mut deaths = 0;
    wait::until_true("the mount is given up", || {
        for pid in children(calm.daemon.pid()) {
            if command_line(pid).contains(REPO) {
                let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
                deaths += 1;
            }
        }
        calm.daemon.log().contains("given up")
    });
    assert!(deaths >= 3, "given up after {deaths} deaths");
    let mount = calm.daemon.mount(REPO).unwrap();
    assert_eq!(mount["state"], "stale", "{mount}");
    let error = mount["last_error"].as_str().unwrap();
    assert!(error.contains("given up") && error.contains("worker"), "{error}");
    // Nobody hangs, neither who asks the mount nor who asks the daemon.
    for _ in 0..3 {
        let listed = process::output_within(Command::new("ls").arg(&at), Duration::from_secs(10));
        assert!(!listed.status.success(), "{listed:?}");
    }
    let status = process::run(&mut calm.daemon.command(&["status"]));
    assert!(status.contains("stale") && status.contains("given up"), "{status}");
    assert!(
        children(calm.daemon.pid()).iter().all(|pid| !command_line(*pid).contains(REPO)),
        "no worker is left"
    );
    calm.undisturbed();

    // The next use mounts it anew.
    let anew = calm.mount(REPO);
    assert!(fs::exists(anew.join("no such file")).is_ok_and(|there| !there));
    assert!(process::output_within(Command::new("ls").arg(&anew), wait::LONG).status.success());
    calm.umount(REPO);
    calm.finish();
}
