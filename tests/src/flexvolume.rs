//! What kubelet does with a FlexVolume driver, call for call (`pkg/volume/flexvolume` of Kubernetes 1.20 and 1.36, and
//! runs of both).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::daemon::{Scene, binary};
use crate::process::{self, Running};
use crate::wait;

/// The executable that belongs to the binary under test.
///
/// # Panics
/// When there is none.
pub fn executable() -> PathBuf {
    let built = binary().with_file_name("volplane-flexvolume");
    assert!(built.exists(), "{built:?} is missing: build it (`make build`), beside what VOLPLANE_BIN names");
    built
}

/// A `flexVolume` of a pod.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Name in the pod.
    pub name: String,
    /// `vendor/driver`.
    pub driver: String,
    /// The user's options.
    pub options: Map<String, Value>,
    /// `readOnly`.
    pub read_only: bool,
    /// Of the secret that `secretRef` names, decoded.
    pub secrets: Vec<(String, Vec<u8>)>,
}

/// A pod as far as its volumes go.
#[derive(Debug, Clone)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.securityContext.fsGroup`.
    pub fs_group: Option<u32>,
    /// Its FlexVolumes.
    pub volumes: Vec<Volume>,
}

impl Pod {
    /// Reads a manifest.
    ///
    /// # Panics
    /// When it is none of a pod.
    pub fn of_manifest(yaml: &str, uid: &str) -> Pod {
        let manifest: Value = serde_yaml_ng::from_str(yaml).expect("a manifest is YAML");
        assert_eq!(manifest["kind"], "Pod");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let volumes = manifest["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        let flex = volumes.iter().filter(|volume| !volume["flexVolume"].is_null()).map(|volume| Volume {
            name: text(&volume["name"]),
            driver: text(&volume["flexVolume"]["driver"]),
            options: volume["flexVolume"]["options"].as_object().cloned().unwrap_or_default(),
            read_only: volume["flexVolume"]["readOnly"].as_bool().unwrap_or(false),
            secrets: Vec::new(),
        });
        Pod {
            name: text(&manifest["metadata"]["name"]),
            uid: uid.to_owned(),
            fs_group: manifest["spec"]["securityContext"]["fsGroup"]
                .as_u64()
                .map(|group| u32::try_from(group).expect("a group's number")),
            volumes: flex.collect(),
        }
    }

    /// A pod with one volume `sw` of the driver `cern/cvmfs`.
    pub fn with(name: &str, options: &[(&str, &str)]) -> Pod {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let volume = Volume {
            name: "sw".to_owned(),
            driver: "cern/cvmfs".to_owned(),
            options,
            read_only: false,
            secrets: Vec::new(),
        };
        Pod { name: name.to_owned(), uid: format!("uid-of-{name}"), fs_group: None, volumes: vec![volume] }
    }
}

/// What a call answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The object.
    pub json: Value,
    /// The exit status; `None` if it was killed.
    pub exit: Option<i32>,
    /// From start to end.
    pub took: Duration,
}

impl Answer {
    /// `status`.
    pub fn status(&self) -> &str {
        self.json["status"].as_str().expect("every answer has a status")
    }

    /// `message`.
    pub fn message(&self) -> &str {
        self.json["message"].as_str().unwrap_or_default()
    }
}

/// Kubelet's part.
pub struct Kubelet {
    root: PathBuf,
    plugins: PathBuf,
    log: PathBuf,
    /// Further environment of kubelet, which its drivers inherit.
    pub environment: Vec<(String, String)>,
}

impl Kubelet {
    /// With its root directory `kubelet/` in the scene, and the drivers placed by `volplane flexvolume install`.
    pub fn new(scene: &Scene, install: &[&str]) -> Kubelet {
        let (root, plugins) = (scene.path("kubelet"), scene.path("volumeplugins"));
        fs::create_dir_all(root.join("pods")).expect("the scene takes directories");
        assert!(executable().exists());
        let mut command = Command::new(binary());
        command.args(["flexvolume", "install", "--dir"]).arg(&plugins);
        if !install.contains(&"--run-dir") {
            command.arg("--run-dir").arg(scene.path("run"));
        }
        command.args(install);
        process::run(&mut command);
        Kubelet { root, plugins, log: scene.path("log/flexvolume"), environment: Vec::new() }
    }

