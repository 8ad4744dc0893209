//! A place that somebody else names and may tamper with: a target of kubelet's, in a directory that pods can write to.
//!
//! It is held as an open directory and a name in it. Everything (looking, making, binding, unmounting, removing) goes
//! through that directory's descriptor, so a link or a rename on the way can make an operation fail but never lead it
//! elsewhere. A bind is complete before it appears: the copy of the mount gets its flags while it is detached
//! (`open_tree`, `mount_setattr`), is then moved onto the place, and is looked up once more by its path; if that does
//! not lead to it, it is taken away again. Kernels before 5.12 cannot do that; there it is bound and then
//! remounted, through the same descriptors.
//!
//! Nothing here asks the file system that is mounted at a place, which may be dead.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::{MountError, NOTHING, by_fd, mount_id, os};
use crate::directory::{DirectoryError, open_beneath, open_path};
use crate::mountinfo::{DeviceId, MountTable};

/// What a place is, or is made to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// A directory, for a file system. What is bound is `nosuid` and `nodev`.
    Directory,
    /// An empty file, for a device node.
    File,
}

/// What was found at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing of that name, or the directory that it would be in is missing.
    Nothing,
    /// A file or directory, on which nothing is mounted.
    Plain,
    /// A mount of this file system.
    Mount(DeviceId),
}

/// The directory and the name in it.
#[derive(Debug)]
pub struct Place {
    parent: OwnedFd,
    parent_mount: u64,
    name: OsString,
    path: PathBuf,
    beneath: Option<PathBuf>,
}

/// Which mount an open file is in, and its file system's device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    mount: u64,
    device: DeviceId,
}

/// Looks without asking the file system.
fn seat(file: &impl AsFd, path: &Path) -> Result<Seat, MountError> {
    let failed = |source| MountError::Os { op: "look at", path: path.to_owned(), source };
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    // An empty mask: the number of the device and of the mount come all the same, also from a FUSE mount of a user
    // who shares it with nobody, and nothing else is asked for.
    if let Ok(found) = rustix::fs::statx(file, "", flags, StatxFlags::empty())
        && found.stx_mask & StatxFlags::MNT_ID.bits() != 0
    {
        let device = DeviceId { major: found.stx_dev_major, minor: found.stx_dev_minor };
        return Ok(Seat { mount: found.stx_mnt_id, device });
    }
    let mount = mount_id(file).map_err(failed)?;
    let table = MountTable::own()?;
    let entry = table.by_id(mount).ok_or_else(|| MountError::NotMounted(path.to_owned()))?;
    Ok(Seat { mount, device: entry.device })
}

