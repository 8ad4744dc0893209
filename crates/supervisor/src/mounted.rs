//! What the kernel knows about a FUSE mount, asked without touching the mount itself (which could hang).

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use host::MountTable;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// The type of our mounts in mount tables.
const FS_TYPE: &str = "fuse.volplane";

/// Whether the kernel has closed the connection: unmounted everywhere, or aborted.
pub(crate) fn is_gone(connection: &fuse::Connection) -> bool {
    is_gone_within(connection, Duration::ZERO)
}

/// The same, waiting for it.
pub(crate) fn is_gone_within(connection: &fuse::Connection, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut polled = [PollFd::new(connection.as_fd(), PollFlags::empty())];
        match nix::poll::poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {}
            Ok(ready) => {
                let over = |events: PollFlags| events.contains(PollFlags::POLLERR);
                return ready > 0 && polled[0].revents().is_some_and(over);
            }
            Err(_) => return false,
        }
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
