//! Where and how a volume appears for its user.

use std::path::PathBuf;

/// A place that the caller names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindTarget {
    /// Absolute path; it exists, or its parent does. Made and removed by us: a directory, or a file for a
    /// [`Form::Block`] volume.
    pub path: PathBuf,
    /// The directory that the target must be in without any symbolic link on the way from it (kubelet's root
    /// directory); the directory itself may be reached through links. `None`: anywhere.
    pub beneath: Option<PathBuf>,
    /// Whether writing is refused through this target (the mount itself may refuse it anyway). The kernel does not keep
    /// anybody from writing to a device through a read-only bind of its node: for [`Form::Block`] the backend must have
    /// mapped it so.
    pub read_only: bool,
    /// Who else may use the volume.
    pub sharing: Sharing,
}

impl BindTarget {
    /// A directory anywhere, read-only, shared.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        BindTarget { path: path.into(), beneath: None, read_only: true, sharing: Sharing::Shared }
    }
}

/// How a target may stand beside others of the same volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// A staging place: not a use of its own. Always a directory; of a [`Form::Block`] volume it shows the directory with the
    /// device in it.
    Staging,
    /// Beside any others but a `Single` one.
    Shared,
    /// Alone on this node: a second target of the volume (same frontend, same [`crate::RefId`] scope, not staging) is
    /// [`crate::FaultKind::InUse`] (CSI SINGLE_NODE_SINGLE_WRITER).
    Single,
}

/// What a volume is for its user: a tree of files or a device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
pub enum Form {
    /// A file system, bound as a directory.
    Filesystem {
        /// Wanted type (`ext4`, `xfs`); `None`: the backend's own.
        fs_type: Option<String>,
        /// Mount options of the user (`noatime`).
        mount_flags: Vec<String>,
        /// Group that files belong to (CSI `volume_mount_group`, kubelet's fsGroup).
        group: Option<u32>,
    },
    /// The block device, bound as a file. The backend's attach leaves a device node `device` in the mountpoint (on a
    /// small file system of its own), which is what is bound.
    Block,
}

/// Name of the node that a [`Form::Block`] mount shows in its mountpoint.
pub const DEVICE_NODE: &str = "device";

impl Default for Form {
    fn default() -> Self {
        Form::Filesystem { fs_type: None, mount_flags: Vec::new(), group: None }
    }
}
