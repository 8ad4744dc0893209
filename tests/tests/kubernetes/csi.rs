//! Pods with CSI volumes: inline, and claimed through the real provisioner.

use serde_json::{Value, json};
use system_tests::kubernetes::Pod;
use system_tests::wait;

use crate::trial::{DRIVER, FILES, REPO, Trial, claim, inline, listed};

pub(crate) fn an_inline_volume_shows_the_repository(trial: &mut Trial<'_>) {
    let mut pod = Pod::reader("inline", inline(json!({"repository": REPO})), FILES);
    pod.spec = json!({"securityContext": {"fsGroup": 1234}});
    trial.cluster.run_pod(&pod);
    assert_eq!(trial.cluster.sums("inline", "/mnt"), listed(REPO));
    assert_eq!(trial.volumes().len(), 1, "one mount at kubelet's path: {:#?}", trial.volumes());
    let refused = trial.cluster.try_kubectl(&["exec", "inline", "--", "touch", "/mnt/new"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only"), "{refused:?}");
    trial.cluster.delete_pod("inline");
}

pub(crate) fn an_inline_volume_can_ask_for_a_tag_and_a_directory(trial: &mut Trial<'_>) {
    let volume = inline(json!({"repository": REPO, "tag": "v1.0"}));
    let mut pod = Pod::running("bin", volume, "sleep 100000");
    pod.mount = json!({"subPath": "bin"});
    trial.cluster.run_pod(&pod);
    let entries = fixtures::listing("test.cern.ch@v1.0").unwrap();
    let below = entries.into_iter().filter(|entry| entry.path.starts_with(b"/bin/"));
    let mut sums: Vec<String> = below.filter_map(|entry| entry.sha256).collect();
    sums.sort();
    assert_eq!(trial.cluster.sums("bin", "/mnt"), sums);
    trial.cluster.delete_pod("bin");
}

/// A class and a claim of it; waits until it is bound.
pub(crate) fn provide(trial: &mut Trial<'_>, name: &str, parameters: Value) {
    trial.cluster.apply(&[
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": DRIVER, "parameters": parameters}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
            "accessModes": ["ReadOnlyMany"], "storageClassName": name, "resources": {"requests": {"storage": "1Gi"}}}}),
    ]);
    wait::patiently(
        "the claim is bound",
        || trial.cluster.events(name),
        || {
            let claim = trial.cluster.try_get(&["pvc", name])?;
            (claim["status"]["phase"] == "Bound").then_some(())
        },
    );
}

/// Takes both back; the provisioner deletes the volume.
pub(crate) fn take_back(trial: &mut Trial<'_>, name: &str) {
    trial.cluster.kubectl(&["delete", "pvc", name, "--timeout=60s"]);
    wait::patiently(
        "the volume is deleted",
        || trial.cluster.log("provisioner"),
        || trial.cluster.kubectl(&["get", "pv", "-o", "name"]).is_empty().then_some(()),
    );
    trial.cluster.kubectl(&["delete", "storageclass", name]);
}

pub(crate) fn a_claim_is_provided_by_the_provisioner(trial: &mut Trial<'_>) {
    provide(trial, "claimed", json!({"repository": REPO}));
    trial.cluster.run_pod(&Pod::reader("claimed", claim("claimed"), FILES));
    assert_eq!(trial.cluster.sums("claimed", "/mnt"), listed(REPO));
    // A second pod of the claim: staged once, published twice, one mount.
    trial.cluster.run_pod(&Pod::reader("second", claim("claimed"), FILES));
    trial.only_mount();
    trial.cluster.delete_pod("claimed");
    trial.cluster.mounted("second").goes_on_reading();
    trial.cluster.delete_pod("second");
    take_back(trial, "claimed");
}

pub(crate) fn all_of_cvmfs_is_in_one_pod(trial: &mut Trial<'_>) {
    provide(trial, "all", json!({}));
    trial.cluster.run_pod(&Pod::reader("all", claim("all"), &["test.cern.ch/README"]));
    trial.cluster.mounted("all").goes_on_reading();
    for repository in ["mini.cern.ch", "nocomp.cern.ch"] {
        assert_eq!(trial.cluster.sums("all", &format!("/mnt/{repository}")), listed(repository));
    }
    trial.cluster.delete_pod("all");
    take_back(trial, "all");
}

pub(crate) fn two_pods_with_one_repository_share_a_mount(trial: &mut Trial<'_>) {
    trial.cluster.run_pod(&Pod::reader("one", inline(json!({"repository": REPO})), FILES));
    let mut other = Pod::reader("two", inline(json!({"repository": REPO})), FILES);
    other.spec = json!({"securityContext": {"runAsUser": 1000, "runAsGroup": 1000}});
    trial.cluster.run_pod(&other);
    let mount = trial.only_mount();
    assert_eq!(mount["references"].as_array().unwrap().len(), 2, "{mount:#}");
    trial.cluster.delete_pod("one");
    trial.cluster.mounted("two").goes_on_reading();
    trial.cluster.delete_pod("two");
}

pub(crate) fn a_refused_volume_says_why_in_the_pods_events(trial: &mut Trial<'_>) {
    let pods = [
        ("csi-unknown", json!({"repository": "badsig.cern.ch"}), "badsig.cern.ch"),
        ("csi-typo", json!({"repositry": REPO}), "repositry"),
        (
            "csi-path",
            json!({"repository": REPO, "clientConfigFilepath": "/etc/shadow"}),
            "clientConfigFilepath",
        ),
        (
            "csi-server",
            json!({"repository": REPO, "server": "http://127.0.0.1:9/cvmfs/@fqrn@"}),
            "cvmfs.pod_servers",
        ),
    ];
    for (name, attributes, said) in pods {
        trial.cluster.apply(&[Pod::reader(name, inline(attributes), FILES).object()]);
        trial.cluster.await_event(name, said);
        trial.cluster.delete_pod(name);
    }
}
