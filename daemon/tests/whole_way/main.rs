//! The built binary from end to end: publisher, web server, daemon, workers, plugin socket, command line.
//!
//! Needs root and /dev/fuse; says so and skips otherwise.

#![allow(clippy::unwrap_used)] // one test binary, read by its authors

mod ground;

use std::process::Stdio;

use ground::{Ground, is_alive, kill, wait_for};
use nix::sys::signal::Signal;

/// The session that an engine holds, and what is left after it.
#[test]
fn an_engine_gets_a_verified_repository_and_leaves_nothing_behind() {
    let Some(ground) = Ground::new() else { return };
    let mut daemon = ground.start_daemon(&[]);
    assert!(ground.plugin("Plugin.Activate", "{}").contains("VolumeDriver"));
    ground.mount("one");
    assert!(ground.content_is_right());
    let status = ground.status();
    let mount = &status["mounts"][0];
    for key in ["key", "backend", "state", "mountpoint", "worker_pid", "references", "last_error"] {
        assert!(mount.get(key).is_some(), "{key} is missing: {mount}");
    }
    assert_eq!(mount["state"], "live");
    assert!(mount["revision"].as_str().unwrap().starts_with("revision 2"));
    let refused = ground.plugin("VolumeDriver.Create", r#"{"Name":"other","Opts":{"tga":"x"}}"#);
    assert!(refused.contains("tag"), "{refused}");
    let worker = ground.worker();
    ground.plugin("VolumeDriver.Unmount", &format!(r#"{{"Name":"{}","ID":"one"}}"#, Ground::NAME));
    wait_for("the mount to go", || (!ground.is_mounted() && !is_alive(worker)).then_some(()));
    daemon.end(Signal::SIGTERM);
    assert_eq!(std::fs::read_dir(ground.path("run/workers")).unwrap().count(), 0);
}

#[test]
fn a_mount_outlives_daemons_that_end_or_are_killed() {
    let Some(ground) = Ground::new() else { return };
    let mut daemon = ground.start_daemon(&[]);
    ground.mount("one");
    let worker = ground.worker();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        daemon.end(signal);
        assert!(ground.content_is_right(), "{signal} of the daemon");
        daemon = ground.start_daemon(&[]);
        assert_eq!(ground.worker(), worker);
        assert_eq!(ground.status()["mounts"][0]["references"][0], "docker|sw.example.org|one");
    }
    kill(worker);
    let next = wait_for("a new worker", || Some(ground.worker()).filter(|pid| *pid != worker && *pid != 0));
    assert!(ground.content_is_right());
    ground.plugin("VolumeDriver.Unmount", &format!(r#"{{"Name":"{}","ID":"one"}}"#, Ground::NAME));
    wait_for("the mount to go", || (!ground.is_mounted() && !is_alive(next)).then_some(()));
}

/// With a stand-in for the service manager that keeps what is stored and hands it to the next daemon.
#[test]
fn daemon_and_worker_killed_at_once_come_back_from_the_fd_store() {
    let Some(mut ground) = Ground::new() else { return };
    ground.keep_descriptors();
    let mut daemon = ground.start_daemon(&[]);
    ground.mount("one");
    let worker = ground.worker();
    let (name, stored) = ground.stored_descriptor();
    assert_eq!(name, "mount-sw.example.org");
    let reader = ground.slow_reader();
    kill(worker);
    daemon.end(Signal::SIGKILL);
    assert!(ground.is_mounted());
    let _daemon = ground.start_daemon_with(stored, &name);
    assert!(reader.wait_with_output().unwrap().status.success(), "a reader saw an error");
    assert!(ground.content_is_right());
    assert_ne!(ground.worker(), worker);
    ground.plugin("VolumeDriver.Unmount", &format!(r#"{{"Name":"{}","ID":"one"}}"#, Ground::NAME));
    wait_for("the mount to go", || (!ground.is_mounted()).then_some(()));
}

#[test]
fn the_command_line_mounts_and_unmounts_and_says_what_is_wrong() {
    let Some(ground) = Ground::new() else { return };
    let daemon = ground.start_daemon(&[]);
    let target = ground.path("target");
    std::fs::create_dir(&target).unwrap();
    let target_text = target.to_str().unwrap();
    ground.cli(&["mount", Ground::NAME, target_text]).unwrap();
    assert_eq!(std::fs::read_to_string(target.join("a.txt")).unwrap(), "hello\n");
    ground.cli(&["refresh"]).unwrap();
    ground.cli(&["umount", target_text]).unwrap();
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
    ground.cli(&["volume", "create", "sw", "-o", "repository=sw.example.org"]).unwrap();
    assert!(ground.cli(&["volume", "ls"]).unwrap().contains("\tsw\t"));
    ground.cli(&["volume", "rm", "sw"]).unwrap();
    let (code, text) = ground.cli(&["mount", "-o", "tag=missing", Ground::NAME, target_text]).unwrap_err();
    assert!(code == 1 && text.contains("missing") && text.contains("trunk"), "{text}");
    let (code, text) = ground.cli(&["volume", "inspect", "../x"]).unwrap_err();
    assert!(code == 1 && text.contains("not allowed"), "{text}");
    let (code, text) = ground.cli(&["frobnicate"]).unwrap_err();
    assert!(code == 2 && text.contains("Usage"), "{text}");
    let second = ground.daemon_command(&[]).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && text.contains("used by another daemon"), "{text}");
    drop(daemon);
    let (code, text) = ground.cli(&["status"]).unwrap_err();
    assert!(code == 1 && text.contains("volplane serve"), "{text}");
}

#[test]
fn all_repositories_are_one_mount_and_unknown_ones_are_not_there() {
    let Some(ground) = Ground::new() else { return };
    let _daemon = ground.start_daemon(&[]);
    let target = ground.path("target");
    std::fs::create_dir(&target).unwrap();
    ground.cli(&["mount", "cvmfs", target.to_str().unwrap()]).unwrap();
    assert_eq!(std::fs::read_to_string(target.join("sw.example.org/a.txt")).unwrap(), "hello\n");
    assert!(std::fs::metadata(target.join("missing.example.org")).is_err());
    ground.cli(&["umount", target.to_str().unwrap()]).unwrap();
}

/// Every declared metric is there once a mount is served, and no other. Those of CSI are there where CSI is
/// (`tests/tests/csi/metrics.rs`).
#[test]
fn the_metrics_page_shows_what_is_declared() {
    let Some(ground) = Ground::new() else { return };
    let socket = ground.path("metrics.sock");
    ground.add_config(&format!("[metrics]\nlisten = \"unix:{}\"\n", socket.display()));
    let _daemon = ground.start_daemon(&[]);
    ground.mount("one");
    assert!(ground.content_is_right());
    let missing = |page: &str| -> Vec<String> {
        let declared = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let shown = |name: &str| {
            page.lines()
                .any(|line| line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{")))
        };
        declared
            .filter(|name| !name.starts_with("volplane_csi_") && !shown(name))
            .map(str::to_owned)
            .collect()
    };
    let mut last = Vec::new();
    let page = wait_for("all metrics", || {
        let page = ground::http(&socket, "GET", "/metrics", "");
        last = missing(&page);
        last.is_empty().then_some(page)
    });
    assert!(page.contains("volplane_mounts{state=\"live\"} 1"), "{page}");
    assert!(!ground.log().contains("not declared"), "{}", ground.log());
}

#[test]
fn a_user_sees_where_each_parameter_comes_from() {
    let Some(ground) = Ground::new() else { return };
    let shown = ground.run(&["cvmfs", "showconfig", Ground::NAME, "--config", ground.config_file()]).unwrap();
    let origin =
        format!("CVMFS_HTTP_PROXY=DIRECT    # from {}:2", ground.path("etc/default.local").display());
    assert!(shown.contains(&origin), "{shown}");
    assert!(ground.run(&["serve", "--check", "--config", ground.config_file()]).is_ok());
    assert!(ground.run(&["man"]).unwrap().contains("VOLPLANE CVMFS PUBLISH"));
    assert!(ground.run(&["completions", "bash"]).unwrap().contains("_volplane"));
}
