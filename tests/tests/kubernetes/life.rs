//! What happens to nodes while pods read: restarts, kills, upgrades, a power cut.

use std::fs;

use serde_json::json;
use system_tests::kubernetes::Pod;
use system_tests::wait;

use crate::csi::{provide, take_back};
use crate::trial::{FILES, REPO, Trial, claim, flex, inline, listed};

/// A pod of each frontend, reading.
fn readers(trial: &mut Trial<'_>) {
    trial.cluster.run_pod(&Pod::reader("csi", inline(json!({"repository": REPO})), FILES));
    trial.cluster.run_pod(&Pod::reader("flex", flex(json!({"repository": REPO})), FILES));
}

/// Both still read, also what nobody has read yet.
fn read_on(trial: &Trial<'_>) {
    for name in ["csi", "flex"] {
        trial.cluster.mounted(name).goes_on_reading();
        assert_eq!(trial.cluster.sums(name, "/mnt"), listed(REPO), "in pod {name}");
    }
}

fn delete_readers(trial: &Trial<'_>) {
    trial.cluster.delete_pod("csi");
    trial.cluster.delete_pod("flex");
}

pub(crate) fn pods_read_on_while_kubelet_restarts(trial: &mut Trial<'_>) {
    readers(trial);
    provide(trial, "kept", json!({"repository": REPO}));
    trial.cluster.run_pod(&Pod::reader("claimed", claim("kept"), FILES));
    trial.cluster.kill_kubelet();
    trial.cluster.start_kubelet();
    trial.cluster.wait_until_ready();
    trial.is_registered();
    read_on(trial);
    // Its volumes are uncertain to it: the claim's is staged and published again.
    trial.cluster.mounted("claimed").goes_on_reading();
    // kubelet knows its volumes from the disk only; a new pod shows that it is through with them.
    trial.cluster.run_pod(&Pod::reader("new", inline(json!({"repository": REPO})), FILES));
    trial.cluster.delete_pod("new");
    trial.cluster.delete_pod("claimed");
    take_back(trial, "kept");
    delete_readers(trial);
}

pub(crate) fn pods_read_on_while_the_daemon_is_upgraded(trial: &mut Trial<'_>) {
    readers(trial);
    trial.driver.kill();
    for name in ["csi", "flex"] {
        trial.cluster.mounted(name).goes_on_reading();
    }
    let next = trial.cluster.path("volplane-next");
    fs::copy(&trial.driver.program, &next).unwrap();
    let old = std::mem::replace(&mut trial.driver.program, next);
    trial.relaunch_driver();
    trial.is_registered();
    read_on(trial);
    trial.cluster.run_pod(&Pod::reader("new", inline(json!({"repository": REPO})), FILES));
    assert_eq!(
        trial.only_mount()["references"].as_array().unwrap().len(),
        3,
        "the new daemon knows the old users"
    );
    trial.cluster.delete_pod("new");
    delete_readers(trial);
    trial.driver.program = old;
}

pub(crate) fn pods_read_on_when_a_worker_is_killed(trial: &mut Trial<'_>) {
    readers(trial);
    let worker = trial.only_mount()["worker_pid"].as_i64().unwrap();
    trial.cluster.run_inside(&["kill", "-KILL", &worker.to_string()]);
    wait::patiently(
        "another worker serves",
        || trial.cluster.log("volplane"),
        || {
            let now = trial.only_mount()["worker_pid"].as_i64().unwrap_or(0);
            (now > 0 && now != worker).then_some(())
        },
    );
    read_on(trial);
    delete_readers(trial);
}

pub(crate) fn pods_deleted_by_force_leave_nothing(trial: &mut Trial<'_>) {
    readers(trial);
    trial.cluster.force_delete_pod("csi");
    trial.cluster.force_delete_pod("flex");
    trial.is_clean();
    // The same while kubelet is down: it finds the remains on its disk.
    readers(trial);
    provide(trial, "left", json!({"repository": REPO}));
    trial.cluster.run_pod(&Pod::reader("claimed", claim("left"), FILES));
    trial.cluster.kill_kubelet();
    trial.cluster.force_delete_pod("claimed");
    trial.cluster.force_delete_pod("csi");
    trial.cluster.force_delete_pod("flex");
    trial.cluster.start_kubelet();
    trial.cluster.wait_until_ready();
    take_back(trial, "left");
}

pub(crate) fn a_pod_deleted_while_the_daemon_is_down_leaves_nothing(trial: &mut Trial<'_>) {
    readers(trial);
    trial.driver.kill();
    trial.cluster.force_delete_pod("csi");
    trial.cluster.force_delete_pod("flex");
    trial.relaunch_driver();
    trial.is_registered();
}

pub(crate) fn pods_come_back_after_a_power_cut(trial: &mut Trial<'_>) {
    let mut pods = [
        Pod::reader("csi", inline(json!({"repository": REPO})), FILES),
        Pod::reader("flex", flex(json!({"repository": REPO})), FILES),
        Pod::reader("claimed", claim("rebooted"), FILES),
    ];
    provide(trial, "rebooted", json!({"repository": REPO}));
    for pod in &mut pods {
        pod.spec = json!({"restartPolicy": "Always"});
        trial.cluster.run_pod(pod);
    }
    trial.reboot();
    for name in ["csi", "flex", "claimed"] {
        wait::patiently(
            "the pod runs again",
            || trial.cluster.events(name),
            || {
                let asked = trial.cluster.try_kubectl(&["exec", name, "--", "cat", "/tmp/n"]);
                asked.status.success().then_some(())
            },
        );
        assert_eq!(trial.cluster.sums(name, "/mnt"), listed(REPO), "in pod {name}");
    }
    trial.cluster.delete_pod("claimed");
    take_back(trial, "rebooted");
    delete_readers(trial);
}
