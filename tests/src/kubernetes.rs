//! A real Kubernetes of the test's own: one node with etcd, the control plane, containerd and kubelet.
//!
//! Everything runs in mount, process and network namespaces of its own, so that the fixed paths and ports of a real node
//! (`/var/lib/kubelet`, `/run`, 443) are there and the machine has nothing of it; the end of the namespace's first process
//! ends all. State lies in the scene, so that [`Cluster::shut_down`] and [`Cluster::boot`] are a node's reboot.

mod image;
mod namespace;
mod node;
mod objects;
mod programs;
mod settings;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

pub use image::{Image, busybox, program};
pub use namespace::{Inside, Namespace};
pub use node::{Driver, PLUGIN_SOCKET, SITE};
pub use objects::{Mounted, Pod};
pub use programs::programs;

use crate::daemon::Scene;
use crate::{process, wait};

/// The image that pods run: busybox with all its names, and the sandbox's too.
pub const IMAGE: &str = "localhost/volplane-test:1";

/// The node's name and address.
pub const NODE: &str = "127.0.0.1";

/// A running cluster.
pub struct Cluster<'scene> {
    scene: &'scene Scene,
    programs: PathBuf,
    namespace: Option<Namespace>,
    parts: Vec<Inside>,
    kubelet: Option<Inside>,
    applied: usize,
}

impl<'scene> Cluster<'scene> {
    /// Brings up a new cluster whose programs lie in `programs`, until its node is ready.
    ///
    /// # Panics
    /// When it does not come up; the text names the log.
    pub fn up(scene: &'scene Scene, programs: PathBuf) -> Cluster<'scene> {
        let mut cluster =
            Cluster { scene, programs, namespace: None, parts: Vec::new(), kubelet: None, applied: 0 };
        settings::write(&cluster.path(""), &cluster.programs);
        cluster.boot();
        cluster.start_kubelet();
        cluster.wait_until_ready();
        cluster
    }

    /// A path in the cluster's directory; `kubelet/` is `/var/lib/kubelet` inside.
    pub fn path(&self, part: &str) -> PathBuf {
        self.scene.path("node").join(part)
    }

    /// Starts the node (again), but for kubelet.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn boot(&mut self) {
        let namespace = Namespace::start(&self.path(""), &self.programs);
        self.namespace = Some(namespace);
        self.start("etcd", &settings::etcd(&self.path("")));
        self.start("containerd", &settings::containerd(&self.path("")));
        self.start("apiserver", &settings::api_server(&self.path("")));
        let why = || tail("apiserver", self.scene);
        wait::patiently("the API server is ready", why, || {
            self.try_kubectl(&["get", "--raw", "/readyz"]).status.success().then_some(())
        });
        self.start("controller-manager", &settings::controller_manager(&self.path("")));
        self.start("scheduler", &settings::scheduler(&self.path("")));
        let archive = self.path("image.tar");
        if !archive.exists() {
            busybox(&self.path("image"), IMAGE).write(&archive);
        }
        wait::until_true("containerd answers", || {
            self.inside(&["ctr", "version"]).output().is_ok_and(|output| output.status.success())
        });
        self.import(&archive);
    }

    /// Ends everything at once, as a power cut does; the cluster's state stays.
    pub fn shut_down(&mut self) {
        self.kubelet = None;
        self.parts.clear();
        self.namespace = None;
        // What containers leave behind outside of the namespace: empty groups.
        let _ = Command::new("find")
            .args([
                "/sys/fs/cgroup",
                "-depth",
                "-type",
                "d",
                "-path",
                "*/k8s.io*",
                "-exec",
                "rmdir",
                "{}",
                "+",
            ])
            .output();
    }

    fn namespace(&self) -> &Namespace {
        self.namespace.as_ref().expect("the node is up")
    }

    /// A command that runs on the node.
    ///
    /// # Panics
    /// When the node is down.
    pub fn inside(&self, line: &[&str]) -> Command {
        self.namespace().command(line)
    }

    /// Runs a command on the node, which must succeed; answers its output.
    pub fn run_inside(&self, line: &[&str]) -> String {
        process::run(&mut self.inside(line))
    }

