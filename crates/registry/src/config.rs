//! What a registry is told at start.

use std::path::PathBuf;
use std::time::Duration;

/// Places and bounds. [`RegistryConfig::new`] has the defaults; each field may be changed after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Directory of the journal (`registry.db`); made with mode 0700.
    pub state_dir: PathBuf,
    /// Directory of the mountpoints (`<run_dir>/mounts`); made with mode 0755, must be ours.
    pub mount_dir: PathBuf,
    /// Share `mount_dir` with namespaces that follow ours, by a mount of it onto itself where nothing above it is
    /// shared ([`host::mount::share`]). That mount goes with [`crate::Registry::shutdown`].
    pub share_mount_dir: bool,
    /// Longest time for an acquire, with all waiting. Docker gives up after 120 s.
    pub acquire: Duration,
    /// Longest time for a release, a definition or a removal, with all waiting. Docker gives up after 60 s.
    pub release: Duration,
    /// Longest time for a backend to take a mount down, and for `survivors` at start.
    pub detach: Duration,
    /// Longest time for a backend's look at a mount.
    pub inspect: Duration,
    /// Longest time for one question to the kernel.
    pub kernel: Duration,
    /// How long a Docker reference lives that nobody renews, while no namespace shows the mount.
    pub grace: Duration,
    /// How long a mount is kept whose caller went away while it was made: Podman gives up after 5 s and comes again.
    pub linger: Duration,
    /// Time between two sweeps (unused mounts, forgotten references, Podman's dead mounts).
    pub sweep_every: Duration,
    /// Time between two looks at every mount.
    pub inspect_every: Duration,
}

impl RegistryConfig {
    /// The defaults for these two directories.
    pub fn new(state_dir: impl Into<PathBuf>, mount_dir: impl Into<PathBuf>) -> Self {
        RegistryConfig {
            state_dir: state_dir.into(),
            mount_dir: mount_dir.into(),
            share_mount_dir: false,
            acquire: Duration::from_secs(110),
            release: Duration::from_secs(50),
            detach: Duration::from_secs(30),
            inspect: Duration::from_secs(3),
            kernel: Duration::from_secs(10),
            grace: Duration::from_secs(600),
            linger: Duration::from_secs(60),
            sweep_every: Duration::from_secs(15),
            inspect_every: Duration::from_secs(2),
        }
    }
}
