//! How the command line speaks to the daemon: JSON messages on the unix socket `<run_dir>/control.sock`.
//!
//! A message is a length (4 bytes, big-endian, at most 1 MiB) and that many bytes of JSON. A client sends one [`Request`] and reads
//! one [`Response`]; then it may send the next. The socket has mode 0600: whoever can connect is root. `proto/control.md` tells the
//! same to those who write other clients.

mod client;
mod server;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use volume::{Fault, MountStatus, OptionMap, VolumeName, VolumeSpec};

pub(crate) use client::{ClientError, call};
pub(crate) use server::serve;

/// Longest message.
pub(crate) const MAX_MESSAGE_BYTES: u32 = 1 << 20;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// All mounts.
    Status,
    /// Mount a volume (a defined one of that name, or one described by name and options) onto `target`.
    Mount {
        /// Name as of a Docker volume.
        name: String,
        /// Options as of `docker volume create -o`.
        options: OptionMap,
        /// Absolute path.
        target: PathBuf,
    },
    /// Take away what `mount` made.
    Umount {
        /// Absolute path.
        target: PathBuf,
    },
    /// All defined volumes.
    VolumeList,
    /// Define a volume.
    VolumeCreate {
        /// Its name.
        name: VolumeName,
        /// Its options.
        options: OptionMap,
    },
    /// Forget a volume.
    VolumeRemove {
        /// Its name.
        name: VolumeName,
    },
    /// One volume.
    VolumeInspect {
        /// Its name.
        name: VolumeName,
    },
    /// Look for new revisions now.
    Refresh,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Response {
    /// To `status`.
    Status(Status),
    /// To `volume-list` and `volume-inspect`.
    Volumes(Vec<Volume>),
    /// Done, nothing to tell.
    Done,
    /// It failed.
    Fault(Fault),
}

/// What `volplane status --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The daemon's version.
    pub(crate) version: String,
    /// The daemon's process id.
    pub(crate) pid: u32,
    /// All mounts, by key.
    pub(crate) mounts: Vec<MountStatus>,
}

/// A defined volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) name: VolumeName,
    pub(crate) spec: VolumeSpec,
    pub(crate) options: OptionMap,
    /// Seconds since 1970, UTC.
    pub(crate) created_at: u64,
    pub(crate) mountpoint: Option<PathBuf>,
    pub(crate) mount: Option<MountStatus>,
}

impl From<volume::VolumeInfo> for Volume {
    fn from(info: volume::VolumeInfo) -> Self {
        let volume::VolumeInfo { name, spec, options, created_at, mountpoint, mount } = info;
        Volume { name, spec, options, created_at, mountpoint, mount }
    }
}
