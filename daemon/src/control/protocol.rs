//! The control socket's messages (`<run_dir>/control.sock`, mode 0600), described for others in `proto/control.md`.
//!
//! Each message is a 4-byte big-endian length and that many bytes of JSON, at most 1 MiB. A client sends one request at a
//! time and reads one response; several may follow each other on a connection.

use std::path::PathBuf;

use flexvolume::{MountRequest, UnmountRequest};
use serde::{Deserialize, Serialize};
use volume::{Fault, MountStatus, OptionMap, Released, VolumeInfo};

/// Most bytes of a message.
pub(crate) const LIMIT: usize = 1 << 20;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Who is there; answered at once, however busy the daemon is.
    Hello,
    /// All mounts.
    Status,
    /// Makes a volume available at `target` (bound there), or at the mount's own place without one.
    Mount {
        name: String,
        #[serde(default)]
        options: OptionMap,
        #[serde(default)]
        target: Option<PathBuf>,
    },
    /// Takes back what `mount` gave.
    Umount { target: String },
    /// All defined volumes.
    VolumeList,
    /// Defines a volume.
    VolumeCreate {
        name: String,
        #[serde(default)]
        options: OptionMap,
    },
    /// Forgets a volume.
    VolumeRemove { name: String },
    /// One volume with its mount.
    VolumeInspect { name: String },
    /// Looks for new revisions now.
    Refresh,
    /// Kubelet's `mount`; it counts when it was confirmed.
    FlexvolumeMount(MountRequest),
    /// Confirms the mount that this connection was just answered.
    FlexvolumeKeep,
    /// Kubelet's `unmount`.
    FlexvolumeUnmount(UnmountRequest),
}

/// What the daemon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Response {
    /// It is done.
    Ok(serde_json::Value),
    /// It is not.
    Error(Fault),
}

/// Answer to [`Request::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The daemon's version.
    pub(crate) version: String,
    /// Its process id.
    pub(crate) pid: u32,
}

/// Answer to [`Request::Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The daemon's version.
    pub(crate) version: String,
    /// Its process id.
    pub(crate) pid: u32,
    /// All mounts, by key.
    pub(crate) mounts: Vec<MountStatus>,
    /// Mounts that were taken down but are still held by a mount namespace elsewhere.
    #[serde(default)]
    pub(crate) released: Vec<Released>,
}

/// One volume, as `volume ls` and `volume inspect` show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) driver: String,
    /// What it was defined with.
    pub(crate) options: OptionMap,
    /// What it is.
    pub(crate) spec: serde_json::Value,
    /// Seconds since the epoch, UTC.
    pub(crate) created_at: u64,
    pub(crate) mountpoint: Option<PathBuf>,
    pub(crate) mount: Option<MountStatus>,
}

impl From<VolumeInfo> for Volume {
    fn from(info: VolumeInfo) -> Volume {
        Volume {
            name: info.name.to_string(),
            driver: info.spec.driver().to_string(),
            options: info.options,
            spec: serde_json::to_value(&info.spec).unwrap_or_default(),
            created_at: info.created_at,
            mountpoint: info.mountpoint,
            mount: info.mount,
        }
    }
}

/// Answer to [`Request::Mount`] and [`Request::FlexvolumeMount`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mounted {
    /// Where the volume is.
    pub(crate) path: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_documented_form() {
        let status: Request = serde_json::from_str(r#"{"op":"status"}"#).unwrap();
        assert_eq!(status, Request::Status);
        let mount: Request = serde_json::from_str(r#"{"op":"mount","name":"cms.cern.ch"}"#).unwrap();
        assert_eq!(
            mount,
            Request::Mount { name: "cms.cern.ch".into(), options: OptionMap::new(), target: None }
        );
        let flexvolume = r#"{"op":"flexvolume-mount","driver":"cvmfs","target":"/a","options":{"kubernetes.io/secret/k":"hunter2"}}"#;
        let flexvolume: Request = serde_json::from_str(flexvolume).unwrap();
        assert!(!format!("{flexvolume:?}").contains("hunter2"), "{flexvolume:?}");
        let unmount: Request = serde_json::from_str(r#"{"op":"flexvolume-unmount","target":"/a"}"#).unwrap();
        assert_eq!(unmount, Request::FlexvolumeUnmount(UnmountRequest { target: "/a".into() }));
        for bad in [
            r#"{"op":"flexvolume-unmount","target":"/a","x":1}"#,
            r#"{"op":"mount"}"#,
            r#"{"op":"reboot"}"#,
            r#"{"op":"mount","name":"x","tag":"y"}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
    }
}
