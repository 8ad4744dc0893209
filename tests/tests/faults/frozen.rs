//! Servers that fall silent under a live mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use system_tests::daemon::Scene;
use system_tests::process::{self, Running};
use system_tests::site::Site;
use system_tests::wait;

use crate::calm::{Calm, configure, publish};

const REPO: &str = "frozen.example.org";

/// Files in directories with catalogs of their own, none of which is read when the repository is mounted.
fn repository(scene: &Scene, more: &str) -> Site {
    let source = scene.path("frozen-source");
    for part in 0..4 {
        let directory = source.join(format!("part{part}"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(".cvmfscatalog"), b"").unwrap();
        for number in 0..10 {
            fs::write(directory.join(format!("file{number}")), format!("{part} {number}\n").repeat(5000))
                .unwrap();
        }
    }
    fs::write(source.join("known"), b"known\n").unwrap();
    publish(scene, REPO, &source);
    let site = Site::serve(scene, scene.path("www"), "site");
    configure(scene, REPO, &site.repository(REPO), more);
    site
}

/// Waits until the process waits in the kernel for an answer of a file system.
fn is_blocked(running: &mut Running) {
    wait::until_true("it waits for the server", || {
        assert!(running.ended().is_none(), "it has ended instead");
        let stack = fs::read_to_string(format!("/proc/{}/stack", running.pid())).unwrap();
        stack.contains("request_wait_answer")
    });
}

/// Times of the fetches beyond what a test waits for anything.
const PATIENT: &str = "CVMFS_TIMEOUT=1800\nCVMFS_TIMEOUT_DIRECT=1800\n";

fn cat(path: &Path) -> Output {
    process::output_within(Command::new("cat").arg(path), wait::LONG)
}

#[test]
fn no_call_waits_longer_than_the_deadline() {
    let scene = Scene::new();
    let site = repository(&scene, "");
    let calm = Calm::start(&scene, "cvmfs.deadline_seconds = 3\n");
    let at = calm.mount(REPO);
    assert!(cat(&at.join("known")).status.success());
    assert!(cat(&at.join("part3/file3")).status.success());
    site.freeze();

    // All at once, so that they also wait for each other.
    let path = |part: &str| at.join(part);
    let mut commands: Vec<Vec<PathBuf>> =
        (0..20).map(|number| vec!["cat".into(), path(&format!("part3/file{}", number % 3))]).collect();
    for part in ["part0", "part1", "part2"] {
        commands.push(vec!["ls".into(), path(part)]);
        commands.push(vec!["stat".into(), path(part).join("file1")]);
        commands.push(vec!["cat".into(), path(part).join("file2")]);
        commands.push(vec!["stat".into(), path(part).join("no such file")]);
    }
    let begun = Instant::now();
    let log = scene.path("log/frozen");
    let mut running: Vec<Running> = commands
        .iter()
        .map(|words| Running::start(Command::new(&words[0]).args(&words[1..]), &log))
        .collect();
    for (running, words) in running.iter_mut().zip(&commands) {
        let status = running.wait();
        assert!(!status.success(), "{words:?} succeeded without a server");
    }
    // One deadline each; `stat` and `ls` make two or three calls, and the machine may be busy.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let said = scene.log("frozen");
    assert!(said.contains("Input/output error"), "{said}");
    // What is there stays readable.
    assert_eq!(cat(&at.join("known")).stdout, b"known\n");
    assert!(cat(&at.join("part3/file3")).status.success());

    site.thaw();
    wait::until_true("it goes on when the server does", || cat(&at.join("part0/file2")).status.success());
    calm.umount(REPO);
    calm.finish();
}

#[test]
fn a_blocked_reader_can_be_killed_and_nobody_else_waits() {
    let scene = Scene::new();
    let site = repository(&scene, PATIENT);
    let calm = Calm::start(&scene, "cvmfs.deadline_seconds = 1800\n");
    let at = calm.mount(REPO);
    assert!(cat(&at.join("known")).status.success());
    assert!(cat(&at.join("part3/file3")).status.success());
    site.freeze();
    let log = scene.path("log/blocked");
    let mut blocked: Vec<Running> = ["part0/file1", "part1/file1", "part2"]
        .iter()
        .map(|part| Running::start(Command::new("find").arg(at.join(part)), &log))
        .collect();
    blocked.push(Running::start(Command::new("cat").arg(at.join("part3/file5")), &log));
    blocked.iter_mut().for_each(is_blocked);

    let quick = Duration::from_secs(30);
    let df = process::output_within(Command::new("df").arg(&at), quick);
    assert!(df.status.success(), "{df:?}");
    let known = process::output_within(Command::new("cat").arg(at.join("known")), quick);
    assert_eq!(known.stdout, b"known\n");
    let status = process::output_within(&mut calm.daemon.command(&["status"]), quick);
    assert!(String::from_utf8_lossy(&status.stdout).contains(REPO), "{status:?}");
    for reader in &mut blocked {
        assert!(reader.ended().is_none(), "a reader did not wait: {}", scene.log("blocked"));
    }
    blocked[0].signal("-KILL");
    blocked[0].wait();
    for reader in &mut blocked[1..] {
        is_blocked(reader);
        reader.signal("-KILL");
        reader.wait();
    }
    let umount = process::output_within(&mut calm.daemon.command(&["umount", REPO]), quick);
    assert!(umount.status.success(), "{umount:?}");
    calm.nothing_else_is_left();
    site.thaw();
    calm.finish();
}

#[test]
fn a_mount_goes_while_its_readers_are_blocked() {
    let scene = Scene::new();
    let site = repository(&scene, PATIENT);
    let calm = Calm::start(&scene, "cvmfs.deadline_seconds = 1800\n");
    let at = calm.mount(REPO);
    site.freeze();
    let mut blocked =
        Running::start(Command::new("find").arg(at.join("part0/file1")), &scene.path("log/blocked"));
    is_blocked(&mut blocked);
    // The user is told, or the mount goes: in no case does anybody wait.
    let quick = Duration::from_secs(30);
    process::output_within(&mut calm.daemon.command(&["umount", REPO]), quick);
    let status = process::output_within(&mut calm.daemon.command(&["status"]), quick);
    assert!(status.status.success(), "{status:?}");
    blocked.signal("-KILL");
    blocked.wait();
    calm.nothing_else_is_left();
    site.thaw();
    calm.finish();
}
