//! The daemon with a real Docker engine: what a user types, and what engines do to plugins.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::process::Command;

use system_tests::daemon::{Daemon, Scene};
use system_tests::engine::{self, Engine, IMAGE, Programs};
use system_tests::process;
use system_tests::site::Site;
use system_tests::wait;

const REPO: &str = "test.cern.ch";

/// Arguments of every container: no network of its own, removed at its end, the cvmfs driver.
const RUN: &[&str] = &["run", "--rm", "--network", "none", "--volume-driver", "cvmfs"];

fn with<'a>(head: &[&'a str], tail: &[&'a str]) -> Vec<&'a str> {
    head.iter().chain(tail).copied().collect()
}

/// The engine to test with, or a note why this test is left out.
fn programs(test: &str) -> Option<Programs> {
    engine::programs().map_err(|reason| process::skip(test, &reason)).ok()
}

/// A detached container that holds the volume open and reads from it without end; it stops at the first error.
fn reader(engine: &Engine<'_>, name: &str) {
    let script = "while true; do sha256sum /mnt/README /mnt/FINAL >/dev/null || exit 7; done";
    let volume = format!("{REPO}:/mnt");
    engine.docker(&with(
        &["run", "-d", "--network", "none", "--volume-driver", "cvmfs"],
        &["--name", name, "-v", &volume, IMAGE, "sh", "-c", script],
    ));
}

fn is_running(engine: &Engine<'_>, name: &str) -> bool {
    engine.docker(&["inspect", "-f", "{{.State.Running}}", name]) == "true"
}

/// SHA-256 of every file that the container sees below `/mnt`, sorted. (Names may hold any byte, so they stay out of it.)
fn sums(engine: &Engine<'_>, volume: &str) -> Vec<String> {
    let bind = format!("{volume}:/mnt");
    let script = r#"find /mnt -type f -exec sh -c 'for file; do sha256sum <"$file" || exit 1; done' sh {} +"#;
    let text = engine.docker(&with(RUN, &["-v", &bind, IMAGE, "sh", "-c", script]));
    let mut sums: Vec<String> = text.lines().map(|line| line[..64].to_owned()).collect();
    sums.sort();
    sums
}

/// The same of what the real client shows.
fn listed(listing: &str) -> Vec<String> {
    let entries = fixtures::listing(listing).unwrap();
    let mut sums: Vec<String> = entries.into_iter().filter_map(|entry| entry.sha256).collect();
    sums.sort();
    sums
}

fn mount_is_gone(daemon: &Daemon<'_>, key: &str) {
    wait::until_true("the mount goes with its last user", || daemon.mount(key).is_none());
}

#[test]
fn a_physicist_reads_a_repository() {
    let Some(programs) = programs("docker: a_physicist_reads_a_repository") else { return };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let daemon = Daemon::start(&scene);
    let engine = Engine::start(&scene, programs, &[]);

    engine.docker(&["volume", "create", "-d", "cvmfs", &format!("--name={REPO}")]);
    let at = format!("/cvmfs/{REPO}");
    let bind = format!("{REPO}:{at}");
    let names = engine.docker(&with(RUN, &["-v", &bind, IMAGE, "ls", &at]));
    assert!(names.lines().any(|name| name == "README"), "{names}");
    assert_eq!(sums(&engine, REPO), listed(REPO));
    assert!(engine.docker(&["volume", "ls", "-q"]).lines().any(|name| name == REPO));
    let inspected = engine.docker(&["volume", "inspect", REPO]);
    assert!(inspected.contains("\"state\""), "{inspected}");
    mount_is_gone(&daemon, REPO);
    engine.docker(&["volume", "rm", REPO]);
    assert!(!engine.docker(&["volume", "ls", "-q"]).contains(REPO));
}

#[test]
fn tags_and_hashes_by_name_and_by_option() {
    let Some(programs) = programs("docker: tags_and_hashes_by_name_and_by_option") else { return };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let _daemon = Daemon::start(&scene);
    let engine = Engine::start(&scene, programs, &[]);

    let v1 = listed("test.cern.ch@v1.0");
    assert_eq!(sums(&engine, "test.cern.ch@v1.0"), v1);
    engine.docker(&[
        "volume",
        "create",
        "-d",
        "cvmfs",
        "-o",
        "repository=test.cern.ch",
        "-o",
        "tag=v1.0",
        "old",
    ]);
    assert_eq!(sums(&engine, "old"), v1);
    let said = engine.docker_fails(&with(RUN, &["-v", "test.cern.ch@nosuchtag:/mnt", IMAGE, "true"]));
    assert!(said.contains("nosuchtag"), "{said}");
    let said = engine.docker_fails(&["volume", "create", "-d", "cvmfs", "-o", "repositry=test.cern.ch", "x"]);
    assert!(said.contains("repository"), "the nearest option is named: {said}");
}

#[test]
fn two_containers_share_one_mount() {
    let Some(programs) = programs("docker: two_containers_share_one_mount") else { return };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let daemon = Daemon::start(&scene);
    let engine = Engine::start(&scene, programs, &[]);

    reader(&engine, "one");
    reader(&engine, "two");
    let mount = daemon.mount(REPO).unwrap();
    assert_eq!(mount["references"].as_array().unwrap().len(), 2, "{mount}");
    assert_eq!(daemon.mounts().len(), 1);
    let said = engine.docker_fails(&["volume", "rm", REPO]);
    assert!(said.contains("in use"), "{said}");
    // Copying out of a running container sends an Unmount with that container's own id.
    let target = scene.path("copied");
    engine.docker(&["cp", "one:/mnt/README", target.to_str().unwrap()]);
    assert!(is_running(&engine, "one"));
    engine.docker(&["rm", "-f", "one"]);
    assert!(is_running(&engine, "two"));
    assert!(daemon.mount(REPO).is_some());
    engine.docker(&["rm", "-f", "two"]);
    mount_is_gone(&daemon, REPO);
}

#[test]
fn copying_from_a_container_does_not_take_its_mount() {
    let Some(programs) = programs("docker: copying_from_a_container_does_not_take_its_mount") else { return };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let daemon = Daemon::start(&scene);
    let engine = Engine::start(&scene, programs, &[]);

    reader(&engine, "one");
    let worker = daemon.worker(REPO);
    let target = scene.path("copied");
    for _ in 0..3 {
        engine.docker(&["cp", "one:/mnt/README", target.to_str().unwrap()]);
    }
    assert!(is_running(&engine, "one"));
    assert_eq!(daemon.worker(REPO), worker);
    engine.docker(&["rm", "-f", "one"]);
    mount_is_gone(&daemon, REPO);
}

#[test]
fn containers_feel_nothing_when_our_processes_are_killed() {
    let Some(programs) = programs("docker: containers_feel_nothing_when_our_processes_are_killed") else {
        return;
    };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let mut daemon = Daemon::start(&scene);
    let engine = Engine::start(&scene, programs, &[]);

    reader(&engine, "one");
    for _ in 0..5 {
        let worker = daemon.worker(REPO).unwrap();
        process::run(Command::new("kill").args(["-9", &worker.to_string()]));
        wait::until_true("another worker serves", || daemon.worker(REPO).is_some_and(|next| next != worker));
        assert!(is_running(&engine, "one"));
    }
    let worker = daemon.worker(REPO).unwrap();
    daemon.kill();
    assert!(is_running(&engine, "one"));
    daemon.launch();
    wait::until_true("the mount is adopted", || daemon.worker(REPO) == Some(worker));
    assert_eq!(daemon.mount(REPO).unwrap()["references"].as_array().unwrap().len(), 1);
    engine.docker(&["exec", "one", "sha256sum", "/mnt/README"]);
    assert!(is_running(&engine, "one"));
    engine.docker(&["rm", "-f", "one"]);
    mount_is_gone(&daemon, REPO);
}

#[test]
fn an_engine_restart_with_live_restore_keeps_the_container() {
    let Some(programs) = programs("docker: an_engine_restart_with_live_restore_keeps_the_container") else {
        return;
    };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let daemon = Daemon::start(&scene);
    let mut engine = Engine::start(&scene, programs, &["--live-restore"]);

    reader(&engine, "one");
    for signal in ["-TERM", "-KILL"] {
        engine.stop(signal);
        assert!(daemon.mount(REPO).is_some());
        engine.launch();
        assert!(is_running(&engine, "one"), "after {signal}");
    }
    engine.docker(&["rm", "-f", "one"]);
    mount_is_gone(&daemon, REPO);
}

#[test]
fn an_engine_killed_without_live_restore_leaves_no_mount_for_ever() {
    let Some(programs) = programs("docker: an_engine_killed_without_live_restore") else { return };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let daemon = Daemon::start(&scene);
    let mut engine = Engine::start(&scene, programs, &[]);

    reader(&engine, "one");
    engine.stop("-KILL");
    engine.launch();
    wait::until_true("the new engine has ended the old container", || !is_running(&engine, "one"));
    // The same id comes again and then one Unmount.
    engine.docker(&["start", "one"]);
    assert!(is_running(&engine, "one"));
    engine.docker(&["rm", "-f", "one"]);
    mount_is_gone(&daemon, REPO);
}

#[test]
fn what_cannot_be_mounted_says_why_and_leaves_nothing() {
    let Some(programs) = programs("docker: what_cannot_be_mounted_says_why_and_leaves_nothing") else {
        return;
    };
    let scene = Scene::new();
    let mut site = Site::fixtures(&scene);
    for fqrn in ["expired.cern.ch", "badsig.cern.ch", "wrongkey.cern.ch", "nosuch.cern.ch", "mini.cern.ch"] {
        site.configure(&scene, fqrn);
    }
    let daemon = Daemon::start(&scene);
    let engine = Engine::start(&scene, programs, &[]);

    for (volume, words) in [
        ("expired.cern.ch", &["expired"][..]),
        ("badsig.cern.ch", &["signature"]),
        ("wrongkey.cern.ch", &["key"]),
        ("nosuch.cern.ch", &["nosuch.cern.ch"]),
    ] {
        let bind = format!("{volume}:/mnt");
        let said = engine.docker_fails(&with(RUN, &["-v", &bind, IMAGE, "true"]));
        for word in words {
            assert!(said.contains(word), "{volume}: {said}");
        }
    }
    for name in ["justaname", "UPPER..dots"] {
        engine.docker_fails(&["volume", "create", "-d", "cvmfs", name]);
    }
    site.kill();
    let said = engine.docker_fails(&with(RUN, &["-v", "mini.cern.ch:/mnt", IMAGE, "true"]));
    assert!(said.contains("127.0.0.1"), "the dead server is named: {said}");
    assert!(daemon.mounts().is_empty(), "{:?}", daemon.mounts());
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = scene.path("run/mounts").to_string_lossy().into_owned();
    assert!(!table.lines().any(|line| line.contains(&ours) && line.contains(" fuse")), "{table}");
}

#[test]
fn all_of_cvmfs_is_one_volume() {
    let Some(programs) = programs("docker: all_of_cvmfs_is_one_volume") else { return };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    for fqrn in [REPO, "mini.cern.ch", "badsig.cern.ch"] {
        site.configure(&scene, fqrn);
    }
    let daemon = Daemon::start(&scene);
    let engine = Engine::start(&scene, programs, &[]);

    let script = format!(
        "cat /cvmfs/{REPO}/README && ls /cvmfs/mini.cern.ch && ! ls /cvmfs/badsig.cern.ch 2>/dev/null \
        && ! ls /cvmfs/unknown.example.org 2>/dev/null && (ls /cvmfs 2>/dev/null; true)"
    );
    let names = engine.docker(&with(RUN, &["-v", "cvmfs:/cvmfs", IMAGE, "sh", "-c", &script]));
    assert!(names.lines().any(|name| name == "mini.cern.ch"), "{names}");
    wait::until_true("the mount goes with its last user", || daemon.mounts().is_empty());
}

#[test]
fn swarm_runs_a_global_service_on_the_volume() {
    let Some(programs) = programs("docker: swarm_runs_a_global_service_on_the_volume") else { return };
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let daemon = Daemon::start(&scene);
    let engine = Engine::start(&scene, programs, &[]);

    // A node is offered to the scheduler with the drivers it has used.
    engine.docker(&["volume", "ls"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    engine.docker(&[
        "swarm",
        "init",
        "--advertise-addr",
        "127.0.0.1",
        "--listen-addr",
        &listen,
        "--data-path-addr",
        "127.0.0.1",
    ]);
    let mount = "type=volume,volume-driver=cvmfs,source=soft,destination=/mnt,volume-opt=repository=test.cern.ch,readonly";
    engine.docker(&[
        "service",
        "create",
        "--detach",
        "--name",
        "s",
        "--mode",
        "global",
        "--network",
        "host",
        "--no-resolve-image",
        "--mount",
        mount,
        IMAGE,
        "sh",
        "-c",
        "while true; do sha256sum /mnt/README || exit 1; sleep 1; done",
    ]);
    wait::until_true("the service reads from the volume", || {
        let logs = engine.try_docker(&["service", "logs", "s"]);
        String::from_utf8_lossy(&logs.stdout).contains("/mnt/README")
    });
    engine.docker(&["service", "rm", "s"]);
    mount_is_gone(&daemon, REPO);
    engine.docker(&["swarm", "leave", "--force"]);
    let _ = Command::new("ip").args(["link", "delete", "docker_gwbridge"]).output();
}