    /// The directory of a pod's volume.
    pub fn target(&self, pod: &Pod, volume: &Volume) -> PathBuf {
        let plugin = volume.driver.replace('/', "~");
        self.root.join("pods").join(&pod.uid).join("volumes").join(plugin).join(&volume.name)
    }

    fn command(&self, driver: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.driver(driver));
        command.args(arguments).current_dir("/").env_clear();
        // The environment of a kubelet that systemd started.
        command
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
            .env("JOURNAL_STREAM", "8:12345")
            .env("KUBELET_EXTRA_ARGS", "--root-dir=/var/lib/kubelet")
            .env("RUST_LOG", "trace")
            .env("RUST_BACKTRACE", "full")
            .envs(self.environment.iter().cloned());
        command
    }

    /// One call. Both outputs are read together, as kubelet does.
    ///
    /// # Panics
    /// When the output is anything but one JSON object.
    pub fn call(&self, driver: &str, arguments: &[&str]) -> Answer {
        let begun = Instant::now();
        let output = process::output_within(&mut self.command(driver, arguments), wait::LONG);
        let took = begun.elapsed();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        let text = String::from_utf8(output.stdout).expect("an answer is UTF-8");
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(json.is_object(), "{text}");
        Answer { json, exit: output.status.code(), took }
    }

    /// The executable of a driver.
    pub fn driver(&self, driver: &str) -> PathBuf {
        let (vendor, name) = driver.split_once('/').expect("a driver is vendor/name");
        self.plugins.join(format!("{vendor}~{name}")).join(name)
    }

    /// The same, not waited for.
    pub fn begin(&self, driver: &str, arguments: &[&str]) -> Running {
        Running::start(self.command(driver, arguments).stdin(Stdio::null()), &self.log)
    }

    /// The JSON of a volume as kubelet makes it.
    pub fn options(&self, pod: &Pod, volume: &Volume) -> String {
        let mut options = Map::new();
        options.insert("kubernetes.io/fsType".into(), json!(""));
        options.insert("kubernetes.io/readwrite".into(), json!(if volume.read_only { "ro" } else { "rw" }));
        options.insert("kubernetes.io/pvOrVolumeName".into(), json!(volume.name));
        options.insert("kubernetes.io/pod.name".into(), json!(pod.name));
        options.insert("kubernetes.io/pod.namespace".into(), json!("default"));
        options.insert("kubernetes.io/pod.uid".into(), json!(pod.uid));
        options.insert("kubernetes.io/serviceAccount.name".into(), json!("default"));
        if let Some(group) = pod.fs_group {
            options.insert("kubernetes.io/mounterArgs.FsGroup".into(), json!(group.to_string()));
        }
        for (key, value) in &volume.secrets {
            options.insert(format!("kubernetes.io/secret/{key}"), json!(base64(value)));
        }
        options.extend(volume.options.clone());
        Value::Object(options).to_string()
    }

    /// Sets a volume of a pod up: what is a mountpoint already is success without a call; after a failure the directory
    /// is removed if it is empty. `None`: no call was needed.
    ///
    /// # Panics
    /// When the directory cannot be made.
    pub fn set_up(&self, pod: &Pod, volume: &Volume) -> Option<Answer> {
        let target = self.target(pod, volume);
        if is_mountpoint(&target) {
            return None;
        }
        fs::create_dir_all(&target).expect("kubelet makes the directory");
        let place = target.to_str().expect("paths of the scene are UTF-8");
        let answer = self.call(&volume.driver, &["mount", place, &self.options(pod, volume)]);
        if answer.status() != "Success" {
            let _ = fs::remove_dir(&target);
        }
        Some(answer)
    }

    /// Takes a volume down: what does not exist is passed over; afterwards the directory is removed.
    pub fn tear_down(&self, pod: &Pod, volume: &Volume) -> Option<Answer> {
        let target = self.target(pod, volume);
        // A dead mount exists, too.
        if target.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return None;
        }
        let answer = self.call(&volume.driver, &["unmount", target.to_str().expect("UTF-8")]);
        if answer.status() == "Success" && target.exists() {
            fs::remove_dir(&target).expect("what was unmounted is an empty directory");
        }
        Some(answer)
    }
}

/// Whether something is mounted at exactly this path, from the mount table.
pub fn is_mountpoint(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == path))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    text
}
