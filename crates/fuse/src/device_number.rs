//! The number under which the kernel keeps a mount: st_dev, /sys/fs/fuse/connections, /sys/class/bdi.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Minor number of the st_dev of what is mounted on `mountpoint`, found without asking the file system, whose server
/// need not run yet.
pub(crate) fn device_number_of_mount(mountpoint: &Path) -> Option<u32> {
    let path = CString::new(mountpoint.as_os_str().as_bytes()).ok()?;
    // SAFETY: all-zero bytes are a valid statx buffer (plain integers).
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: `path` ends with a NUL byte and `stat` is a statx buffer; both live over the call.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, 0, &raw mut stat) };
    (result == 0 && stat.stx_dev_major == 0).then_some(stat.stx_dev_minor)
}

/// The same from the connection's file descriptor; recent kernels tell it in fdinfo.
pub(crate) fn device_number_of_connection(fd: BorrowedFd<'_>) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("fuse_connection:")?.trim().parse().ok())
}

/// Lets the kernel read ahead further than the 128 KiB it offers at INIT. Needs root and a writable /sys; without, reading
/// in sequence is slower and nothing else.
pub(crate) fn raise_readahead(device: u32, bytes: u32) {
    let path = format!("/sys/class/bdi/0:{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, (bytes / 1024).to_string()) {
        tracing::debug!(path, %error, "readahead stays as it is");
    }
}
