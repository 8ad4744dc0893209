//! A real Docker engine of the test's own.
//!
//! It runs in a mount namespace where the scene's `plugins/` is /run/docker/plugins (the directory has no flag), so that engines
//! side by side do not ask each other's plugins. The namespace outlives engine restarts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::daemon::Scene;
use crate::process::{self, Running};
use crate::wait;

/// The image every test uses: busybox, nothing else.
pub const IMAGE: &str = "volplane-test:1";

/// Where the engine's programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `dockerd`.
    pub engine: PathBuf,
    /// Directory put first on the engine's PATH (containerd, shim, runc); `None` is the system's own.
    pub path: Option<PathBuf>,
}

/// The engine to test with: the one in `VOLPLANE_ENGINE_DIR`, else the system's. `Err` says why there is none.
pub fn programs() -> Result<Programs, String> {
    if let Some(dir) = std::env::var_os("VOLPLANE_ENGINE_DIR").map(PathBuf::from) {
        return Ok(Programs { engine: dir.join("dockerd"), path: Some(dir) });
    }
    let engine = PathBuf::from("/usr/sbin/dockerd");
    if !engine.exists() {
        return Err("no Docker engine is installed (package docker.io)".to_owned());
    }
    Ok(Programs { engine, path: None })
}

/// A running engine and its namespace.
pub struct Engine<'scene> {
    scene: &'scene Scene,
    programs: Programs,
    namespace: Running,
    engine: Option<Running>,
    flags: Vec<String>,
}

impl<'scene> Engine<'scene> {
    /// Starts an engine with further flags and imports the image.
    ///
    /// # Panics
    /// When it does not come up; the text has its log.
    pub fn start(scene: &'scene Scene, programs: Programs, flags: &[&str]) -> Engine<'scene> {
        let ready = scene.path("namespace");
        let script =
            "mount --make-slave \"$1\" && mkdir -p /run/docker/plugins /run/containerd \"$1/shim\" &&
            mount --bind \"$1/plugins\" /run/docker/plugins && mount --bind \"$1/shim\" /run/containerd &&
            : >\"$1/namespace\" && exec sleep infinity";
        for dir in ["/run/docker/plugins", "/run/containerd"] {
            fs::create_dir_all(dir).expect("/run is writable for root");
        }
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "unchanged", "sh", "-c", script, "sh"]).arg(scene.path(""));
        let namespace = Running::start(&mut command, &scene.path("log/namespace"));
        wait::until_true("the engine's namespace is ready", || ready.exists());
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut engine = Engine { scene, programs, namespace, engine: None, flags };
        engine.launch();
        engine.import_image();
        engine
    }

    /// Starts the engine (again).
    ///
    /// # Panics
    /// When it does not come up.
    pub fn launch(&mut self) {
        let scene = self.scene;
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &self.namespace.pid().to_string()]).arg(&self.programs.engine);
        command.arg("--data-root").arg(scene.path("docker"));
        command.arg("--exec-root").arg(scene.path("exec"));
        command.arg("--pidfile").arg(scene.path("dockerd.pid"));
        command.arg("-H").arg(self.host());
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-masq=false", "-D"]);
        command.args(&self.flags);
        if let Some(path) = &self.programs.path {
            command.arg("--seccomp-profile").arg("unconfined");
            command.env("PATH", format!("{}:{}", path.display(), std::env::var("PATH").unwrap_or_default()));
        }
        let mut running = Running::start(&mut command, &scene.path("log/dockerd"));
        wait::until_true("the engine answers", || {
            assert!(running.ended().is_none(), "the engine ended:\n{}", scene.log("dockerd"));
            self.try_docker(&["version"]).status.success()
        });
        self.engine = Some(running);
    }

    /// Stops it with a signal (`-TERM`, `-KILL`) and waits for its end.
    ///
    /// # Panics
    /// When it does not run or does not end.
    pub fn stop(&mut self, signal: &str) {
        let mut running = self.engine.take().expect("the engine runs");
        running.signal(signal);
        running.wait();
        let _ = fs::remove_file(self.scene.path("dockerd.pid"));
        // A killed engine's containerd dies with it; as an unreaped orphan it would still look alive to the next engine.
        let config = self.scene.path("exec/containerd/containerd.toml").to_string_lossy().into_owned();
        wait::until_true("the engine's containerd has ended", || process::mentioning(&config).is_empty());
        let _ = fs::remove_file(self.scene.path("exec/containerd/containerd.pid"));
    }

    fn host(&self) -> String {
        format!("unix://{}", self.scene.path("docker.sock").display())
    }

    /// `docker ARGUMENTS`, whatever comes of it.
    pub fn try_docker(&self, arguments: &[&str]) -> Output {
        process::output_within(&mut self.command(arguments), Duration::from_secs(150))
    }

    /// `docker ARGUMENTS`, which must succeed; answers its output.
    pub fn docker(&self, arguments: &[&str]) -> String {
        let output = self.try_docker(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "docker {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// `docker ARGUMENTS`, which must fail; answers what it says.
    pub fn docker_fails(&self, arguments: &[&str]) -> String {
        let output = self.try_docker(arguments);
        assert!(!output.status.success(), "docker {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
    }

    /// The command `docker ARGUMENTS` against this engine.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.scene.path("docker-config"));
        command.args(arguments);
        command
    }

    fn import_image(&self) {
        let tar = image_archive(self.scene);
        let tar = tar.to_str().expect("temporary paths are UTF-8");
        self.docker(&["import", "-c", "CMD [\"/bin/sh\"]", tar, IMAGE]);
    }
}

/// The test image's file system as a tar archive: busybox and its names, made without a registry.
///
/// # Panics
/// When busybox-static is not installed.
pub fn image_archive(scene: &Scene) -> PathBuf {
    let root = scene.path("image");
    fs::create_dir_all(root.join("bin")).expect("the scene is ours");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in [
        "sh",
        "cat",
        "ls",
        "sleep",
        "stat",
        "sha256sum",
        "find",
        "true",
        "dd",
        "readlink",
        "head",
        "echo",
        "touch",
    ] {
        symlink("busybox", root.join("bin").join(name)).expect("the scene is ours");
    }
    let tar = scene.path("image.tar");
    process::run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."));
    tar
}

impl Drop for Engine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.scene.log("dockerd");
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the engine's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        if self.engine.is_some() {
            let ids = self.try_docker(&["ps", "-aq"]);
            for id in String::from_utf8_lossy(&ids.stdout).lines() {
                let _ = self.try_docker(&["rm", "-f", id]);
            }
        }
        if let Some(mut running) = self.engine.take() {
            let _ = Command::new("kill").arg(running.pid().to_string()).status();
            // What has not ended by itself within ten seconds is killed when `running` is dropped.
            let deadline = Instant::now() + Duration::from_secs(10);
            while running.ended().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // With --live-restore shims and containerd may stay; they have the scene's paths in their command line.
        for pid in process::mentioning(&self.scene.path("exec").to_string_lossy()) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}
