//! What the registry asks of the kernel: who sees a mount, what is mounted where, and binds.
//!
//! A trait, so that the registry's rules are tested on a fake with faults and crashes. Every answer comes within a
//! deadline; one that does not come is an error, and an error never counts as "nobody sees it".

mod host_kernel;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use host::DeviceId;
use host::mount::place::{Found, Node};
use volume::Fault;

pub(crate) use self::host_kernel::HostKernel;

/// The file system at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    pub(crate) device: DeviceId,
    pub(crate) fs_type: String,
}

/// A place that a caller names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) path: PathBuf,
    /// The directory from which no link may lie on the way to it; `None`: from the root.
    pub(crate) beneath: Option<PathBuf>,
    pub(crate) node: Node,
}

/// A mount to ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Where it is mounted, if it is; the mount there is no use by itself.
    pub(crate) primary: PathBuf,
    /// Its device number when it was last seen mounted.
    pub(crate) device: Option<DeviceId>,
}

#[async_trait]
pub(crate) trait Kernel: Send + Sync {
    /// All mounts of our own namespace; of those stacked at one path the topmost one.
    async fn mounts(&self) -> Result<Vec<Mounted>, Fault>;

    /// For each one asked about: a text that says who sees it beside us, or `None` if nobody does.
    async fn seen(&self, asked: &[Asked]) -> Result<Vec<Option<String>>, Fault>;

    /// Makes the directory for a mount.
    async fn make_mountpoint(&self, path: &Path) -> Result<(), Fault>;

    /// Removes it, if it is empty and nothing is mounted there.
    async fn remove_mountpoint(&self, path: &Path);

    /// The file system mounted at one of our own mountpoints.
    async fn device_at(&self, path: &Path) -> Result<Option<DeviceId>, Fault>;

    /// What is at a spot. `InvalidArgument`: a link is in the way, or it leads out of where it must be.
    async fn find(&self, spot: &Spot) -> Result<Found, Fault>;

    /// Binds what is at `source`, on the file system `device`, onto a spot, which is made if it is missing; says whether
    /// it was. On an error nothing is left.
    async fn bind(
        &self,
        source: &Path,
        device: DeviceId,
        spot: &Spot,
        read_only: bool,
    ) -> Result<bool, Fault>;

    /// Takes a bind away, a `dead` one also if somebody has it open, and with `remove` what it was bound onto. Of one that
    /// is not there: success.
    async fn unbind(&self, spot: &Spot, dead: bool, remove: bool) -> Result<(), Fault>;

    /// Removes an empty directory or file that nothing is mounted on; what is not that stays.
    async fn remove(&self, spot: &Spot) -> Result<(), Fault>;
}

/// The mount at exactly this path.
pub(crate) fn at<'a>(mounts: &'a [Mounted], path: &Path) -> Option<&'a Mounted> {
    mounts.iter().find(|mounted| mounted.path == path)
}
