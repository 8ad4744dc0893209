//! What the registry asks of the kernel: who sees a mount, what is mounted where, and binds.
//!
//! A trait, so that the registry's rules are tested on a fake with faults and crashes. Every answer comes within a
//! deadline; one that does not come is an error, and an error never counts as "nobody sees it".

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use host::blocking::{self, BlockingError};
use host::directory::DirectoryError;
use host::mount::MountError;
use host::mountinfo::MountInfoError;
use host::namespaces::Survey;
use host::{DeviceId, MountTable};
use volume::{Fault, FaultKind};

/// The file system at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounted {
    pub(crate) path: PathBuf,
    pub(crate) device: DeviceId,
    pub(crate) fs_type: String,
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

    /// Makes the directory for a bind if it is missing; says whether it was.
    async fn make_target(&self, path: &Path) -> Result<bool, Fault>;

    /// Binds read-only.
    async fn bind(&self, source: &Path, target: &Path) -> Result<(), Fault>;

    /// Takes a bind away; `dead` ones also if somebody has them open. Of one that is not there: success.
    async fn unbind(&self, target: &Path, dead: bool) -> Result<(), Fault>;
}

/// The mount at exactly this path.
pub(crate) fn at<'a>(mounts: &'a [Mounted], path: &Path) -> Option<&'a Mounted> {
    mounts.iter().find(|mounted| mounted.path == path)
}

/// The real one.
#[derive(Debug)]
pub(crate) struct HostKernel {
    /// For each call.
    pub(crate) deadline: Duration,
    /// The directory of all our mountpoints.
    pub(crate) mount_dir: PathBuf,
}

impl HostKernel {
    async fn call<T: Send + 'static>(
        &self,
        op: &'static str,
        call: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        match blocking::run("kernel", self.deadline, call).await {
            Ok(answer) => answer,
            Err(error) => {
                let kind = match error {
                    BlockingError::Deadline { .. } => FaultKind::DeadlineExceeded,
                    BlockingError::TooMany(_) | BlockingError::Thread(_) => FaultKind::ResourceExhausted,
                };
                Err(Fault::new(kind, op, "", error.to_string()))
            }
        }
    }
}

fn table_fault(error: &MountInfoError) -> Fault {
    Fault::new(FaultKind::Internal, "read mount tables", "", error.to_string())
}

fn directory_fault(op: &str, error: &DirectoryError) -> Fault {
    let kind = match error {
        DirectoryError::NotPlain(_) | DirectoryError::Symlink(_) | DirectoryError::NotDirectory(_) => {
            FaultKind::InvalidArgument
        }
        DirectoryError::Foreign { .. } => FaultKind::PermissionDenied,
        DirectoryError::Io { source, .. } => io_kind(source),
    };
    Fault::new(kind, op, "", error.to_string())
}

fn io_kind(error: &std::io::Error) -> FaultKind {
    match error.kind() {
        std::io::ErrorKind::NotFound => FaultKind::NotFound,
        std::io::ErrorKind::PermissionDenied => FaultKind::PermissionDenied,
        std::io::ErrorKind::StorageFull => FaultKind::ResourceExhausted,
        _ => FaultKind::Internal,
    }
}

fn mount_fault(op: &str, error: &MountError) -> Fault {
    let kind = match error {
        MountError::Busy(_) => FaultKind::InUse,
        MountError::NotMounted(_) => FaultKind::NotFound,
        MountError::Path(error) => return directory_fault(op, error),
        MountError::Table(error) => return table_fault(error),
        MountError::Os { source, .. } => io_kind(source),
    };
    Fault::new(kind, op, "", error.to_string())
}

#[async_trait]
impl Kernel for HostKernel {
    async fn mounts(&self) -> Result<Vec<Mounted>, Fault> {
        let read = || {
            let table = MountTable::own().map_err(|error| table_fault(&error))?;
            let mounted = |entry: &host::MountEntry| Mounted {
                path: entry.mountpoint.clone(),
                device: entry.device,
                fs_type: entry.fs_type.clone(),
            };
            // A mount on the very root of another one hides it.
            let places: std::collections::HashSet<_> =
                table.entries().iter().map(|entry| (entry.parent_id, entry.mountpoint.as_path())).collect();
            let top =
                |entry: &&host::MountEntry| !places.contains(&(entry.mount_id, entry.mountpoint.as_path()));
            Ok(table.entries().iter().filter(top).map(mounted).collect())
        };
        self.call("read the mount table", read).await
    }