    /// Starts a program on the node, with its output in the log `name`.
    pub fn program(&self, name: &str, line: &[String]) -> Inside {
        self.namespace().start_program(line, &[], &self.log_path(name))
    }

    fn start(&mut self, name: &str, line: &[String]) {
        let program = self.program(name, line);
        self.parts.push(program);
    }

    /// Starts kubelet and does not wait for it.
    pub fn start_kubelet(&mut self) {
        self.kubelet = Some(self.program("kubelet", &settings::kubelet(&self.path(""))));
    }

    /// Kills kubelet; pods go on.
    pub fn kill_kubelet(&mut self) {
        self.kubelet = None;
    }

    /// Waits until kubelet answers and the node is ready.
    pub fn wait_until_ready(&mut self) {
        let why = || tail("kubelet", self.scene);
        wait::patiently("kubelet is healthy", why, || {
            let url = "https://127.0.0.1:10250/healthz";
            let asked = self.inside(&["curl", "-skf", "--max-time", "2", url]).output();
            asked.is_ok_and(|output| output.status.success()).then_some(())
        });
        wait::patiently("the node is ready", why, || {
            let node = self.try_get(&["node", NODE])?;
            let conditions = node["status"]["conditions"].as_array()?;
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(())
        });
        self.alive();
    }

    /// # Panics
    /// When a part of the cluster has ended by itself.
    fn alive(&mut self) {
        for part in self.parts.iter_mut().chain(&mut self.kubelet) {
            assert!(part.ended().is_none(), "{} ended:\n{}", part.name(), tail(part.name(), self.scene));
        }
    }

    /// Imports an archive of images.
    pub fn import(&self, archive: &std::path::Path) {
        let archive = archive.to_str().expect("temporary paths are UTF-8");
        self.run_inside(&["ctr", "-n", "k8s.io", "images", "import", "--all-platforms", archive]);
    }

    /// `kubectl ARGUMENTS`, whatever comes of it.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        let settings = format!("--kubeconfig={}", self.path("kubeconfig").display());
        let line: Vec<&str> = ["kubectl", &settings].into_iter().chain(arguments.iter().copied()).collect();
        process::output_within(&mut self.inside(&line), Duration::from_secs(150))
    }

    /// `kubectl ARGUMENTS`, which must succeed; answers its output.
    ///
    /// # Panics
    /// When it fails; the text has what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// `kubectl get ARGUMENTS` as JSON; `None` when there is no such object.
    pub fn try_get(&self, arguments: &[&str]) -> Option<Value> {
        let line: Vec<&str> = ["get", "-o", "json"].into_iter().chain(arguments.iter().copied()).collect();
        let output = self.try_kubectl(&line);
        output.status.success().then(|| serde_json::from_slice(&output.stdout).ok()).flatten()
    }

    /// Creates or updates objects.
    ///
    /// # Panics
    /// When the API server refuses one.
    pub fn apply(&mut self, objects: &[Value]) {
        let text = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        self.apply_text(&text);
    }

    /// The same with a manifest, YAML or JSON; answers what was said about each object.
    pub fn apply_text(&mut self, manifest: &str) -> String {
        self.applied += 1;
        let file = self.path(&format!("manifests/{}.yaml", self.applied));
        fs::write(&file, manifest).expect("the scene is ours");
        self.kubectl(&["apply", "-f", file.to_str().expect("temporary paths are UTF-8")])
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.scene.path("log").join(name)
    }

    /// The text of a log that a part of the cluster wrote.
    pub fn log(&self, name: &str) -> String {
        self.scene.log(name)
    }

    /// The scene that it lies in.
    pub fn scene(&self) -> &'scene Scene {
        self.scene
    }

    /// What the mount table of the node shows, whole lines of mountinfo.
    pub fn mount_table(&self) -> Vec<String> {
        let text = self.run_inside(&["cat", "/proc/self/mountinfo"]);
        text.lines().map(str::to_owned).collect()
    }
}

/// The last lines of a log.
fn tail(name: &str, scene: &Scene) -> String {
    let log = scene.log(name);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        self.shut_down();
    }
}
