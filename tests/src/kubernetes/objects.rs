//! Kubernetes objects that tests make.

use serde_json::{Value, json};

use super::{Cluster, IMAGE};
use crate::wait;

/// Where pods of tests have their volume.
const AT: &str = "/mnt";

/// A pod with one volume at `/mnt`.
pub struct Pod {
    /// Its name.
    pub name: String,
    /// What it says of its volume, without the name.
    volume: Value,
    /// What it runs.
    script: String,
    /// More of the container's mount of the volume.
    pub mount: Value,
    /// More of the pod's specification.
    pub spec: Value,
}

impl Pod {
    /// A pod that reads files without end (below `/mnt`) and counts how often; it ends with 7 at the first error.
    pub fn reader(name: &str, volume: Value, files: &[&str]) -> Pod {
        let files: Vec<String> = files.iter().map(|file| format!("{AT}/{file}")).collect();
        let script = format!(
            "n=0; while true; do sha256sum {} >/tmp/sums || exit 7; n=$((n+1)); echo $n >/tmp/new; mv /tmp/new /tmp/n; done",
            files.join(" ")
        );
        Pod::running(name, volume, &script)
    }

    /// A pod that runs a shell script.
    pub fn running(name: &str, volume: Value, script: &str) -> Pod {
        Pod { name: name.to_owned(), volume, script: script.to_owned(), mount: json!({}), spec: json!({}) }
    }

    /// The object.
    pub fn object(&self) -> Value {
        let mut volume = self.volume.clone();
        volume["name"] = json!("v");
        let mut mount = json!({"name": "v", "mountPath": AT});
        merge(&mut mount, &self.mount);
        let mut spec = json!({
            "hostNetwork": true, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Never", "volumes": [volume],
            "containers": [{"name": "c", "image": IMAGE, "imagePullPolicy": "Never",
                "command": ["sh", "-c", self.script], "volumeMounts": [mount]}],
        });
        merge(&mut spec, &self.spec);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name}, "spec": spec})
    }
}

fn merge(into: &mut Value, more: &Value) {
    for (key, value) in more.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}

/// What a pod shows of its volume.
pub struct Mounted<'a> {
    cluster: &'a Cluster<'a>,
    name: String,
}

impl<'scene> Cluster<'scene> {
    /// Creates the pod and waits until it runs.
    ///
    /// # Panics
    /// When it does not; the text has the events.
    pub fn run_pod(&mut self, pod: &Pod) {
        self.apply(&[pod.object()]);
        self.await_pod(&pod.name);
    }

    /// Waits until a pod runs.
    ///
    /// # Panics
    /// When it does not, or ends instead; the text has the events.
    pub fn await_pod(&self, name: &str) {
        wait::patiently(
            &format!("pod {name} runs"),
            || self.events(name),
            || {
                let phase = self.phase(name);
                assert!(phase != "Failed", "pod {name} failed: {}", self.events(name));
                (phase == "Running").then_some(())
            },
        );
    }

    /// The phase of a pod; empty when there is no such pod.
    pub fn phase(&self, name: &str) -> String {
        let pod = self.try_get(&["pod", name]);
        pod.and_then(|pod| pod["status"]["phase"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// What `kubectl describe` shows as events of a pod, a line each.
    pub fn events(&self, name: &str) -> String {
        let selector = format!("involvedObject.name={name}");
        let events = self.try_get(&["events", "--field-selector", &selector]).unwrap_or_default();
        let lines = events["items"].as_array().into_iter().flatten();
        let lines = lines.map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            format!("{} {}: {}", text("type"), text("reason"), text("message"))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Waits until a pod's events say `said`.
    ///
    /// # Panics
    /// When they do not, or the pod runs.
    pub fn await_event(&self, name: &str, said: &str) {
        wait::patiently(
            &format!("events of pod {name} say {said}"),
            || self.events(name),
            || {
                assert_ne!(self.phase(name), "Running", "pod {name} runs");
                let events = self.events(name);
                let mut failed = events.lines().filter(|line| line.starts_with("Warning FailedMount"));
                failed.find(|line| line.contains(said)).map(|_| ())
            },
        );
    }

    /// Deletes a pod and waits until it is gone.
    pub fn delete_pod(&self, name: &str) {
        self.kubectl(&["delete", "pod", name, "--timeout=120s"]);
    }

    /// Deletes a pod from the API server at once, whatever kubelet makes of it.
    pub fn force_delete_pod(&self, name: &str) {
        self.kubectl(&["delete", "pod", name, "--force", "--grace-period=0"]);
    }

    /// Runs a shell script in a pod, which must succeed; answers its output.
    pub fn exec(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// SHA-256 of every file below `dir` that the pod sees, sorted.
    pub fn sums(&self, pod: &str, dir: &str) -> Vec<String> {
        let text = self.exec(pod, &format!("find {dir} -type f -print0 | xargs -0 -n 250 sha256sum"));
        // Names may hold any byte, also ends of lines.
        let is_sum = |line: &&str| {
            line.len() > 66
                && line.is_char_boundary(64)
                && line[64..].starts_with("  ")
                && line[..64].bytes().all(|b| b.is_ascii_hexdigit())
        };
        let mut sums: Vec<String> = text.lines().filter(is_sum).map(|line| line[..64].to_owned()).collect();
        sums.sort();
        sums
    }

    /// Watches a pod of [`Pod::reader`].
    pub fn mounted<'a>(&'a self, name: &str) -> Mounted<'a>
    where
        'scene: 'a,
    {
        Mounted { cluster: self, name: name.to_owned() }
    }
}

impl Mounted<'_> {
    fn count(&self) -> Option<u64> {
        let asked = self.cluster.try_kubectl(&["exec", &self.name, "--", "cat", "/tmp/n"]);
        asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).trim().parse().ok()).flatten()
    }

    /// Waits until the pod has read everything twice more from now on.
    ///
    /// # Panics
    /// When an error ended it, or it was started again.
    pub fn goes_on_reading(&self) {
        let name = &self.name;
        let what = format!("pod {name} goes on reading");
        let begun = wait::patiently(
            &what,
            || self.log(),
            || {
                assert_ne!(self.cluster.phase(name), "Failed", "a read failed in pod {name}: {}", self.log());
                self.count()
            },
        );
        wait::patiently(
            &what,
            || self.log(),
            || {
                assert_eq!(
                    self.cluster.phase(name),
                    "Running",
                    "a read failed in pod {name}: {}",
                    self.log()
                );
                self.count().filter(|count| *count > begun + 2)
            },
        );
        let pod = self.cluster.try_get(&["pod", name]).expect("the pod is there");
        assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0, "pod {name} was started again");
    }

    fn log(&self) -> String {
        let output = self.cluster.try_kubectl(&["logs", &self.name]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
