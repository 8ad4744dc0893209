//! How a backend has a mount served by a process of its own, without knowing how processes are made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::{Driver, Fault, MountKey, Sample, Survivor};

/// What a backend asks of the pool.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LaunchRequest {
    /// Identity of the mount; one worker per key.
    pub key: MountKey,
    /// Which backend's code the worker runs.
    pub driver: Driver,
    /// Where the pool mounts the FUSE file system (an existing directory).
    pub mountpoint: PathBuf,
    /// The backend's own JSON for its code in the worker. No secrets.
    pub payload: serde_json::Value,
    /// Directories that the worker may read and write (its cache); everything else is closed to it. Made by the pool,
    /// owned by the worker's user, mode 0700.
    pub writable: Vec<PathBuf>,
    /// Files and directories that it may read beside the system's own (resolv.conf, hosts, time zone).
    pub readable: Vec<PathBuf>,
    /// Mount option `nosuid` off: honour setuid bits (`CVMFS_SUID`).
    pub suid: bool,
    /// Source shown in the mount table, for example `cms.cern.ch`.
    pub fs_name: String,
}

/// A mount that is served.
#[derive(Debug, Clone, PartialEq)]
pub struct Launched {
    /// Identity of the mount.
    pub key: MountKey,
    /// The worker's first report.
    pub report: WorkerReport,
}

/// What a worker says of itself when it is asked: by the pool every few seconds, and for each `status`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct WorkerReport {
    /// Process id, filled in by the pool; 0 while the pool restarts it.
    pub pid: i32,
    /// How often the pool started a worker again for this mount.
    pub restarts: u64,
    /// What is served now, for people: `revision 6 (hash …)`.
    pub revision: Option<String>,
    /// `None` is healthy, else what is wrong and what to do.
    pub trouble: Option<String>,
    /// The newest error, with its time.
    pub last_error: Option<String>,
    /// Further values by name: `cache_bytes`, `open_files`, `nodes`.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
    /// Values for the metrics endpoint.
    #[serde(default)]
    pub samples: Vec<Sample>,
}

/// A mount that was taken down here while another mount namespace still holds it; its worker serves on.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Released {
    /// The identity that it had; another mount may have it now.
    pub key: MountKey,
    /// When it was taken down, or found by this daemon: `2026-01-02T03:04:05Z`.
    pub since: String,
    /// Process that serves it, if one runs.
    pub worker_pid: Option<i32>,
    /// How often a worker was started again for it.
    pub restarts: u64,
    /// What is wrong, if anything is.
    pub trouble: Option<String>,
}

/// Worker processes that serve FUSE mounts and outlive the daemon. Implemented by `supervisor`.
#[async_trait]
pub trait WorkerPool: Send + Sync {
    /// Starts a worker, lets it prepare (verify, open), mounts, and hands the mount over. On an error nothing is left
    /// mounted and no process runs; the fault is the worker's own where it had one.
    async fn launch(&self, request: LaunchRequest) -> Result<Launched, Fault>;

    /// The newest report; `None` when the pool has no such mount. `Err` when the mount is there but given up.
    async fn report(&self, key: &MountKey) -> Option<Result<WorkerReport, Fault>>;

    /// Asks the worker to look for changes now.
    async fn refresh(&self, key: &MountKey) -> Result<(), Fault>;

    /// Unmounts and ends the worker. [`crate::FaultKind::InUse`] when the kernel says busy. Of what is not there: success.
    /// A dead mount at `mountpoint` is cleaned away. While another mount namespace holds the file system the worker goes
    /// on ([`WorkerPool::released`]); the key is free all the same.
    async fn stop(&self, key: &MountKey, mountpoint: &Path) -> Result<(), Fault>;

    /// Adopts the workers and fds that outlived the daemon's last life; finds dead mounts of ours.
    async fn survivors(&self, driver: Driver) -> Vec<Survivor>;

    /// Mounts that were stopped but are still held elsewhere. A pool that has no such mounts has none.
    async fn released(&self) -> Vec<Released> {
        Vec::new()
    }
}
