//! The cluster with everything in it, and what holds before and after each test.

use std::path::PathBuf;

use serde_json::json;
use system_tests::daemon::Scene;
use system_tests::kubernetes::{Cluster, Pod};
use system_tests::wait;

/// What tests work on.
pub struct Trial<'scene> {
    pub cluster: Cluster<'scene>,
}

impl<'scene> Trial<'scene> {
    pub fn new(scene: &'scene Scene, programs: PathBuf) -> Trial<'scene> {
        let cluster = Cluster::up(scene, programs);
        Trial { cluster }
    }

    /// No pod is left, and nothing is mounted for one.
    pub fn is_clean(&mut self) {
        let pods = self.cluster.kubectl(&["get", "pods", "-o", "name"]);
        assert_eq!(pods, "", "pods are left");
        wait::patiently(
            "no volume is mounted for a pod",
            || self.volumes().join("\n"),
            || self.volumes().is_empty().then_some(()),
        );
    }

    fn volumes(&self) -> Vec<String> {
        let table = self.cluster.mount_table();
        table.into_iter().filter(|line| line.contains("/kubelet/pods/") && line.contains(" fuse")).collect()
    }

    /// Takes away what a failed test left.
    pub fn sweep(&mut self) {
        self.cluster.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0"]);
        self.is_clean();
    }

    /// What may explain a failure.
    pub fn show_logs(&self) {
        for name in ["volplane", "kubelet"] {
            let log = self.cluster.log(name);
            let lines: Vec<&str> = log.lines().collect();
            println!(
                "--- the end of {name}'s log ---\n{}",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
        }
    }
}

pub fn a_pod_runs_at_all(trial: &mut Trial<'_>) {
    trial.cluster.run_pod(&Pod::running(
        "plain",
        json!({"emptyDir": {}}),
        "echo hello >/mnt/x; sleep 100000",
    ));
    assert_eq!(trial.cluster.exec("plain", "cat /mnt/x"), "hello");
    trial.cluster.delete_pod("plain");
}
