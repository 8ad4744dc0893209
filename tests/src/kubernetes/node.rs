//! What volplane runs on the cluster's node: the daemon, and the web server that it reads from.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use super::{Cluster, Inside};
use crate::daemon::{Scene, binary};
use crate::{process, wait};

/// The socket of the CVMFS driver, as the node sees it.
pub const PLUGIN_SOCKET: &str = "/var/lib/kubelet/plugins/cvmfs.csi.cern.ch/csi.sock";

/// `volplane serve` on the node with the FlexVolume and CSI frontends, and a web server with the fixture repositories.
pub struct Driver {
    /// The program; another one is an upgrade.
    pub program: PathBuf,
    site: Option<Inside>,
    daemon: Option<Inside>,
}

impl Driver {
    /// Starts both and waits until the daemon answers.
    pub fn start(cluster: &Cluster<'_>) -> Driver {
        let mut driver = Driver { program: binary(), site: None, daemon: None };
        for repository in fixtures::GOOD {
            configure(cluster.scene(), repository);
        }
        let registration = cluster.path("kubelet/plugins_registry");
        fs::create_dir_all(registration).expect("the scene is ours");
        fs::create_dir_all(cluster.path("kubelet/plugins/cvmfs.csi.cern.ch")).expect("the scene is ours");
        driver.serve_site(cluster);
        driver.launch(cluster);
        driver
    }

    fn serve_site(&mut self, cluster: &Cluster<'_>) {
        let root = fixtures::public().join("www");
        let (program, root) = (binary(), root.to_string_lossy().into_owned());
        let line = [&program.to_string_lossy(), "cvmfs", "serve", &root, "--listen", SITE].map(str::to_owned);
        self.site = Some(cluster.program("site", &line));
    }

    /// Starts the daemon (again), as the next version of it.
    ///
    /// # Panics
    /// When it does not come up; the text has its log.
    pub fn launch(&mut self, cluster: &Cluster<'_>) {
        if self.site.as_mut().is_none_or(|site| site.ended().is_some()) {
            self.serve_site(cluster);
        }
        let scene = cluster.scene();
        fs::write(scene.path("etc/volplane.toml"), settings(scene)).expect("the scene is ours");
        let mut line = vec![self.program.to_string_lossy().into_owned(), "serve".to_owned()];
        line.extend(["--config".to_owned(), scene.path("etc/volplane.toml").to_string_lossy().into_owned()]);
        line.extend(["--csi-endpoint".to_owned(), format!("cvmfs=unix://{PLUGIN_SOCKET}")]);
        let mut daemon = cluster.program("volplane", &line);
        wait::until_true("the daemon answers", || {
            assert!(daemon.ended().is_none(), "the daemon ended:\n{}", cluster.log("volplane"));
            try_volplane(cluster, &["status", "--json"]).status.success()
        });
        self.daemon = Some(daemon);
    }

    /// Kills the daemon with SIGKILL; its workers go on.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Whether the daemon runs.
    pub fn runs(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|daemon| daemon.ended().is_none())
    }

    /// Everything ended with the node.
    pub fn forget(&mut self) {
        self.daemon = None;
        self.site = None;
    }
}

/// Where the web server listens in the node's network: an address that pods with a network of their own reach too.
pub const SITE: &str = "10.96.0.1:8000";

fn configure(scene: &Scene, repository: &str) {
    let more = format!(
        "CVMFS_EXTERNAL_URL=http://{SITE}/ext/{repository}\nCVMFS_EXTERNAL_HTTP_PROXY=DIRECT\nCVMFS_TEST_VAR=testvalue\n"
    );
    let server = format!("http://{SITE}/cvmfs/{repository}");
    scene.configure(repository, &server, &fixtures::public_key(repository), &more);
}

fn settings(scene: &Scene) -> String {
    let at = |part: &str| scene.path(part).display().to_string();
    format!(
        r#"state_dir = "{}"
run_dir = "/run/volplane"
[docker]
enabled = false
[cvmfs]
config_dir = "{}"
cache_dir = "{}"
[csi]
node_id = "{}"
register = true
[log]
level = "info,volplane=debug"
"#,
        at("state"),
        at("etc"),
        at("cache"),
        super::NODE,
    )
}

/// `volplane ARGUMENTS` on the node, whatever comes of it.
fn try_volplane(cluster: &Cluster<'_>, arguments: &[&str]) -> Output {
    let program = binary().to_string_lossy().into_owned();
    let line: Vec<&str> = std::iter::once(program.as_str()).chain(arguments.iter().copied()).collect();
    let mut command: Command = cluster.inside(&line);
    process::output_within(&mut command, Duration::from_secs(60))
}

impl Cluster<'_> {
    /// `volplane ARGUMENTS` on the node, which must succeed; answers its output.
    ///
    /// # Panics
    /// When it fails; the text has what it says.
    pub fn volplane(&self, arguments: &[&str]) -> String {
        let output = try_volplane(self, arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "volplane {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The mounts of `volplane status --json`.
    pub fn mounts(&self) -> Vec<Value> {
        let status: Value =
            serde_json::from_str(&self.volplane(&["status", "--json"])).expect("status --json prints JSON");
        status["mounts"].as_array().expect("status has mounts").clone()
    }
}
