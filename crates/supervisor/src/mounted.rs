//! What the kernel knows about a FUSE mount, asked without touching the mount itself (which could hang).

use std::os::fd::AsFd;
use std::path::Path;

use host::MountTable;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// The type of our mounts in mount tables.
const FS_TYPE: &str = "fuse.volplane";

/// Whether the kernel has closed the connection: unmounted everywhere, or aborted.
pub(crate) fn is_gone(connection: &fuse::Connection) -> bool {
    let mut polled = [PollFd::new(connection.as_fd(), PollFlags::empty())];
    match nix::poll::poll(&mut polled, PollTimeout::ZERO) {
        Ok(_) => polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)),
        Err(_) => false,
    }
}

/// Requests that the kernel has for the connection and that are not answered; `None` where the kernel does not tell
/// (no fusectl file system mounted).
pub(crate) fn waiting_requests(connection: &fuse::Connection) -> Option<u64> {
    let path = format!("/sys/fs/fuse/connections/{}/waiting", connection.device_number()?);
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Device number (minor) of the mount of ours at this path.
pub(crate) fn device_at(mountpoint: &Path) -> Option<u32> {
    let table = MountTable::own().ok()?;
    let entry = table.at(mountpoint)?;
    (entry.fs_type == FS_TYPE).then_some(entry.device.minor)
}

/// Ends a connection: all its requests fail at once.
pub(crate) fn abort(device: Option<u32>) {
    let Some(device) = device else { return };
    if let Err(error) = host::mount::abort_fuse(device) {
        tracing::debug!(device, %error, "the connection could not be aborted; closing it does the same");
    }
}

/// Takes a dead mount out of the mount table, whoever is in it.
pub(crate) fn detach(mountpoint: &Path) {
    if device_at(mountpoint).is_none() {
        return;
    }
    if let Err(error) = host::mount::detach(mountpoint) {
        tracing::warn!(mountpoint = %mountpoint.display(), %error, "a dead mount could not be detached");
    }
}
