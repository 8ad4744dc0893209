//! The Helm chart on a real API server, and what it deploys as real pods.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use system_tests::kubernetes::{Cluster, Pod, SITE, program};
use system_tests::{checks, daemon, process, wait};

use crate::trial::{FILES, REPO, Trial, flex, inline, listed};

/// Where the chart is installed.
pub(crate) const NAMESPACE: &str = "storage";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `helm template` with these values.
fn rendered(cluster: &Cluster<'_>, helm: &Path, values: &Value) -> String {
    let file = cluster.path("values.json");
    fs::write(&file, values.to_string()).unwrap();
    let mut command = Command::new(helm);
    command.args(["template", "volplane"]).arg(root().join("packaging/kubernetes/volplane"));
    command.args(["--namespace", NAMESPACE, "-f"]).arg(&file);
    // It keeps its own files below the home directory unless told otherwise.
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, cluster.path("helm"));
    }
    process::run(&mut command)
}

/// The values of a site with the fixture repository, everything switched on that needs no further operator.
fn values(cluster: &Cluster<'_>) -> Value {
    let key = fs::read_to_string(fixtures::public_key(REPO)).unwrap();
    let settings = format!(
        "CVMFS_SERVER_URL=http://{SITE}/cvmfs/{REPO}\nCVMFS_PUBLIC_KEY=/etc/cvmfs/keys/{REPO}.pub\n\
         CVMFS_HTTP_PROXY=DIRECT\nCVMFS_CLAIM_OWNERSHIP=no\n\
         CVMFS_EXTERNAL_URL=http://{SITE}/ext/{REPO}\nCVMFS_EXTERNAL_HTTP_PROXY=DIRECT\nCVMFS_TEST_VAR=testvalue\n"
    );
    json!({
        "flexVolumeDirectory": "/var/lib/kubelet/volumeplugins", "flexVolume": {"enabled": true},
        // The machine's own directories are shared with the node; these are the scene's.
        "hostPaths": {"state": cluster.path("chart/state"), "cache": cluster.path("chart/cache")},
        "cvmfs": {"configD": {format!("{REPO}.conf"): settings}, "keys": {format!("{REPO}.pub"): key}},
        "storageClasses": {"repositories": [{"name": "cvmfs-test", "repository": REPO}]},
        "networkPolicy": {"enabled": true},
        "config": {"log": {"format": "text", "level": "debug"}},
    })
}

fn helm(test: &str) -> Option<PathBuf> {
    match checks::programs() {
        Ok(programs) => Some(programs.join("helm")),
        Err(reason) => {
            process::skip(&format!("kubernetes: {test}"), &reason);
            None
        }
    }
}

pub(crate) fn the_api_server_takes_the_chart(trial: &mut Trial<'_>) {
    let Some(helm) = helm("the_api_server_takes_the_chart") else { return };
    let cluster = &mut trial.cluster;
    cluster.kubectl(&["create", "namespace", NAMESPACE]);
    let (more, file) = (values(cluster), cluster.path("chart.yaml"));
    for values in [json!({}), more] {
        fs::write(&file, rendered(cluster, &helm, &values)).unwrap();
        let file = file.to_str().unwrap();
        // Strict: a field that the server does not know is an error.
        let server = "--dry-run=server";
        cluster.kubectl(&["apply", server, "--validate=strict", "-n", NAMESPACE, "-f", file]);
    }
    cluster.kubectl(&["delete", "namespace", NAMESPACE]);
}

/// Brings the images that the manifest names onto the node: ours as `packaging/image/build` makes it, and the provisioner.
fn bring_images(cluster: &Cluster<'_>, manifest: &str, programs: &Path) {
    let named =
        manifest.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("image:"));
    let names: BTreeSet<&str> = named.map(|name| name.trim().trim_matches('"')).collect();
    for (number, name) in names.iter().enumerate() {
        let archive = cluster.path(&format!("chart-{number}.tar"));
        if name.contains("csi-provisioner") {
            program(&cluster.path("provisioner"), &programs.join("csi-provisioner"), name).write(&archive);
        } else {
            assert!(name.starts_with("localhost/volplane:"), "unknown image {name}");
            let own = daemon::binary();
            let mut build = Command::new(root().join("packaging/image/build"));
            build.arg(&archive).arg(name).arg(&own).arg(own.with_file_name("volplane-flexvolume"));
            process::run(&mut build);
        }
        cluster.import(&archive);
    }
}

