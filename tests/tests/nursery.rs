//! Daemon and workers in two containers that share nothing but directories; each is killed under readers.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use system_tests::daemon::{Scene, binary};
use system_tests::process::{self, Running};
use system_tests::site::Site;
use system_tests::wait;

const REPO: &str = "pods.example.org";

/// The user of the nursery's container.
const USER: u32 = 60_987;

/// A process in PID and mount namespaces of its own, killed with all that it has started.
struct Container {
    running: Running,
}

impl Container {
    fn start(scene: &Scene, name: &str, propagation: &str, script: &str) -> Container {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", propagation]);
        let running = Running::start(command.args(["sh", "-ec", script]), &scene.path("log").join(name));
        Container { running }
    }

    fn first(&self) -> Option<String> {
        let pid = self.running.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        Some(children.split_whitespace().next()?.to_owned())
    }

    fn signal(&self, signal: &str) {
        process::run(Command::new("kill").args([signal, &self.first().unwrap()]));
    }

    fn kill(mut self) {
        self.signal("-9");
        self.running.wait();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(first) = self.first() {
            let _ = Command::new("kill").args(["-9", &first]).status();
        }
    }
}

/// A repository that is served, and the directories of the containers.
struct Node {
    scene: Scene,
    source: PathBuf,
    _site: Site,
}

impl Node {
    fn new() -> Node {
        let scene = Scene::new();
        fs::set_permissions(scene.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        let source = scene.path("source");
        fs::create_dir_all(source.join("many")).unwrap();
        for n in 0..100_usize {
            fs::write(
                source.join("many").join(format!("file{n}")),
                vec![b'a' + (n % 26) as u8; 3000 * n + 1],
            )
            .unwrap();
        }
        let repository = scene.path("www/cvmfs").join(REPO);
        fs::create_dir_all(repository.parent().unwrap()).unwrap();
        let mut publish = Command::new(binary());
        publish.args(["cvmfs", "publish", REPO]).arg(&source).arg("--repository-dir").arg(&repository);
        process::run(publish.arg("--keys-dir").arg(scene.path("keys")));
        let site = Site::serve(&scene, scene.path("www"), "site");
        scene.configure(REPO, &site.repository(REPO), &scene.path("keys").join(format!("{REPO}.pub")), "");
        fs::write(
            scene.path("volplane.toml"),
            format!("[worker]\nnursery = {:?}\n", scene.path("nursery/n.sock")),
        )
        .unwrap();
        fs::write(scene.path("program"), "").unwrap();
        fs::create_dir(scene.path("target")).unwrap();
        Node { scene, source, _site: site }
    }

    /// The container of the workers: no privilege, nothing writable but what is shared, none of the node's mounts.
    fn nursery(&self) -> Container {
        let at = |part: &str| self.scene.path(part).display().to_string();
        let script = format!(
            "umount -q -l {target} || true; umount -q -l {mounts}/* || true; \
             mount --bind {binary} {program}; mount -o remount,bind,ro /; \
             exec setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all --bounding-set=-all \
             --no-new-privs {program} nursery --socket {socket} --log-level debug",
            target = at("target"),
            mounts = at("run/mounts"),
            binary = binary().display(),
            program = at("program"),
            socket = at("nursery/n.sock"),
        );
        Container::start(&self.scene, "nursery", "private", &script)
    }

    /// The daemon's container: its mounts reach the node.
    fn daemon(&self) -> Container {
        let at = |part: &str| self.scene.path(part).display().to_string();
        let script = format!(
            "exec {binary} serve --config {config} --run-dir {run} --state-dir {state} --docker-socket-dir {plugins} \
             --cvmfs-config-dir {etc} --cvmfs-cache-dir {cache}",
            binary = binary().display(),
            config = at("volplane.toml"),
            run = at("run"),
            state = at("state"),
            plugins = at("plugins"),
            etc = at("etc"),
            cache = at("cache"),
        );
        let daemon = Container::start(&self.scene, "volplane", "unchanged", &script);
        wait::until_true("the daemon answers", || self.ask(&["status"]).is_ok_and(|_| true));
        daemon
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--run-dir").arg(self.scene.path("run"));
        let output = process::output_within(&mut command, wait::LONG);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn mount(&self) -> Option<Value> {
        let status: Value = serde_json::from_str(&self.ask(&["status", "--json"]).ok()?).unwrap();
        status["mounts"].as_array().unwrap().first().cloned()
    }

    fn reader(&self) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reader"));
        command.arg("files").arg(self.target()).arg(&self.source).arg(self.scene.path("stop")).arg("1");
        Running::start(&mut command, &self.scene.path("log/reader"))
    }

    fn target(&self) -> PathBuf {
        self.scene.path("target")
    }

    fn finish(&self, mut reader: Running) {
        fs::write(self.scene.path("stop"), "").unwrap();
        let status = reader.wait();
        let said = self.scene.log("reader");
        assert!(status.success() && said.contains("done ") && !said.contains("done 0"), "{said}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- daemon ---\n{}--- nursery ---\n{}",
                self.scene.log("volplane"),
                self.scene.log("nursery")
            );
        }
    }
}