/// The file system mounted at exactly `path` (free of links), without asking it; `None` if none is, or there is no such path.
pub fn device_at(path: &Path) -> Result<Option<DeviceId>, MountError> {
    match Place::open(path, None).and_then(|place| place.find()) {
        Ok(Found::Mount(device)) => Ok(Some(device)),
        Ok(Found::Nothing | Found::Plain) => Ok(None),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

impl MountError {
    /// Whether a part of the path does not exist.
    pub fn is_missing(&self) -> bool {
        let source = match self {
            MountError::Path(DirectoryError::Io { source, .. }) | MountError::Os { source, .. } => source,
            MountError::NotMounted(_) => return true,
            MountError::Busy(_)
            | MountError::Changed(_)
            | MountError::Path(
                DirectoryError::NotPlain(_)
                | DirectoryError::Symlink(_)
                | DirectoryError::Outside { .. }
                | DirectoryError::NotDirectory(_)
                | DirectoryError::Foreign { .. },
            )
            | MountError::Table(_) => return false,
        };
        source.kind() == io::ErrorKind::NotFound
    }
}

impl Place {
    /// Opens the directory that `path` is in. With `beneath` the way leads from there without any symbolic link; without it
    /// there is none on the whole way.
    pub fn open(path: &Path, beneath: Option<&Path>) -> Result<Place, MountError> {
        let not_plain = || DirectoryError::NotPlain(path.to_owned());
        let (above, name) = path.parent().zip(path.file_name()).ok_or_else(not_plain)?;
        let parent = match beneath {
            Some(beneath) if path == beneath => {
                return Err(
                    DirectoryError::Outside { path: path.to_owned(), beneath: beneath.to_owned() }.into()
                );
            }
            Some(beneath) => open_beneath(above, beneath)?,
            None => open_path(above)?,
        };
        let kind = fstat(&parent).map_err(os("look at", above))?.st_mode;
        if SFlag::from_bits_truncate(kind) & SFlag::S_IFMT != SFlag::S_IFDIR {
            return Err(DirectoryError::NotDirectory(above.to_owned()).into());
        }
        let parent_mount = seat(&parent, above)?.mount;
        Ok(Place {
            parent,
            parent_mount,
            name: name.to_owned(),
            path: path.to_owned(),
            beneath: beneath.map(Path::to_owned),
        })
    }

    /// Opens what is there, the topmost mount if there is one.
    fn enter(&self) -> Result<OwnedFd, MountError> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        for _ in 0..16 {
            match openat2(&self.parent, self.name.as_os_str(), how) {
                Ok(fd) => return Ok(fd),
                Err(Errno::EAGAIN) => {}
                Err(Errno::ELOOP) => return Err(DirectoryError::Symlink(self.path.clone()).into()),
                Err(errno) => return Err(os("open", &self.path)(errno)),
            }
        }
        Err(os("open", &self.path)(Errno::EAGAIN))
    }

    /// Looks.
    pub fn find(&self) -> Result<Found, MountError> {
        let there = match self.enter() {
            Ok(there) => there,
            Err(error) if error.is_missing() => return Ok(Found::Nothing),
            Err(error) => return Err(error),
        };
        let seat = seat(&there, &self.path)?;
        // One step down from its directory there is another mount only if it is the root of that mount.
        Ok(if seat.mount == self.parent_mount { Found::Plain } else { Found::Mount(seat.device) })
    }

    /// Makes the directory (mode 0755) or the empty file (mode 0644); `false` if there is something already.
    fn make(&self, node: Node) -> Result<bool, MountError> {
        let made = match node {
            Node::Directory => mkdirat(&self.parent, self.name.as_os_str(), Mode::from_bits_truncate(0o755)),
            Node::File => {
                let flags =
                    OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                let mode = Mode::from_bits_truncate(0o644);
                nix::fcntl::openat(&self.parent, self.name.as_os_str(), flags, mode).map(drop)
            }
        };
        match made {
            Ok(()) => Ok(true),
            Err(Errno::EEXIST) => Ok(false),
            Err(errno) => Err(os("make", &self.path)(errno)),
        }
    }

    /// Removes the empty directory or empty file; what is not empty, or mounted, stays. Of what is not there: success.
    pub fn remove(&self, node: Node) -> Result<(), MountError> {
        let removed = match node {
            Node::Directory => unlinkat(&self.parent, self.name.as_os_str(), UnlinkatFlags::RemoveDir),
            Node::File => {
                let there = match self.enter() {
                    Ok(there) => there,
                    Err(error) if error.is_missing() => return Ok(()),
                    Err(error) => return Err(error),
                };
                let mounted = seat(&there, &self.path)?.mount != self.parent_mount;
                let found = fstat(&there).map_err(os("look at", &self.path))?;
                let regular = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
                if mounted || !regular || found.st_size != 0 {
                    return Err(MountError::Busy(self.path.clone()));
                }
                unlinkat(&self.parent, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir)
            }
        };
        match removed {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EBUSY | Errno::ENOTEMPTY | Errno::EEXIST) => Err(MountError::Busy(self.path.clone())),
            Err(errno) => Err(os("remove", &self.path)(errno)),
        }
    }

    /// Binds `source` (a directory, or the device node of a [`Node::File`]) onto the place, which is made if it is
    /// missing; says whether it was. `device` is the file system that `source` must be on: if another one is there by now,
    /// nothing is bound ([`MountError::Changed`]). On an error nothing is left.
    pub fn bind(
        &self,
        source: &Path,
        device: DeviceId,
        node: Node,
        read_only: bool,
    ) -> Result<bool, MountError> {
        let from = open_path(source)?;
        if seat(&from, source)?.device != device {
            return Err(MountError::Changed(source.to_owned()));
        }
        let made = self.make(node)?;
        let bound = self.bind_open(&from, node, read_only);
        if bound.is_err() && made {
            // The first error is the one to report.
            let _ = self.remove(node);
        }
        bound.map(|()| made)
    }

    fn bind_open(&self, from: &OwnedFd, node: Node, read_only: bool) -> Result<(), MountError> {
        let onto = self.enter()?;
        if seat(&onto, &self.path)?.mount != self.parent_mount {
            return Err(MountError::Changed(self.path.clone()));
        }
        // The kernel has one EINVAL for this and for much else.
        let mode = fstat(&onto).map_err(os("look at", &self.path))?.st_mode;
        let is_directory = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        match (node, is_directory) {
            (Node::Directory, true) | (Node::File, false) => {}
            (Node::Directory, false) => return Err(DirectoryError::NotDirectory(self.path.clone()).into()),
            (Node::File, true) => return Err(os("bind a device onto", &self.path)(Errno::EISDIR)),
        }
        let made = match clone_mount(from, node, read_only) {
            Ok(tree) => {
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                rustix::mount::move_mount(&tree, "", &onto, "", flags)
                    .map_err(|errno| os("bind onto", &self.path)(Errno::from_raw(errno.raw_os_error())))?;
                tree
            }
            Err(Errno::ENOSYS) => self.bind_and_remount(from, &onto, node, read_only)?,
            Err(errno) => return Err(os("copy the mount for", &self.path)(errno)),
        };
        let wanted = seat(&made, &self.path)?;
        // By the path once more, from its beginning: somebody may have moved the place while it was bound.
        let again = Place::open(&self.path, self.beneath.as_deref()).and_then(|place| place.enter());
        if again.and_then(|there| seat(&there, &self.path)).is_ok_and(|seat| seat == wanted) {
            return Ok(());
        }
        let _ = umount2(&by_fd(&made), MntFlags::MNT_DETACH);
        Err(MountError::Changed(self.path.clone()))
    }

    /// For kernels that cannot set a detached mount's flags.
    fn bind_and_remount(
        &self,
        from: &OwnedFd,
        onto: &OwnedFd,
        node: Node,
        read_only: bool,
    ) -> Result<OwnedFd, MountError> {
        nix::mount::mount(Some(&by_fd(from)), &by_fd(onto), NOTHING, MsFlags::MS_BIND, NOTHING)
            .map_err(os("bind onto", &self.path))?;
        let made = self.enter()?;
        let remounted = super::remount(&made, &self.path, flags(node, read_only));
        if remounted.is_err() {
            let _ = umount2(&by_fd(&made), MntFlags::MNT_DETACH);
        }
        remounted.map(|()| made)
    }

    /// Unmounts the topmost mount; with `detach` also one that is in use. [`MountError::Busy`] changes nothing.
    pub fn unmount(&self, detach: bool) -> Result<(), MountError> {
        let flags = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
        // The last part is resolved by the kernel, without following a link.
        match umount2(&by_fd(&self.parent).join(OsStr::new(&self.name)), flags | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::EBUSY) => Err(MountError::Busy(self.path.clone())),
            Err(Errno::EINVAL | Errno::ENOENT) => Err(MountError::NotMounted(self.path.clone())),
            Err(errno) => Err(os("unmount", &self.path)(errno)),
        }
    }
}

fn flags(node: Node, read_only: bool) -> MsFlags {
    let mut flags = match node {
        Node::Directory => MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Node::File => MsFlags::MS_NOSUID,
    };
    flags.set(MsFlags::MS_RDONLY, read_only);
    flags
}

/// A detached copy of the mount that `from` is in, rooted there; the source's own flags stay.
fn clone_mount(from: &OwnedFd, node: Node, read_only: bool) -> Result<OwnedFd, Errno> {
    let how =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree =
        rustix::mount::open_tree(from, "", how).map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
    let wanted = flags(node, read_only);
    let bit = |flag, attribute: u64| if wanted.contains(flag) { attribute } else { 0 };
    let attributes = libc::mount_attr {
        attr_set: bit(MsFlags::MS_RDONLY, libc::MOUNT_ATTR_RDONLY)
            | bit(MsFlags::MS_NOSUID, libc::MOUNT_ATTR_NOSUID)
            | bit(MsFlags::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a NUL-terminated literal, `attributes` lives over the call and its size is passed with it; the
    // kernel only reads both (mount_setattr(2)).
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(answer).map(|_| tree)
}

#[cfg(test)]
mod tests;
