//! Mounts outlive our processes: workers and daemon killed under readers.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use system_tests::daemon::{Daemon, Scene, binary};
use system_tests::process::{self, Running};
use system_tests::site::Site;
use system_tests::wait;

const REPO: &str = "busy.example.org";

/// A source tree with what readers meet: many small files, files of passthrough size, chunked ones, a large directory, a program.
fn source_tree(root: &Path) {
    let mut seed = 88_172_645_463_325_252_u64;
    let mut bytes = |length: usize| -> Vec<u8> {
        (0..length)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                // Half of it compresses.
                if seed & 1 == 0 { b'x' } else { (seed >> 32) as u8 }
            })
            .collect()
    };
    for directory in ["bin", "small/a", "small/b", "medium", "large", "wide"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    for n in 0..200 {
        let directory = if n % 2 == 0 { "small/a" } else { "small/b" };
        fs::write(root.join(directory).join(format!("file{n}")), bytes(37 * n + 1)).unwrap();
    }
    for n in 0..8 {
        fs::write(root.join("medium").join(format!("file{n}")), bytes(200_000 + n * 77_777)).unwrap();
    }
    for n in 0..3 {
        fs::write(root.join("large").join(format!("file{n}")), bytes(12_000_000 + n * 1_000_003)).unwrap();
    }
    for n in 0..3000 {
        fs::write(root.join("wide").join(format!("name-{n:05}")), b"").unwrap();
    }
    fs::write(root.join("small/.cvmfscatalog"), b"").unwrap();
}

struct Busy {
    scene: Scene,
    source: PathBuf,
    site: Site,
}

/// Publishes the tree and serves it.
fn busy() -> Busy {
    let scene = Scene::new();
    let source = scene.path("source");
    source_tree(&source);
    let repository = scene.path("www/cvmfs").join(REPO);
    fs::create_dir_all(repository.parent().unwrap()).unwrap();
    let mut publish = Command::new(binary());
    publish.args(["cvmfs", "publish", REPO]).arg(&source).arg("--repository-dir").arg(&repository);
    publish.arg("--keys-dir").arg(scene.path("keys"));
    process::run(&mut publish);
    let site = Site::serve(&scene, scene.path("www"), "site");
    let key = scene.path("keys").join(format!("{REPO}.pub"));
    scene.configure(REPO, &site.repository(REPO), &key, "");
    Busy { scene, source, site }
}

struct Readers {
    readers: Vec<(String, Running, PathBuf)>,
    stop: PathBuf,
}

impl Readers {
    fn start(busy: &Busy, mount: &Path, round: &str) -> Readers {
        let stop = busy.scene.path(&format!("stop-{round}"));
        let modes = std::iter::repeat_n("files", 14).chain(["listings"; 2]).chain(["programs"; 4]);
        let readers = modes
            .enumerate()
            .map(|(number, mode)| {
                let log = busy.scene.path("log").join(format!("reader-{round}-{number}"));
                let mut command = Command::new(env!("CARGO_BIN_EXE_reader"));
                command.arg(mode).arg(mount).arg(&busy.source).arg(&stop).arg((number + 1).to_string());
                (format!("{mode} {number}"), Running::start(&mut command, &log), log)
            })
            .collect();
        Readers { readers, stop }
    }

    /// Fails if a reader has ended: none does before it is told to.
    fn check(&mut self) {
        for (name, running, log) in &mut self.readers {
            let said = || fs::read_to_string(&*log).unwrap_or_default();
            assert!(running.ended().is_none(), "reader {name}: {}", said());
        }
    }

    /// Tells all to stop; each must have read something and seen no error.
    fn finish(mut self) {
        self.check();
        fs::write(&self.stop, b"").unwrap();
        for (name, running, log) in &mut self.readers {
            let status = running.wait();
            let said = fs::read_to_string(&*log).unwrap_or_default();
            assert!(
                status.success() && said.contains("done ") && !said.contains("done 0"),
                "reader {name}: {said}"
            );
        }
    }
}

/// Mounts the repository by hand and answers the path.
fn mount(daemon: &Daemon<'_>, scene: &Scene) -> PathBuf {
    let target = scene.path("target");
    fs::create_dir_all(&target).unwrap();
    process::run(&mut daemon.command(&["mount", REPO, target.to_str().unwrap()]));
    target
}

fn kill_worker(daemon: &Daemon<'_>) {
    let worker = wait::until("a worker serves", || daemon.worker(REPO));
    process::run(Command::new("kill").args(["-9", &worker.to_string()]));
    wait::until_true("another worker serves", || daemon.worker(REPO).is_some_and(|next| next != worker));
}

#[test]
fn readers_and_programs_feel_nothing_of_fifty_killed_workers() {
    let busy = busy();
    let daemon = Daemon::start(&busy.scene);
    let target = mount(&daemon, &busy.scene);
    let mut readers = Readers::start(&busy, &target, "kills");
    for round in 0..50 {
        if round == 25 {
            // From here on the cache is cold again.
            let _ = fs::remove_dir_all(busy.scene.path("cache/objects"));
        }
        kill_worker(&daemon);
        readers.check();
    }
    readers.finish();
    process::run(&mut daemon.command(&["umount", target.to_str().unwrap()]));
    wait::until_true("the mount is gone", || daemon.mounts().is_empty());
    drop(busy.site);
}

#[test]
fn a_killed_daemon_is_not_missed_and_finds_its_workers() {
    let busy = busy();
    let mut daemon = Daemon::start(&busy.scene);
    let target = mount(&daemon, &busy.scene);
    let mut readers = Readers::start(&busy, &target, "daemon");
    let worker = daemon.worker(REPO);
    for _ in 0..5 {
        daemon.kill();
        readers.check();
        daemon.launch();
        wait::until_true("the worker is adopted", || daemon.worker(REPO) == worker);
        let mount = daemon.mount(REPO).unwrap();
        assert_eq!(mount["references"].as_array().unwrap().len(), 1, "{mount}");
        assert_eq!(mount["state"], "live");
        readers.check();
    }
    // And the adopted worker is watched like any other.
    kill_worker(&daemon);
    readers.finish();
    process::run(&mut daemon.command(&["umount", target.to_str().unwrap()]));
    wait::until_true("the mount is gone", || daemon.mounts().is_empty());
}

#[test]
fn both_killed_without_an_fd_store_are_cleaned_up_and_mounted_anew() {
    let busy = busy();
    let mut daemon = Daemon::start(&busy.scene);
    let target = mount(&daemon, &busy.scene);
    let worker = daemon.worker(REPO).unwrap();
    daemon.kill();
    process::run(Command::new("kill").args(["-9", &worker.to_string()]));
    daemon.launch();
    // The dead mount goes (nothing hangs on it), and the same request mounts it anew.
    process::run(&mut daemon.command(&["mount", REPO, target.to_str().unwrap()]));
    let names = process::output_within(Command::new("ls").arg(&target), Duration::from_secs(10));
    assert!(String::from_utf8_lossy(&names.stdout).contains("wide"), "{names:?}");
    assert!(busy.scene.log("volplane").contains("dead"), "the log tells it");
    process::run(&mut daemon.command(&["umount", target.to_str().unwrap()]));
    wait::until_true("the mount is gone", || daemon.mounts().is_empty());
}