/// Waits until all pods of a DaemonSet or the Deployment are of its newest kind and ready. (`kubectl rollout status` knows
/// nothing of DaemonSets whose pods are replaced by hand.)
fn await_rollout(cluster: &Cluster<'_>, what: &str) {
    let (kind, name) = what.split_once('/').unwrap();
    let why = || {
        let pods = cluster.kubectl(&["-n", NAMESPACE, "get", "pods", "-o", "wide"]);
        let events = cluster.kubectl(&["-n", NAMESPACE, "get", "events"]);
        let log = cluster.try_kubectl(&["-n", NAMESPACE, "logs", what, "--all-containers", "--tail=40"]);
        format!("{pods}\n{events}\n{}", String::from_utf8_lossy(&log.stdout))
    };
    wait::patiently(&format!("{what} is rolled out"), why, || {
        let object = cluster.try_get(&[kind, name, "-n", NAMESPACE])?;
        let status = &object["status"];
        let number = |field: &str| status[field].as_u64().unwrap_or(0);
        let (wanted, ready, updated) = match kind {
            "daemonset" => {
                (number("desiredNumberScheduled"), number("numberReady"), number("updatedNumberScheduled"))
            }
            _ => (number("replicas"), number("readyReplicas"), number("updatedReplicas")),
        };
        let seen = status["observedGeneration"] == object["metadata"]["generation"];
        (seen && wanted > 0 && ready == wanted && updated == wanted).then_some(())
    });
}

/// The name of the DaemonSet's pod that is not about to end.
fn pod_of(cluster: &Cluster<'_>, component: &str) -> String {
    let selector = format!("app.kubernetes.io/component={component}");
    let pods = cluster.try_get(&["pods", "-n", NAMESPACE, "-l", &selector]).unwrap_or_default();
    let mut pods = pods["items"].as_array().into_iter().flatten();
    let pod = pods.find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pod.and_then(|pod| pod["metadata"]["name"].as_str()).unwrap_or_default().to_owned()
}

pub(crate) fn the_charts_pods_serve_and_are_upgraded_under_a_reader(trial: &mut Trial<'_>) {
    let Some(helm) = helm("the_charts_pods_serve_and_are_upgraded_under_a_reader") else { return };
    trial.stop_driver();
    let cluster = &mut trial.cluster;
    cluster.kubectl(&["create", "namespace", NAMESPACE]);
    let manifest = rendered(cluster, &helm, &values(cluster));
    bring_images(cluster, &manifest, &system_tests::kubernetes::programs().unwrap());
    let file = cluster.path("chart.yaml");
    fs::write(&file, &manifest).unwrap();
    let file = file.to_str().unwrap().to_owned();
    cluster.kubectl(&["apply", "-n", NAMESPACE, "-f", &file]);
    for part in ["daemonset/volplane-workers", "daemonset/volplane-node", "deployment/volplane-controller"] {
        await_rollout(cluster, part);
    }
    trial.is_registered();

    let cluster = &mut trial.cluster;
    cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "charted"},
        "spec": {"accessModes": ["ReadOnlyMany"], "storageClassName": "cvmfs-test",
            "resources": {"requests": {"storage": "1Gi"}}}}),
    ]);
    cluster.run_pod(&Pod::reader("csi", inline(json!({"repository": REPO})), FILES));
    cluster.run_pod(&Pod::reader("flex", flex(json!({"repository": REPO})), FILES));
    cluster.run_pod(&Pod::reader("claimed", crate::trial::claim("charted"), FILES));

    // An upgrade of the frontends: another pod of them, the workers' stays.
    let (old, workers) = (pod_of(cluster, "node"), pod_of(cluster, "workers"));
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", "daemonset/volplane-node"]);
    wait::patiently("another pod of the frontends", String::new, || {
        let now = pod_of(cluster, "node");
        (!now.is_empty() && now != old).then_some(())
    });
    await_rollout(cluster, "daemonset/volplane-node");
    assert_eq!(pod_of(cluster, "workers"), workers, "the workers' pod is touched by nothing");
    for name in ["csi", "flex", "claimed"] {
        cluster.mounted(name).goes_on_reading();
        assert_eq!(cluster.sums(name, "/mnt"), listed(REPO), "in pod {name}");
    }
    // The workers' pod is replaced: their mounts wait for the next one.
    cluster.kubectl(&["-n", NAMESPACE, "delete", "pod", &workers]);
    await_rollout(cluster, "daemonset/volplane-workers");
    assert_ne!(pod_of(cluster, "workers"), workers);
    for name in ["csi", "flex", "claimed"] {
        cluster.mounted(name).goes_on_reading();
        assert_eq!(cluster.sums(name, "/mnt"), listed(REPO), "in pod {name}");
    }
    cluster.run_pod(&Pod::reader("new", inline(json!({"repository": REPO})), FILES));
    for name in ["csi", "flex", "claimed", "new"] {
        cluster.delete_pod(name);
    }
    cluster.kubectl(&["delete", "pvc", "charted", "--timeout=60s"]);
    wait::patiently("the volume is deleted", String::new, || {
        cluster.kubectl(&["get", "pv", "-o", "name"]).is_empty().then_some(())
    });
    wait::patiently("no volume is mounted for a pod", String::new, || {
        trial.volumes().is_empty().then_some(())
    });
    trial.cluster.kubectl(&["delete", "-n", NAMESPACE, "-f", &file]);
    trial.cluster.kubectl(&["delete", "namespace", NAMESPACE, "--timeout=60s"]);
    trial.start_driver();
}
