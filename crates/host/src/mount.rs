//! Bind mounts and unmounting. All functions are plain system calls that may block on a dead file system: run them
//! through [`crate::blocking::run`].
//!
//! Paths must be free of symbolic links; each is opened with `openat2(RESOLVE_NO_SYMLINKS)` and mounted through
//! `/proc/self/fd`, so nobody can put a link in the way between a check and the mount.

pub mod place;

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};

use crate::directory::{DirectoryError, open_path};
use crate::mountinfo::{MountInfoError, MountTable};

/// Why a mount operation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Somebody has a file or directory of it open, or something is mounted in it.
    #[error("{}: is in use", .0.display())]
    Busy(PathBuf),
    /// Nothing is mounted there, or the path does not exist.
    #[error("{}: nothing is mounted there", .0.display())]
    NotMounted(PathBuf),
    /// Something was mounted there, or what was there was replaced, while it was worked on.
    #[error("{}: was changed by somebody else meanwhile", .0.display())]
    Changed(PathBuf),
    /// The path cannot be used.
    #[error(transparent)]
    Path(#[from] DirectoryError),
    /// The mount table could not be read.
    #[error(transparent)]
    Table(#[from] MountInfoError),
    /// Another error of the kernel; `EPERM` is a lack of CAP_SYS_ADMIN.
    #[error("{op} {path}: {source}", path = path.display())]
    Os {
        /// The system call, in words.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn os(op: &'static str, path: &Path) -> impl FnOnce(Errno) -> MountError {
    let path = path.to_owned();
    move |errno| MountError::Os { op, path, source: errno.into() }
}

fn by_fd(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

const NOTHING: Option<&str> = None;

/// Binds the directory `source` onto the directory `target`, without what is mounted below it; read-only on request.
/// Flags that the source's mount has (`nosuid`, `nodev`, …) stay.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), MountError> {
    let (from, onto) = (open_path(source)?, open_path(target)?);
    nix::mount::mount(Some(&by_fd(&from)), &by_fd(&onto), NOTHING, MsFlags::MS_BIND, NOTHING)
        .map_err(os("bind onto", target))?;
    if !read_only {
        return Ok(());
    }
    let made_read_only = remount_read_only(target);
    if made_read_only.is_err() {
        // Not as asked for, so not at all; the first error is the one to report.
        let _ = detach(target);
    }
    made_read_only
}

fn remount_read_only(target: &Path) -> Result<(), MountError> {
    // Opened anew: now it leads to the mount that was just made.
    remount(&open_path(target)?, target, MsFlags::MS_RDONLY)
}

/// Gives the mount whose root is `made` these flags beside those that it has.
fn remount(made: &OwnedFd, target: &Path, more: MsFlags) -> Result<(), MountError> {
    let id =
        mount_id(made).map_err(|source| MountError::Os { op: "look at", path: target.into(), source })?;
    let table = MountTable::own()?;
    let entry = table.by_id(id).ok_or_else(|| MountError::NotMounted(target.to_owned()))?;
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | more | flags_of(&entry.options);
    nix::mount::mount(NOTHING, &by_fd(made), NOTHING, flags, NOTHING).map_err(os("remount", target))
}

/// The flags of a mount that a remount must name again, or it would take them away.
fn flags_of(options: &str) -> MsFlags {
    let flag = |option| match option {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        "relatime" => MsFlags::MS_RELATIME,
        _ => MsFlags::empty(),
    };
    options.split(',').map(flag).collect()
}

/// The id (as in mountinfo) of the mount that an open file is in, without asking the file system.
pub fn mount_id(file: &impl AsFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_fd().as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Unmounts the topmost mount at `path`. [`MountError::Busy`] changes nothing.
pub fn unmount(path: &Path) -> Result<(), MountError> {
    unmount_with(path, MntFlags::empty())
}

/// Takes the topmost mount at `path` out of the tree at once; who has it open keeps it.
pub fn detach(path: &Path) -> Result<(), MountError> {
    unmount_with(path, MntFlags::MNT_DETACH)
}

fn unmount_with(path: &Path, flags: MntFlags) -> Result<(), MountError> {
    let nothing = || MountError::NotMounted(path.to_owned());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(nothing()) };
    let parent = match open_path(parent) {
        Ok(parent) => parent,
        Err(DirectoryError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(nothing());
        }
        Err(error) => return Err(error.into()),
    };
    // The last part is resolved by the kernel, without following a link.
    match umount2(&by_fd(&parent).join(name), flags | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(MountError::Busy(path.to_owned())),
        Err(Errno::EINVAL | Errno::ENOENT) => Err(nothing()),
        Err(errno) => Err(os("unmount", path)(errno)),
    }
}

/// What [`share`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// The directory is on a shared mount.
    Already,
    /// It is a shared mount of its own now.
    Made,
    /// It is not on a shared mount, but mounts are below it, which a new mount over it would hide. Nothing was done.
    MountsBelow,
}

/// Sees to it that mounts made below `directory` later reach the namespaces that were cloned from ours with
/// propagation: engines and containers that run in one of those see volumes that appear after them only if the
/// volumes' parent mount is shared. systemd shares `/`; elsewhere the directory is bound onto itself and shared.
pub fn share(directory: &Path) -> Result<Sharing, MountError> {
    let opened = open_path(directory)?;
    let table = MountTable::own()?;
    let look = |source| MountError::Os { op: "look at", path: directory.into(), source };
    let covering = mount_id(&opened).map_err(look)?;
    let covering = table.by_id(covering).ok_or_else(|| MountError::NotMounted(directory.to_owned()))?;
    if covering.shared.is_some() {
        return Ok(Sharing::Already);
    }
    if covering.mountpoint != directory {
        let below = |mountpoint: &Path| mountpoint != directory && mountpoint.starts_with(directory);
        if table.entries().iter().any(|entry| below(&entry.mountpoint)) {
            return Ok(Sharing::MountsBelow);
        }
        bind(directory, directory, false)?;
    }
    let made = open_path(directory)?;
    nix::mount::mount(NOTHING, &by_fd(&made), NOTHING, MsFlags::MS_SHARED, NOTHING)
        .map_err(os("share", directory))?;
    Ok(Sharing::Made)
}

/// Aborts a FUSE connection: every request on it fails at once. `minor` is that of the mount's device number.
/// Of one that is not there: success.
pub fn abort_fuse(minor: u32) -> io::Result<()> {
    match fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), b"1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Where the file system is that tells about FUSE connections and aborts them.
const FUSE_CONTROL: &str = "/sys/fs/fuse/connections";

/// Mounts the kernel's file system of FUSE connections where it is missing, as in a container, whose /sys is its own.
/// Without it nobody can tell that a file system hangs. Answers whether it was missing.
///
/// # Errors
/// It is missing and cannot be mounted: without privileges, or without FUSE in the kernel.
pub fn provide_fuse_control() -> Result<bool, MountError> {
    let path = Path::new(FUSE_CONTROL);
    let table = MountTable::own()?;
    if table.at(path).is_some_and(|entry| entry.fs_type == "fusectl") {
        return Ok(false);
    }
    // Loads the module, if FUSE is one; the directory is there then.
    drop(fs::File::open("/dev/fuse"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("fusectl"), path, Some("fusectl"), flags, NOTHING)
        .map_err(os("mount fusectl at", path))?;
    Ok(true)
}

#[cfg(test)]
mod tests;
