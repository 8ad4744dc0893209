//! The operations of the control socket that are FlexVolume's (`proto/control.md`), as both ends have them.

use serde::{Deserialize, Serialize};
use volume::{Driver, RefId};

use crate::KubeletOptions;

/// `flexvolume-mount`: makes a volume available at a pod's directory. The answer's `ok` is `{"path"}`; the mount counts
/// when the client has sent `flexvolume-keep` on the same connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    /// Whose volume.
    pub driver: Driver,
    /// Absolute path of the directory.
    pub target: String,
    /// What kubelet gave, as it gave it.
    #[serde(default)]
    pub options: KubeletOptions,
}

/// `flexvolume-unmount`: takes back what is at a directory. Of what is not mounted: success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnmountRequest {
    /// What `flexvolume-mount` was given.
    pub target: String,
}

/// Who uses a volume: the directory.
pub(crate) fn reference(target: &str) -> RefId {
    RefId { frontend: volume::Frontend::Flexvolume, scope: target.to_owned(), id: target.to_owned() }
}

/// What the executable asks. The daemon's own list has more (`daemon/src/control/protocol.rs`).
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Question<'a> {
    Hello,
    FlexvolumeMount(&'a MountRequest),
    FlexvolumeKeep,
    FlexvolumeUnmount(&'a UnmountRequest),
}
