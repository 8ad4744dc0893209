//! Configuration files and command lines of the cluster's parts.
//!
//! Ports are the well-known ones, as the network is the namespace's own. The administrator has a token; service accounts and what
//! they may do are real.

use std::fs;
use std::path::Path;

use serde_json::json;

/// Writes all files that do not change later.
///
/// # Panics
/// When they cannot be written.
pub(super) fn write(dir: &Path, programs: &Path) {
    for part in ["run", "kubelet", "etcd", "containerd", "manifests", "cni"] {
        fs::create_dir_all(dir.join(part)).expect("the scene is ours");
    }
    let put = |name: &str, text: String| fs::write(dir.join(name), text).expect("the scene is ours");
    let mut key = std::process::Command::new("openssl");
    crate::process::run(key.args(["genrsa", "-out"]).arg(dir.join("accounts.key")).arg("2048"));
    put("tokens.csv", "admintoken,admin,admin,system:masters\n".to_owned());
    let settings = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:443", "insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"token": "admintoken"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    put("kubeconfig", settings.to_string());
    put("kubelet.yaml", kubelet_file().to_string());
    put("containerd.toml", containerd_file(dir, programs));
    let network = json!({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {
        "type": "host-local", "dataDir": "/run/ipam", "ranges": [[{"subnet": "10.244.7.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]}}]});
    put("cni/10-pods.conflist", network.to_string());
}

fn kubelet_file() -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "address": "127.0.0.1", "port": 10250, "readOnlyPort": 0, "healthzPort": 0,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs", "cgroupsPerQOS": false, "enforceNodeAllocatable": [],
        // Both cgroup versions will do.
        "failCgroupV1": false, "failSwapOn": false,
        "makeIPTablesUtilChains": false, "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
        // A full disk of the machine is not the test's affair.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
        "serializeImagePulls": false,
        // Quick to see and to forget what is over.
        "volumeStatsAggPeriod": "10s", "syncFrequency": "10s",
    })
}

fn containerd_file(dir: &Path, programs: &Path) -> String {
    let (dir, programs, image) = (dir.display(), programs.display(), super::IMAGE);
    format!(
        r#"version = 3
root = "{dir}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{image}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["{programs}"]
  conf_dir = "{dir}/cni"
  use_internal_loopback = true
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "{programs}/runc"
  SystemdCgroup = false
"#
    )
}

fn line(dir: &Path, words: &[&str]) -> Vec<String> {
    let dir = dir.to_str().expect("temporary paths are UTF-8").trim_end_matches('/');
    words.iter().map(|word| word.replace("DIR", dir)).collect()
}

pub(super) fn etcd(dir: &Path) -> Vec<String> {
    line(dir, &["etcd", "--data-dir=DIR/etcd", "--unsafe-no-fsync"])
}

pub(super) fn containerd(dir: &Path) -> Vec<String> {
    line(dir, &["containerd", "-c", "DIR/containerd.toml"])
}

pub(super) fn api_server(dir: &Path) -> Vec<String> {
    line(
        dir,
        &[
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            "--secure-port=443",
            "--bind-address=0.0.0.0",
            "--advertise-address=10.96.0.1",
            "--cert-dir=DIR/cert",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--authorization-mode=RBAC",
            "--token-auth-file=DIR/tokens.csv",
            "--service-account-issuer=https://issuer.test",
            "--service-account-signing-key-file=DIR/accounts.key",
            "--service-account-key-file=DIR/accounts.key",
            "--endpoint-reconciler-type=none",
            "--allow-privileged",
        ],
    )
}

pub(super) fn controller_manager(dir: &Path) -> Vec<String> {
    line(
        dir,
        &[
            "kube-controller-manager",
            "--kubeconfig=DIR/kubeconfig",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--cert-dir=DIR/controller-manager",
            "--service-account-private-key-file=DIR/accounts.key",
            "--root-ca-file=DIR/cert/apiserver.crt",
            "--flex-volume-plugin-dir=/var/lib/kubelet/volumeplugins",
        ],
    )
}

pub(super) fn scheduler(dir: &Path) -> Vec<String> {
    line(
        dir,
        &[
            "kube-scheduler",
            "--kubeconfig=DIR/kubeconfig",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--cert-dir=DIR/scheduler",
        ],
    )
}

pub(super) fn kubelet(dir: &Path) -> Vec<String> {
    line(
        dir,
        &[
            "kubelet",
            "--config=DIR/kubelet.yaml",
            "--kubeconfig=DIR/kubeconfig",
            "--root-dir=/var/lib/kubelet",
            "--cert-dir=DIR/pki",
            "--hostname-override=127.0.0.1",
            "--v=3",
        ],
    )
}
