//! The options that kubelet hands to a driver: the user's own, and its own under `kubernetes.io/`.
//!
//! The API server and kubelet refuse users' options under `kubernetes.io/` and `k8s.io/`, but kubelet's FlexVolume code itself
//! would let them win. So nothing is decided by them that a user could gain from, and a secret is whatever came as one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use volume::{Fault, FaultKind, OptionMap, Secret, Secrets};

const RESERVED: [&str; 2] = ["kubernetes.io/", "k8s.io/"];
const SECRET: &str = "kubernetes.io/secret/";

/// Kubelet's JSON: texts by name, secrets among them. Not to be seen in full: `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KubeletOptions(OptionMap);

impl fmt::Debug for KubeletOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl From<OptionMap> for KubeletOptions {
    fn from(texts: OptionMap) -> Self {
        KubeletOptions(texts)
    }
}

/// The same, typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// What the author of the pod (or of its PersistentVolume: kubelet does not tell) wrote.
    pub(crate) options: OptionMap,
    /// `readOnly` of the volume; kubelet does not enforce it.
    pub(crate) read_only: bool,
    /// `fsType` of the volume.
    pub(crate) fs_type: Option<String>,
    /// The pod's fsGroup.
    pub(crate) group: Option<u32>,
    /// Decoded.
    pub(crate) secrets: Secrets,
    pub(crate) pod: Pod,
}

/// Who the volume is for; for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) service_account: String,
    /// Name of the volume, or of the PersistentVolume.
    pub(crate) volume: String,
}

impl KubeletOptions {
    #[cfg(test)]
    pub(crate) fn texts(&self) -> &OptionMap {
        &self.0
    }

    /// Sorts and types them.
    ///
    /// # Errors
    /// [`FaultKind::InvalidArgument`] names the key, never the value of a secret.
    pub(crate) fn typed(&self) -> Result<Wanted, Fault> {
        let mut wanted = Wanted::default();
        let mut secrets = Vec::new();
        for (key, value) in &self.0 {
            if let Some(name) = key.strip_prefix(SECRET) {
                let bytes = STANDARD.decode(value.as_bytes()).map_err(|_| wrong(key, "is not base64"))?;
                secrets.push((name.to_owned(), Secret::new(bytes)));
                continue;
            }
            match key.as_str() {
                "kubernetes.io/readwrite" => {
                    wanted.read_only = match value.as_str() {
                        "ro" => true,
                        "rw" | "" => false,
                        _ => return Err(wrong(key, "is neither ro nor rw")),
                    }
                }
                "kubernetes.io/fsType" => {
                    wanted.fs_type = Some(value.clone()).filter(|text| !text.is_empty());
                }
                "kubernetes.io/mounterArgs.FsGroup" if value.is_empty() => {}
                "kubernetes.io/mounterArgs.FsGroup" => {
                    let group = value.parse().map_err(|_| wrong(key, "is not the number of a group"))?;
                    wanted.group = Some(group);
                }
                "kubernetes.io/pvOrVolumeName" => wanted.pod.volume.clone_from(value),
                "kubernetes.io/pod.name" => wanted.pod.name.clone_from(value),
                "kubernetes.io/pod.namespace" => wanted.pod.namespace.clone_from(value),
                "kubernetes.io/pod.uid" => wanted.pod.uid.clone_from(value),
                "kubernetes.io/serviceAccount.name" => wanted.pod.service_account.clone_from(value),
                // A later kubelet may say more; it is not the user's doing.
                reserved if RESERVED.iter().any(|prefix| reserved.starts_with(prefix)) => {
                    tracing::debug!(key = reserved, "an option of kubelet that is not known");
                }
                _ => drop(wanted.options.insert(key.clone(), value.clone())),
            }
        }
        wanted.secrets = secrets.into_iter().collect();
        Ok(wanted)
    }
}

fn wrong(key: &str, what: &str) -> Fault {
    Fault::new(FaultKind::InvalidArgument, "read", format!("option {key}"), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> KubeletOptions {
        KubeletOptions(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn what_kubelet_says_is_typed_and_the_rest_is_the_users() {
        let wanted = options(&[
            ("kubernetes.io/fsType", ""),
            ("kubernetes.io/readwrite", "ro"),
            ("kubernetes.io/pvOrVolumeName", "lhcb"),
            ("kubernetes.io/pod.name", "nginx"),
            ("kubernetes.io/pod.namespace", "default"),
            ("kubernetes.io/pod.uid", "1b00-ff"),
            ("kubernetes.io/serviceAccount.name", "default"),
            ("kubernetes.io/mounterArgs.FsGroup", "1234"),
            ("kubernetes.io/secret/token", "aHVudGVyMg=="),
            ("kubernetes.io/something.new", "x"),
            ("repository", "lhcb.cern.ch"),
            ("tag", "v1"),
        ])
        .typed()
        .unwrap();
        let names: Vec<_> = wanted.options.keys().map(String::as_str).collect();
        assert_eq!(names, ["repository", "tag"]);
        assert!(wanted.read_only && wanted.fs_type.is_none());
        assert_eq!(wanted.group, Some(1234));
        assert_eq!(wanted.secrets.get("token").unwrap().expose(), b"hunter2");
        assert_eq!((wanted.pod.name.as_str(), wanted.pod.volume.as_str()), ("nginx", "lhcb"));
        let ext4 =
            options(&[("kubernetes.io/fsType", "ext4"), ("kubernetes.io/readwrite", "rw")]).typed().unwrap();
        assert_eq!((ext4.fs_type.as_deref(), ext4.read_only), (Some("ext4"), false));
    }

    #[test]
    fn a_bad_value_is_named_by_its_key_and_a_secret_never_shown() {
        for (key, value) in [
            ("kubernetes.io/secret/token", "hunter2!"),
            ("kubernetes.io/readwrite", "rwx"),
            ("kubernetes.io/mounterArgs.FsGroup", "-1"),
        ] {
            let fault = options(&[(key, value)]).typed().unwrap_err();
            assert!(fault.to_string().contains(key) && !fault.to_string().contains("hunter2"), "{fault}");
            assert_eq!(fault.kind, FaultKind::InvalidArgument);
        }
        let secret = options(&[("kubernetes.io/secret/token", "aHVudGVyMg==")]);
        let shown = format!("{secret:?} {:?}", secret.typed().unwrap());
        assert!(
            shown.contains("token") && !shown.contains("aHVudGVyMg") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
}
