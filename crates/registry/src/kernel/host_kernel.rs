//! The kernel itself.
//!
//! Each question runs on a thread of its own under a deadline. Only so many run at a time, because five hundred
//! requests may come at once and the kernel does one change of the mount tree after the other anyway. A survey of all
//! mount namespaces is shared: who waits while one is taken gets the next one, together with all others that wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use host::blocking::{self, BlockingError};
use host::directory::DirectoryError;
use host::mount::MountError;
use host::mount::place::{self, Found, Place};
use host::mountinfo::MountInfoError;
use host::namespaces::Survey;
use host::{DeviceId, MountTable};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout_at};
use volume::{Fault, FaultKind};

use super::{Asked, Kernel, Mounted, Spot};

/// Questions under way at a time. Those that hang past their deadline are counted by [`blocking::LIMIT`] only.
const AT_ONCE: usize = 32;

/// The real one.
#[derive(Debug)]
pub(crate) struct HostKernel {
    /// For each call, with waiting.
    deadline: Duration,
    /// The directory of all our mountpoints.
    mount_dir: PathBuf,
    gate: Semaphore,
    /// The newest survey and when it was begun, while anybody waits for one.
    survey: Mutex<Option<(Instant, Arc<Survey>)>>,
    waiting: AtomicUsize,
}

/// One who waits for a survey.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says when it ends that nobody waits any more.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl HostKernel {
    pub(crate) fn new(deadline: Duration, mount_dir: PathBuf) -> Self {
        HostKernel {
            deadline,
            mount_dir,
            gate: Semaphore::new(AT_ONCE),
            survey: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        op: &'static str,
        call: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let late = || {
            let detail = "too much else is asked of the kernel, or it does not answer";
            Fault::new(FaultKind::DeadlineExceeded, op, "", detail)
        };
        let end = Instant::now() + self.deadline;
        // An error would be a closed semaphore, and it is never closed.
        let _turn = timeout_at(end, self.gate.acquire()).await.map_err(|_| late())?;
        match blocking::run("kernel", end.saturating_duration_since(Instant::now()), call).await {
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

    /// The same at a spot; `None` if the directory that it is in does not exist.
    async fn call_at<T: Send + 'static>(
        &self,
        op: &'static str,
        spot: &Spot,
        call: impl FnOnce(&Place) -> Result<T, MountError> + Send + 'static,
    ) -> Result<Option<T>, Fault> {
        let spot = spot.clone();
        self.call(op, move || {
            let fault = |error| Fault { subject: spot.path.display().to_string(), ..mount_fault(op, &error) };
            match Place::open(&spot.path, spot.beneath.as_deref()) {
                Ok(place) => call(&place).map(Some).map_err(fault),
                Err(error) if error.is_missing() => Ok(None),
                Err(error) => Err(fault(error)),
            }
        })
        .await
    }

    /// A survey that was begun after this was called.
    async fn survey(&self) -> Result<Arc<Survey>, Fault> {
        let arrived = Instant::now();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiter = Waiter(&self.waiting);
        // Bounded, or who waits would wait for each survey that fails before.
        let turn = timeout_at(arrived + self.deadline, self.survey.lock()).await;
        drop(waiter);
        let mut newest = turn.map_err(|_| {
            let detail = "earlier questions have not been answered in time";
            Fault::new(FaultKind::DeadlineExceeded, "ask all mount namespaces", "", detail)
        })?;
        let survey = match newest.take() {
            Some((begun, survey)) if begun >= arrived => {
                *newest = Some((begun, survey.clone()));
                survey
            }
            _ => {
                let begun = Instant::now();
                let take = || Survey::take().map_err(|error| table_fault(&error));
                let survey = Arc::new(self.call("ask all mount namespaces", take).await?);
                *newest = Some((begun, survey.clone()));
                survey
            }
        };
        if self.waiting.load(Ordering::Relaxed) == 0 {
            // It may be large, and is old news for who comes now.
            *newest = None;
        }
        Ok(survey)
    }
}

fn table_fault(error: &MountInfoError) -> Fault {
    Fault::new(FaultKind::Internal, "read mount tables", "", error.to_string())
}

fn directory_fault(op: &str, error: &DirectoryError) -> Fault {
    let kind = match error {
        DirectoryError::NotPlain(_)
        | DirectoryError::Symlink(_)
        | DirectoryError::Outside { .. }
        | DirectoryError::NotDirectory(_) => FaultKind::InvalidArgument,
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
        // The path that was asked for is a file, leads through one, or cannot be a name.
        std::io::ErrorKind::NotADirectory
        | std::io::ErrorKind::IsADirectory
        | std::io::ErrorKind::InvalidFilename => FaultKind::InvalidArgument,
        _ => FaultKind::Internal,
    }
}

fn mount_fault(op: &str, error: &MountError) -> Fault {
    let kind = match error {
        MountError::Busy(_) => FaultKind::InUse,
        MountError::NotMounted(_) => FaultKind::NotFound,
        MountError::Changed(_) => FaultKind::Unavailable,
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
        let survey = self.survey().await?;
        self.call("ask all mount namespaces", move || {
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

    async fn device_at(&self, path: &Path) -> Result<Option<DeviceId>, Fault> {
        let path = path.to_owned();
        self.call("look at", move || place::device_at(&path).map_err(|error| mount_fault("look at", &error)))
            .await
    }

    async fn find(&self, spot: &Spot) -> Result<Found, Fault> {
        let found = self.call_at("look at the target", spot, Place::find).await?;
        Ok(found.unwrap_or(Found::Nothing))
    }

    async fn bind(
        &self,
        source: &Path,
        device: DeviceId,
        spot: &Spot,
        read_only: bool,
    ) -> Result<bool, Fault> {
        let (source, node) = (source.to_owned(), spot.node);
        let waited_for = Arc::new(AtomicBool::new(true));
        let _waiting = Waiting(waited_for.clone());
        let bind = move |place: &Place| {
            let made = place.bind(&source, device, node, read_only)?;
            if !waited_for.load(Ordering::SeqCst) {
                // The deadline is past, and the use was given up: kubelet would take what is left for success.
                place.unmount(true)?;
                if made {
                    place.remove(node)?;
                }
            }
            Ok(made)
        };
        self.call_at("bind onto", spot, bind).await?.ok_or_else(|| {
            let detail = "the directory that it would be in does not exist";
            Fault::new(FaultKind::NotFound, "bind onto", spot.path.display().to_string(), detail)
        })
    }

    async fn unbind(&self, spot: &Spot, dead: bool, remove: bool) -> Result<(), Fault> {
        let (node, path) = (spot.node, spot.path.clone());
        let unbind = move |place: &Place| {
            match place.unmount(dead) {
                Ok(()) | Err(MountError::NotMounted(_)) => {}
                Err(error) => return Err(error),
            }
            if remove && let Err(error) = place.remove(node) {
                tracing::debug!(path = %path.display(), %error, "a directory stays");
            }
            Ok(())
        };
        self.call_at("unbind", spot, unbind).await.map(Option::unwrap_or_default)
    }

    async fn remove(&self, spot: &Spot) -> Result<(), Fault> {
        let node = spot.node;
        let removed = self.call_at("remove", spot, move |place| place.remove(node)).await;
        // Best effort: what is in use, or not empty, is somebody's.
        if let Err(fault) = removed {
            tracing::debug!(%fault, "a directory stays");
        }
        Ok(())
    }
}
