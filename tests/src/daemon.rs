//! The daemon under test, with directories that no other test shares.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{self, Running};
use crate::wait;

/// The release binary, or the one that `VOLPLANE_BIN` names.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("VOLPLANE_BIN") {
        return path.into();
    }
    // target/<profile>/deps/<this test>
    let test = std::env::current_exe().expect("a test knows its own path");
    let built = test.ancestors().nth(2).expect("tests lie in target/<profile>/deps").join("volplane");
    assert!(built.exists(), "{built:?} is missing: build it (`make build`), or set VOLPLANE_BIN");
    built
}

/// A place for one test: a directory that is a shared mount, so that what the daemon mounts below it reaches an
/// engine in a mount namespace of its own.
pub struct Scene {
    dir: TempDir,
}

impl Scene {
    /// Makes the place.
    ///
    /// # Panics
    /// When not run as root.
    pub fn new() -> Scene {
        let dir = tempfile::Builder::new().prefix("volplane-").tempdir().expect("a temporary directory");
        let path = dir.path().to_str().expect("temporary paths are UTF-8");
        process::run(Command::new("mount").args(["--bind", path, path]));
        process::run(Command::new("mount").args(["--make-private", path]));
        process::run(Command::new("mount").args(["--make-shared", path]));
        let scene = Scene { dir };
        for part in ["plugins", "run", "state", "cache", "etc/keys", "www", "log"] {
            fs::create_dir_all(scene.path(part)).expect("an empty directory takes entries");
        }
        scene
    }

    /// A path below the place.
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    /// Writes the site configuration of a repository: server URL, master key and `more` lines.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn configure(&self, repository: &str, server: &str, key: &Path, more: &str) {
        let own = self.path("etc/keys").join(format!("{repository}.pub"));
        fs::copy(key, &own).expect("the master key can be copied");
        fs::create_dir_all(self.path("etc/config.d")).expect("etc/ is ours");
        let text = format!(
            "CVMFS_SERVER_URL={server}\nCVMFS_PUBLIC_KEY={}\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_CLAIM_OWNERSHIP=no\n{more}",
            own.display()
        );
        fs::write(self.path("etc/config.d").join(format!("{repository}.conf")), text).expect("etc/ is ours");
    }

    /// The text of a log that a program of this scene wrote.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path("log").join(name)).unwrap_or_default()
    }
}

impl Default for Scene {
    fn default() -> Self {
        Scene::new()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        abort_connections(self.dir.path());
        let _ = Command::new("umount").args(["-R", "-l"]).arg(self.dir.path()).status();
    }
}

/// Aborts every FUSE connection mounted below `below`, so that whoever waits on it goes on.
fn abort_connections(below: &Path) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (Some(device), Some(place)) = (fields.get(2), fields.get(4)) else { continue };
        let Some((_, minor)) = device.split_once(':') else { continue };
        if line.contains(" fuse") && Path::new(place).starts_with(below) {
            let _ = fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
        }
    }
}

/// A running `volplane serve`.
pub struct Daemon<'scene> {
    scene: &'scene Scene,
    running: Option<Running>,
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
}

impl<'scene> Daemon<'scene> {
    /// Starts it and waits until its Docker socket answers.
    pub fn start(scene: &'scene Scene) -> Daemon<'scene> {
        Daemon::start_with(scene, &[])
    }

    /// The same with further arguments of `serve`.
    pub fn start_with(scene: &'scene Scene, arguments: &[&str]) -> Daemon<'scene> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut daemon = Daemon { scene, running: None, arguments };
        daemon.launch();
        daemon
    }

    /// Starts it (again).
    ///
    /// # Panics
    /// When it does not come up; the text has its log.
    pub fn launch(&mut self) {
        let scene = self.scene;
        let mut command = Command::new(binary());
        command.arg("serve");
        for (flag, part) in [
            ("--run-dir", "run"),
            ("--state-dir", "state"),
            ("--docker-socket-dir", "plugins"),
            ("--cvmfs-config-dir", "etc"),
            ("--cvmfs-cache-dir", "cache"),
        ] {
            command.arg(flag).arg(scene.path(part));
        }
        command.args(&self.arguments).env("RUST_LOG", "info,volplane=debug");
        let mut running = Running::start(&mut command, &scene.path("log/volplane"));
        let socket = scene.path("plugins/cvmfs.sock");
        wait::until_true("the daemon's Docker socket answers", || {
            assert!(running.ended().is_none(), "the daemon ended:\n{}", scene.log("volplane"));
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        self.running = Some(running);
    }

    /// Kills it with SIGKILL; its workers go on.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.scene.log("volplane")
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the daemon runs").pid()
    }

    /// `volplane ARGUMENTS --run-dir …` as a user would type it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--run-dir").arg(self.scene.path("run"));
        command
    }

    /// The mounts of `volplane status --json`.
    pub fn mounts(&self) -> Vec<Value> {
        let text = process::run(&mut self.command(&["status", "--json"]));
        let status: Value = serde_json::from_str(&text).expect("status --json prints JSON");
        status["mounts"].as_array().expect("status has mounts").clone()
    }

    /// The mount with this key, if there is one.
    pub fn mount(&self, key: &str) -> Option<Value> {
        self.mounts().into_iter().find(|mount| mount["key"] == key)
    }

    /// The process that serves this mount.
    pub fn worker(&self, key: &str) -> Option<i32> {
        self.mount(key)?["worker_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0)
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.scene.log("volplane"));
        }
        self.kill();
        // Workers outlive the daemon by design; a test's end is the end of theirs.
        abort_connections(&self.scene.path("run"));
        let _ = Command::new("umount").args(["-R", "-l"]).arg(self.scene.path("run/mounts")).output();
        for worker in process::mentioning(&self.scene.path("run").to_string_lossy()) {
            let _ = Command::new("kill").args(["-9", &worker.to_string()]).status();
        }
    }
}