    async fn seen(&self, asked: &[Asked]) -> Result<Vec<Option<String>>, Fault> {
        let (asked, mount_dir) = (asked.to_vec(), self.mount_dir.clone());
        self.call("ask all mount namespaces", move || {
            let survey = Survey::take().map_err(|error| table_fault(&error))?;
            if survey.unreadable() > 0 {
                let detail = format!(
                    "{} processes do not let their mounts be read (CAP_SYS_PTRACE is needed)",
                    survey.unreadable()
                );
                return Err(Fault::new(FaultKind::PermissionDenied, "ask all mount namespaces", "", detail));
            }
            let own = survey.own().ok_or_else(|| {
                Fault::new(FaultKind::Internal, "ask all mount namespaces", "", "the own table is missing")
            })?;
            let who = |asked: &Asked| {
                let device = match own.at(&asked.primary) {
                    Some(entry) => entry.device,
                    // Numbers are used again: one that another mount of ours has by now is not the old one's.
                    None => asked.device.filter(|device| {
                        own.of_device(*device).all(|entry| entry.mountpoint.parent() != Some(&mount_dir))
                    })?,
                };
                let sightings = survey.who_sees(device, &asked.primary);
                let first = sightings.first()?;
                let mut text = format!("{} (process {})", first.mountpoint.display(), first.pid);
                if sightings.len() > 1 {
                    text.push_str(&format!(" and {} more", sightings.len() - 1));
                }
                Some(text)
            };
            Ok(asked.iter().map(who).collect())
        })
        .await
    }

    async fn make_mountpoint(&self, path: &Path) -> Result<(), Fault> {
        let path = path.to_owned();
        self.call("make the mountpoint", move || {
            host::directory::ensure(&path, 0o755)
                .map_err(|error| directory_fault("make the mountpoint", &error))
        })
        .await
    }

    async fn remove_mountpoint(&self, path: &Path) {
        let path = path.to_owned();
        // Best effort: `rmdir` refuses what is mounted or not empty, and the next mount uses it again.
        let removed = self
            .call("remove the mountpoint", move || match std::fs::remove_dir(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let shown = path.display().to_string();
                    Err(Fault::new(io_kind(&error), "remove the directory", shown, error.to_string()))
                }
                _ => Ok(()),
            })
            .await;
        if let Err(fault) = removed {
            tracing::debug!(%fault, "a directory stays");
        }
    }

    async fn make_target(&self, path: &Path) -> Result<bool, Fault> {
        let path = path.to_owned();
        self.call("make the target", move || {
            let fault = |error| directory_fault("make the target", &error);
            match host::directory::open_path(&path) {
                Ok(_) => return Ok(false),
                Err(DirectoryError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(fault(error)),
            }
            // Its parent must be there, without links; only the last directory is made.
            if let Some(parent) = path.parent() {
                host::directory::open_path(parent).map_err(fault)?;
            }
            std::fs::create_dir(&path).map(|()| true).map_err(|error| {
                Fault::new(io_kind(&error), "make the target", path.display().to_string(), error.to_string())
            })
        })
        .await
    }

    async fn bind(&self, source: &Path, target: &Path) -> Result<(), Fault> {
        let (source, target) = (source.to_owned(), target.to_owned());
        self.call("bind", move || {
            host::mount::bind(&source, &target, true).map_err(|error| mount_fault("bind", &error))
        })
        .await
    }

    async fn unbind(&self, target: &Path, dead: bool) -> Result<(), Fault> {
        let target = target.to_owned();
        self.call("unbind", move || {
            let unmounted = if dead { host::mount::detach(&target) } else { host::mount::unmount(&target) };
            match unmounted {
                Ok(()) | Err(MountError::NotMounted(_)) => Ok(()),
                Err(error) => Err(mount_fault("unbind", &error)),
            }
        })
        .await
    }
}