fn same_bytes(a: &Path, b: &Path) {
    let mut compare = Command::new("timeout");
    process::run(compare.args(["-s", "KILL", "60", "diff", "-r"]).arg(a).arg(b));
}

#[test]
fn the_daemons_container_is_replaced_and_no_reader_notices() {
    let node = Node::new();
    let (mut daemon, nursery) = (node.daemon(), node.nursery());
    let target = node.target().display().to_string();
    node.ask(&["mount", REPO, &target]).unwrap();
    let mut reader = node.reader();
    let worker = node.mount().unwrap()["worker_pid"].clone();
    for _ in 0..3 {
        daemon.kill();
        same_bytes(&node.source.join("many"), &node.target().join("many"));
        assert!(reader.ended().is_none(), "{}", node.scene.log("reader"));
        daemon = node.daemon();
        wait::until_true("the worker is adopted", || {
            node.mount().is_some_and(|mount| mount["worker_pid"] == worker && mount["state"] == "live")
        });
    }
    node.finish(reader);
    node.ask(&["umount", &target]).unwrap();
    wait::until_true("the mount is gone", || node.mount().is_none());
    nursery.signal("-15");
    drop(daemon);
}

#[test]
fn the_workers_container_is_replaced_and_readers_only_wait() {
    let node = Node::new();
    let daemon = node.daemon();
    let target = node.target().display().to_string();
    let said = node.ask(&["mount", REPO, &target]).unwrap_err();
    assert!(said.contains("nursery/n.sock") && said.contains("volplane nursery"), "{said}");
    assert!(node.mount().is_none_or(|mount| mount["state"] != "live"));
    let mut nursery = node.nursery();
    wait::until_true("the nursery listens", || node.scene.path("nursery/n.sock").exists());
    node.ask(&["mount", REPO, &target]).unwrap();
    let mut reader = node.reader();
    for _ in 0..3 {
        nursery.kill();
        wait::until_true("the daemon waits", || {
            let health = node.mount().map(|mount| mount["health"].to_string()).unwrap_or_default();
            health.contains("waiting for the nursery")
        });
        nursery = node.nursery();
        wait::until_true("a worker serves", || {
            node.mount().is_some_and(|mount| mount["health"] == "healthy")
        });
        same_bytes(&node.source.join("many"), &node.target().join("many"));
        assert!(reader.ended().is_none(), "{}", node.scene.log("reader"));
    }
    // An upgrade: the old one drains while the new one is there already.
    let before = node.mount().unwrap()["restarts"].as_u64().unwrap();
    let mut old = nursery;
    old.signal("-15");
    let new = node.nursery();
    assert!(old.running.wait().success());
    wait::until_true("the worker has moved", || {
        node.mount().is_some_and(|mount| mount["restarts"].as_u64() == Some(before + 1))
    });
    node.finish(reader);
    node.ask(&["umount", &target]).unwrap();
    wait::until_true("the mount is gone", || node.mount().is_none());
    drop((daemon, new));
}
