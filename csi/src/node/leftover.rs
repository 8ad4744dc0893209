//! What is left of a target that nobody refers to: an empty directory (or file, of a device) that an earlier life made.
//!
//! After a reboot the mounts are gone, kubelet's directories are not, and NodeUnpublishVolume has to remove the target. It
//! is found without following any symbolic link below kubelet's directory (the path runs through pods' directories), and
//! only what is empty is removed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use tonic::Status;

/// Longest time for looking; a dead network file system above the target could take for ever.
const LIMIT: Duration = Duration::from_secs(10);

/// Removes `target`, which is below `kubelet_dir`, if it is an empty directory or file. What is not there is success.
pub(super) async fn remove(kubelet_dir: &Path, target: &Path) -> Result<(), Status> {
    let (kubelet_dir, owned) = (kubelet_dir.to_owned(), target.to_owned());
    let work = tokio::task::spawn_blocking(move || remove_now(&kubelet_dir, &owned));
    let failed = |detail: String| Status::internal(format!("target_path {}: {detail}", target.display()));
    match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(Ok(()))) => Ok(()),
        // Somebody else's mount or files: kubelet looks itself, and says so where its user sees it.
        Ok(Ok(Err(Errno::EBUSY))) => Err(Status::failed_precondition(format!(
            "target_path {}: something else is mounted there; unmount it",
            target.display()
        ))),
        Ok(Ok(Err(Errno::ENOTEMPTY | Errno::EEXIST))) => Err(Status::failed_precondition(format!(
            "target_path {}: is not empty, and what it holds is not the volume",
            target.display()
        ))),
        Ok(Ok(Err(Errno::ELOOP | Errno::EXDEV))) => Err(Status::invalid_argument(format!(
            "target_path {}: leads through a symbolic link",
            target.display()
        ))),
        Ok(Ok(Err(errno))) => Err(failed(format!("cannot be removed: {errno}"))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(Status::unavailable(format!(
            "target_path {}: the file system does not answer",
            target.display()
        ))),
    }
}

fn remove_now(kubelet_dir: &Path, target: &Path) -> Result<(), Errno> {
    let below: PathBuf = match target.strip_prefix(kubelet_dir) {
        Ok(below) => below.to_owned(),
        Err(_) => return Err(Errno::EXDEV),
    };
    let (Some(parent), Some(name)) = (below.parent(), below.file_name()) else { return Err(Errno::EXDEV) };
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let how = OpenHow::new().flags(flags).resolve(
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    );
    let opened = open(kubelet_dir, flags, Mode::empty()).and_then(|root| openat2(&root, parent, how));
    let parent = match opened {
        Ok(parent) => parent,
        // A name that is too long is nowhere.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    // AT_NO_AUTOMOUNT and no follow: the target itself may be anything.
    let at = match fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT) {
        Ok(at) => at,
        Err(Errno::ENOENT | Errno::ENAMETOOLONG) => return Ok(()),
        // A dead mount of whomever.
        Err(Errno::ENOTCONN) => return Err(Errno::EBUSY),
        Err(errno) => return Err(errno),
    };
    let kind = SFlag::from_bits_truncate(at.st_mode) & SFlag::S_IFMT;
    let removed = if kind == SFlag::S_IFDIR {
        unlinkat(&parent, name, UnlinkatFlags::RemoveDir)
    } else if kind == SFlag::S_IFLNK {
        return Err(Errno::ELOOP);
    } else if kind == SFlag::S_IFREG && at.st_size > 0 {
        return Err(Errno::ENOTEMPTY);
    } else {
        unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)
    };
    match removed {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn only_what_is_empty_and_reached_without_links_goes() {
        let directory = tempfile::tempdir().unwrap();
        let kubelet = directory.path().join("kubelet");
        let outside = directory.path().join("outside");
        std::fs::create_dir_all(kubelet.join("pods/a/mount")).unwrap();
        std::fs::create_dir_all(outside.join("mount")).unwrap();
        symlink(&outside, kubelet.join("pods/link")).unwrap();
        symlink(outside.join("mount"), kubelet.join("pods/target")).unwrap();
        std::fs::create_dir_all(kubelet.join("pods/full/precious")).unwrap();
        std::fs::write(kubelet.join("pods/device"), "").unwrap();

        let gone = |part: &'static str| {
            let (kubelet, target) = (kubelet.clone(), kubelet.join(part));
            async move { remove(&kubelet, &target).await.map_err(|status| status.code()) }
        };
        assert_eq!(gone("pods/a/mount").await, Ok(()));
        assert!(!kubelet.join("pods/a/mount").exists());
        assert_eq!(gone("pods/a/mount").await, Ok(()));
        assert_eq!(gone("pods/nobody/mount").await, Ok(()));
        let long: &str = Box::leak("x".repeat(300).into_boxed_str());
        assert_eq!(gone(long).await, Ok(()));
        assert_eq!(gone("pods/device").await, Ok(()));
        assert_eq!(gone("pods/link/mount").await, Err(Code::InvalidArgument));
        assert_eq!(gone("pods/target").await, Err(Code::InvalidArgument));
        assert_eq!(gone("pods/full").await, Err(Code::FailedPrecondition));
        assert!(outside.join("mount").exists() && kubelet.join("pods/full/precious").exists());
    }
}
