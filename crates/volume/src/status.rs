//! What a person or a program sees of a mount from outside.

use std::path::PathBuf;

use crate::{Driver, MountKey, RefId};

/// The life of a mount (design: Registry rules).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountState {
    /// Not there.
    Absent,
    /// Being made.
    Attaching,
    /// There and answering.
    Live,
    /// There but dead, or its worker was given up: detached and attached anew at the next acquire.
    Stale,
    /// Being taken down.
    Detaching,
}

impl MountState {
    /// The word in `status`, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            MountState::Absent => "absent",
            MountState::Attaching => "attaching",
            MountState::Live => "live",
            MountState::Stale => "stale",
            MountState::Detaching => "detaching",
        }
    }
}

/// One mount as `volplane status --json` shows it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct MountStatus {
    /// Identity of the mount.
    pub key: MountKey,
    /// The backend's driver name.
    pub backend: Driver,
    /// State in the registry.
    pub state: MountState,
    /// Where it is mounted on the host.
    pub mountpoint: PathBuf,
    /// Process that serves it, if one runs.
    pub worker_pid: Option<i32>,
    /// Text forms of all references ([`RefId`]), sorted.
    #[serde(with = "refs_as_text")]
    pub references: Vec<RefId>,
    /// Whether some process still sees the mount although no reference is left.
    pub in_use_without_reference: bool,
    /// The newest error in the life of this mount, with its time, if any.
    pub last_error: Option<String>,
    /// Repository revision or the like; what the worker reports.
    pub revision: Option<String>,
    /// `healthy`, or a sentence that says what is wrong.
    pub health: String,
    /// How often a worker was started again for this mount.
    pub restarts: u64,
    /// Further values of the worker (cache use, open files, …) by name.
    #[serde(default)]
    pub details: std::collections::BTreeMap<String, String>,
}

mod refs_as_text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::RefId;

    pub(super) fn serialize<S: Serializer>(refs: &[RefId], out: S) -> Result<S::Ok, S::Error> {
        refs.iter().map(RefId::to_string).collect::<Vec<_>>().serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RefId>, D::Error> {
        Vec::<String>::deserialize(from)?.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}

/// One value for the metrics endpoint. `name` is declared in the daemon's metrics table with unit and meaning.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sample {
    /// Metric name without prefix, for example `cvmfs_fetches_total`.
    pub name: String,
    /// Label pairs beside the mount's own.
    #[serde(default)]
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}
