//! Mounting, and the INIT handshake that makes a connection out of a mount.
//!
//! `fuser` does the handshake, and the way through fusermount3; after that its session is dropped and the file
//! descriptor is ours.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::device_number::{device_number_of_mount, raise_readahead};
use crate::handshake::{Handshake, Negotiated};
use crate::wire::MAX_TRANSFER_BYTES;

/// What is mounted where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// An existing directory.
    pub mountpoint: PathBuf,
    /// Shown as the source in mount tables; no NUL byte, at most 4096 bytes.
    pub fs_name: String,
    /// Shown as `fuse.<subtype>` in mount tables; letters and digits.
    pub subtype: String,
    /// Honour set-user-id and set-group-id bits. Root only.
    pub suid: bool,
    /// Let other users than the mounting one in (an unprivileged mount needs `user_allow_other` in /etc/fuse.conf).
    pub allow_other: bool,
}

impl MountOptions {
    /// A mount for all users that ignores set-user-id bits.
    pub fn new(mountpoint: impl Into<PathBuf>, fs_name: impl Into<String>) -> Self {
        Self {
            mountpoint: mountpoint.into(),
            fs_name: fs_name.into(),
            subtype: "volplane".into(),
            suid: false,
            allow_other: true,
        }
    }
}

/// Why there is no mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// /dev/fuse is missing or not allowed.
    #[error("/dev/fuse cannot be opened (is the kernel module fuse loaded?)")]
    Device(#[source] io::Error),
    /// An option has a character the mount interface has no way to quote.
    #[error("mount option {0:?} has a character that is not allowed")]
    Option(String),
    /// The kernel or fusermount3 refused to mount.
    #[error("mounting on {}", mountpoint.display())]
    Mount {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Mounted, but the kernel and we did not agree; unmounted again.
    #[error("the kernel's FUSE handshake on {}", mountpoint.display())]
    Handshake {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A FUSE connection whose INIT is done: a /dev/fuse file descriptor on which the kernel sends requests. Lives on as long
/// as some process holds a duplicate; when the last is closed, the mount answers ENOTCONN.
#[derive(Debug)]
pub struct Connection {
    fd: OwnedFd,
    device: Option<u32>,
    negotiated: Option<Negotiated>,
}

impl Connection {
    /// Mounts as root by mount(2): read-only, nodev, permissions checked by the kernel.
    pub fn mount(options: &MountOptions) -> Result<Connection, MountError> {
        let subtype = checked_subtype(&options.subtype)?;
        let fd = open_device().map_err(MountError::Device)?;
        let failed =
            |errno: Errno| MountError::Mount { mountpoint: options.mountpoint.clone(), source: errno.into() };
        let data = mount_data(fd.as_fd(), options.allow_other);
        let mut flags = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
        if !options.suid {
            flags |= MsFlags::MS_NOSUID;
        }
        mount(
            Some(options.fs_name.as_str()),
            &options.mountpoint,
            Some(format!("fuse.{subtype}").as_str()),
            flags,
            Some(data.as_str()),
        )
        .map_err(failed)?;
        match Handshake::over(fd) {
            Ok((fd, negotiated)) => Ok(Self::after_mount(fd, negotiated, &options.mountpoint)),
            Err(source) => {
                detach(&options.mountpoint);
                Err(MountError::Handshake { mountpoint: options.mountpoint.clone(), source })
            }
        }
    }

    /// Mounts through fusermount3, as any user. The guard unmounts when dropped.
    pub fn mount_unprivileged(options: &MountOptions) -> Result<(Connection, UnmountGuard), MountError> {
        let subtype = checked_subtype(&options.subtype)?;
        if options.fs_name.contains([',', '\\', '\0']) {
            return Err(MountError::Option(options.fs_name.clone()));
        }
        let (session, fd, negotiated) = Handshake::through_fusermount(options, subtype)
            .map_err(|source| MountError::Mount { mountpoint: options.mountpoint.clone(), source })?;
        let guard = UnmountGuard { session, mountpoint: options.mountpoint.clone() };
        Ok((Self::after_mount(fd, negotiated, &options.mountpoint), guard))
    }

    fn after_mount(fd: OwnedFd, negotiated: Negotiated, mountpoint: &Path) -> Self {
        let device = device_number_of_mount(mountpoint);
        if let Some(device) = device {
            raise_readahead(device, MAX_TRANSFER_BYTES);
        }
        Self { fd, device, negotiated: Some(negotiated) }
    }

    /// Takes a live connection over, for instance one whose server died.
    pub fn from_fd(fd: OwnedFd) -> Self {
        let device = crate::device_number::device_number_of_connection(fd.as_fd());
        Self { fd, device, negotiated: None }
    }

    /// Another handle of the same connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, device: self.device, negotiated: self.negotiated })
    }

    /// Minor number of the mount's st_dev: its name under /sys/fs/fuse/connections. `None` after
    /// [`Connection::from_fd`] on kernels that do not tell it in /proc/self/fdinfo.
    pub fn device_number(&self) -> Option<u32> {
        self.device
    }

    /// What the kernel agreed to; `None` after [`Connection::from_fd`].
    pub fn negotiated(&self) -> Option<Negotiated> {
        self.negotiated
    }

    /// Gives the file descriptor away.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Unmounts when dropped (lazily, so also while files are open).
pub struct UnmountGuard {
    session: fuser::Session<Handshake>,
    mountpoint: PathBuf,
}

impl UnmountGuard {
    /// Unmounts now. Fails with EBUSY while files are open and we are root; else fusermount3 unmounts lazily.
    pub fn unmount(mut self) -> io::Result<()> {
        self.session.unmount()
    }
}

impl Drop for UnmountGuard {
    fn drop(&mut self) {
        if self.session.unmount().is_err() {
            detach(&self.mountpoint);
        }
    }
}

impl std::fmt::Debug for UnmountGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("UnmountGuard").field(&self.mountpoint).finish()
    }
}

fn open_device() -> io::Result<OwnedFd> {
    // std opens with O_CLOEXEC.
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").map(OwnedFd::from)
}

fn mount_data(fd: BorrowedFd<'_>, allow_other: bool) -> String {
    use std::os::fd::AsRawFd;
    let allow_other = if allow_other { ",allow_other" } else { "" };
    // user_id and group_id are those of whoever may use the mount when allow_other is not given.
    format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{allow_other},max_read={MAX_TRANSFER_BYTES}",
        fd.as_raw_fd(),
        nix::unistd::geteuid(),
        nix::unistd::getegid(),
    )
}

fn checked_subtype(subtype: &str) -> Result<&str, MountError> {
    let sound =
        !subtype.is_empty() && subtype.len() <= 64 && subtype.bytes().all(|b| b.is_ascii_alphanumeric());
    sound.then_some(subtype).ok_or_else(|| MountError::Option(subtype.to_owned()))
}

fn detach(mountpoint: &Path) {
    if let Err(error) = umount2(mountpoint, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        tracing::warn!(mountpoint = %mountpoint.display(), %error, "not unmounted");
    }
}
