//! A real Podman with storage of the test's own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::daemon::Scene;
use crate::engine::{self, IMAGE};
use crate::process;

/// Podman set up for a scene; it has no daemon.
pub struct Podman<'scene> {
    scene: &'scene Scene,
}

impl<'scene> Podman<'scene> {
    /// Writes its configuration and imports the image. `Err` says why there is no Podman.
    ///
    /// # Errors
    /// When it is not installed.
    ///
    /// # Panics
    /// When the image cannot be imported.
    pub fn new(scene: &'scene Scene) -> Result<Podman<'scene>, String> {
        if !Path::new("/usr/bin/podman").exists() {
            return Err("Podman is not installed (package podman)".to_owned());
        }
        let socket = scene.path("plugins/cvmfs.sock");
        let text = format!(
            "[engine]\nruntime = \"/usr/sbin/runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             [engine.volume_plugins]\ncvmfs = \"{}\"\n",
            socket.display()
        );
        fs::write(scene.path("containers.conf"), text).expect("the scene is ours");
        let policy = scene.path("policy.json");
        fs::write(policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).expect("the scene is ours");
        let podman = Podman { scene };
        let tar = engine::image_archive(scene);
        let tar = tar.to_str().expect("temporary paths are UTF-8");
        podman.podman(&["import", tar, IMAGE]);
        Ok(podman)
    }

    /// `podman ARGUMENTS`, whatever comes of it.
    pub fn try_podman(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("podman");
        command.env("CONTAINERS_CONF", self.scene.path("containers.conf"));
        command.arg("--root").arg(self.scene.path("podman/root"));
        command.arg("--runroot").arg(self.scene.path("podman/run"));
        command.arg("--tmpdir").arg(self.scene.path("podman/tmp"));
        command.args(["--storage-driver", "vfs"]).args(arguments);
        process::output_within(&mut command, Duration::from_secs(60))
    }

    /// `podman ARGUMENTS`, which must succeed; answers its output.
    pub fn podman(&self, arguments: &[&str]) -> String {
        let output = self.try_podman(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "podman {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// `podman run …` with what this machine's kernel and cgroups need.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let fixed = [
            "run",
            "--rm",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ];
        let all: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        self.try_podman(&all)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = self.try_podman(&["rm", "-f", "-a", "-t", "0"]);
    }
}
