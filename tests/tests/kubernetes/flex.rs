//! Pods with a FlexVolume, as they are written for the old plugin.

use serde_json::json;
use system_tests::kubernetes::Pod;
use system_tests::wait;

use crate::trial::{FILES, REPO, Trial, flex, inline, listed};

pub(crate) fn a_pod_of_the_old_plugin_runs_unchanged(trial: &mut Trial<'_>) {
    trial.cluster.run_pod(&Pod::reader("nginx", flex(json!({"repository": REPO})), FILES));
    assert_eq!(trial.cluster.sums("nginx", "/mnt"), listed(REPO));
    assert_eq!(trial.volumes().len(), 1, "one mount at kubelet's path: {:#?}", trial.volumes());
    trial.cluster.mounted("nginx").goes_on_reading();
    trial.cluster.delete_pod("nginx");
}

pub(crate) fn a_secret_and_a_group_come_with_the_volume(trial: &mut Trial<'_>) {
    trial.cluster.apply(&[json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"},
        "type": "cern/cvmfs", "stringData": {"token": "do-not-tell-4711"}})]);
    let mut volume = flex(json!({"repository": REPO, "tag": "v1.0"}));
    volume["flexVolume"]["secretRef"] = json!({"name": "token"});
    volume["flexVolume"]["readOnly"] = json!(true);
    let mut pod = Pod::reader("secret", volume, &["README"]);
    pod.spec = json!({"securityContext": {"fsGroup": 1234, "runAsUser": 4321}});
    trial.cluster.run_pod(&pod);
    trial.cluster.mounted("secret").goes_on_reading();
    let readme = trial.cluster.exec("secret", "sha256sum </mnt/README");
    let entries = fixtures::listing("test.cern.ch@v1.0").unwrap();
    let entry = entries.into_iter().find(|entry| entry.path == b"/README").unwrap();
    assert_eq!(readme.split(' ').next(), entry.sha256.as_deref());
    assert!(!trial.cluster.log("volplane").contains("do-not-tell"), "the daemon's log has the secret");
    assert!(!trial.cluster.volplane(&["status", "--json"]).contains("do-not-tell"));
    trial.cluster.delete_pod("secret");
    trial.cluster.kubectl(&["delete", "secret", "token"]);
}

pub(crate) fn a_refused_flexvolume_says_why_in_the_pods_events(trial: &mut Trial<'_>) {
    let pods = [
        ("flex-unknown", json!({"repository": "badsig.cern.ch"}), "badsig.cern.ch"),
        ("flex-typo", json!({"repositry": REPO}), "repositry"),
    ];
    for (name, options, said) in pods {
        trial.cluster.apply(&[Pod::reader(name, flex(options), FILES).object()]);
        trial.cluster.await_event(name, said);
        trial.cluster.delete_pod(name);
    }
}

pub(crate) fn flexvolume_and_csi_share_one_mount(trial: &mut Trial<'_>) {
    trial.cluster.run_pod(&Pod::reader("flex", flex(json!({"repository": REPO})), FILES));
    trial.cluster.run_pod(&Pod::reader("csi", inline(json!({"repository": REPO})), FILES));
    let mount = trial.only_mount();
    assert_eq!(mount["references"].as_array().unwrap().len(), 2, "{mount:#}");
    trial.cluster.delete_pod("flex");
    trial.cluster.mounted("csi").goes_on_reading();
    wait::patiently(
        "kubelet takes the volume back",
        || trial.cluster.log("volplane"),
        || (trial.only_mount()["references"].as_array()?.len() == 1).then_some(()),
    );
    trial.cluster.delete_pod("csi");
}
