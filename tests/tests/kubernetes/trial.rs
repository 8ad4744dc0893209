//! The cluster with everything in it, and what holds before and after each test.

use std::path::PathBuf;

use serde_json::{Value, json};
use system_tests::daemon::Scene;
use system_tests::kubernetes::{Cluster, Driver, Inside, NODE, PLUGIN_SOCKET};
use system_tests::wait;

/// The repository that most tests read.
pub(crate) const REPO: &str = "test.cern.ch";

/// Two of its files.
pub(crate) const FILES: &[&str] = &["README", "FINAL"];

/// The driver's name.
pub(crate) const DRIVER: &str = "cvmfs.csi.cern.ch";

/// What tests work on.
pub(crate) struct Trial<'scene> {
    /// The provisioner, while it runs.
    provisioner: Option<Inside>,
    /// The daemon.
    pub(crate) driver: Driver,
    /// The node and its control plane. Ends last.
    pub(crate) cluster: Cluster<'scene>,
}

impl<'scene> Trial<'scene> {
    /// Brings up the cluster with the driver, registered, and the provisioner.
    pub(crate) fn new(scene: &'scene Scene, programs: PathBuf) -> Trial<'scene> {
        let mut cluster = Cluster::up(scene, programs);
        let driver = Driver::start(&cluster);
        cluster.volplane(&["flexvolume", "install", "--dir", PLUGINS, "--vendor", "cern"]);
        cluster.apply(&[driver_object()]);
        let mut trial = Trial { provisioner: None, driver, cluster };
        trial.start_provisioner();
        trial.is_registered();
        trial
    }

    /// Ends the daemon and the provisioner, for others that take their place.
    pub(crate) fn stop_driver(&mut self) {
        self.provisioner = None;
        self.driver.kill();
        self.cluster.kubectl(&["delete", "csidriver", DRIVER]);
    }

    /// Has them back.
    pub(crate) fn start_driver(&mut self) {
        self.cluster.apply(&[driver_object()]);
        self.driver.launch(&self.cluster);
        self.start_provisioner();
        self.is_registered();
    }

    /// Starts the daemon again after it was killed. The provisioner ends when it finds its connection lost, and is started
    /// again, as kubelet starts a sidecar's container.
    pub(crate) fn relaunch_driver(&mut self) {
        self.provisioner = None;
        self.driver.launch(&self.cluster);
        self.start_provisioner();
    }

    /// Starts the real provisioner (again).
    pub(crate) fn start_provisioner(&mut self) {
        let settings = format!("--kubeconfig={}", self.cluster.path("kubeconfig").display());
        let address = format!("--csi-address={PLUGIN_SOCKET}");
        let line = ["csi-provisioner", &settings, &address, "--extra-create-metadata", "--v=4"];
        self.provisioner = Some(self.cluster.program("provisioner", &line.map(str::to_owned)));
    }

    /// Waits until kubelet knows the driver.
    pub(crate) fn is_registered(&self) {
        wait::patiently(
            "kubelet knows the driver",
            || self.cluster.log("volplane"),
            || {
                let node = self.cluster.try_get(&["csinode", NODE])?;
                let drivers = node["spec"]["drivers"].as_array()?;
                drivers.iter().any(|driver| driver["name"] == DRIVER).then_some(())
            },
        );
    }

    /// The node loses its power and comes back.
    pub(crate) fn reboot(&mut self) {
        self.provisioner = None;
        self.driver.forget();
        self.cluster.shut_down();
        self.cluster.boot();
        // As on a real node: the daemon is a service of the system, and faster than kubelet.
        self.driver.launch(&self.cluster);
        self.cluster.start_kubelet();
        self.cluster.wait_until_ready();
        self.start_provisioner();
        self.is_registered();
    }

    /// No pod is left, nothing is mounted for one, and the daemon knows of nobody who uses anything.
    pub(crate) fn is_clean(&self) {
        let pods = self.cluster.kubectl(&["get", "pods,pvc", "-o", "name"]);
        assert_eq!(pods, "", "pods or claims are left");
        wait::patiently(
            "no volume is mounted for a pod",
            || self.volumes().join("\n"),
            || self.volumes().is_empty().then_some(()),
        );
        wait::patiently(
            "the daemon has no mount",
            || format!("{:#?}", self.cluster.mounts()),
            || self.cluster.mounts().is_empty().then_some(()),
        );
    }

    /// FUSE mounts below kubelet's directory, as lines of the mount table.
    pub(crate) fn volumes(&self) -> Vec<String> {
        let table = self.cluster.mount_table();
        table
            .into_iter()
            .filter(|line| line.contains(" /var/lib/kubelet/") && line.contains(" fuse"))
            .collect()
    }

    /// The only mount that the daemon has.
    pub(crate) fn only_mount(&self) -> Value {
        let mut mounts = self.cluster.mounts();
        assert_eq!(mounts.len(), 1, "{mounts:#?}");
        mounts.remove(0)
    }

    /// Takes away what a failed test left.
    pub(crate) fn sweep(&mut self) {
        self.cluster.kubectl(&["delete", "pods", "--all", "--force", "--grace-period=0"]);
        self.cluster.kubectl(&["delete", "pvc", "--all", "--timeout=60s"]);
        if !self.driver.runs() {
            let namespace = crate::chart::NAMESPACE;
            self.cluster.kubectl(&["delete", "namespace", namespace, "--ignore-not-found", "--timeout=60s"]);
            self.start_driver();
        }
        self.is_clean();
    }
}

/// What may explain a failure.
pub(crate) fn show_logs(scene: &Scene) {
    for name in ["volplane", "kubelet", "provisioner"] {
        let log = scene.log(name);
        let lines: Vec<&str> = log.lines().collect();
        println!("--- the end of {name}'s log ---\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
    }
}

/// What Kubernetes must know of the driver.
fn driver_object() -> Value {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": DRIVER}, "spec": {
        "attachRequired": false, "podInfoOnMount": true, "fsGroupPolicy": "None",
        "volumeLifecycleModes": ["Persistent", "Ephemeral"]}})
}

/// kubelet's directory for FlexVolume drivers.
const PLUGINS: &str = "/var/lib/kubelet/volumeplugins";

/// An inline CSI volume.
pub(crate) fn inline(attributes: Value) -> Value {
    json!({"csi": {"driver": DRIVER, "readOnly": true, "volumeAttributes": attributes}})
}

/// A FlexVolume.
pub(crate) fn flex(options: Value) -> Value {
    json!({"flexVolume": {"driver": "cern/cvmfs", "options": options}})
}

/// A claim.
pub(crate) fn claim(name: &str) -> Value {
    json!({"persistentVolumeClaim": {"claimName": name, "readOnly": true}})
}

/// SHA-256 of every file as the real client shows them, sorted.
pub(crate) fn listed(listing: &str) -> Vec<String> {
    let entries = fixtures::listing(listing).unwrap();
    let mut sums: Vec<String> = entries.into_iter().filter_map(|entry| entry.sha256).collect();
    sums.sort();
    sums
}
