//! The ways in which a mount ends: taken down, gone by itself, given up.

use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use volume::{Fault, FaultKind};

use crate::keeper::{Command, Keeper, Mount};
use crate::mounted;
use crate::worker::Worker;

impl Keeper {
    /// The end of a mount that cannot be served: its callers get errors at once, and it waits to be cleaned away.
    pub(crate) fn give_up(self, mount: Mount, fault: Fault) {
        tracing::error!(key = %self.request.key, %fault, "the mount is given up");
        {
            let mut view = self.view.lock();
            view.report.pid = 0;
            view.report.trouble = Some(fault.detail.clone());
            view.report.last_error = Some(format!("{}: {}", crate::clock::utc_now(), fault.detail));
            view.given_up = Some(fault.clone());
        }
        self.house.store.remove(&self.label());
        if self.place.is_released() {
            // Another mount may be at the mountpoint, and nobody will ask for this one to be taken away.
            mounted::abort(mount.connection.device_number());
            return self.place.remove();
        }
        mounted::abort(
            mount.connection.device_number().or_else(|| mounted::device_at(&self.request.mountpoint)),
        );
        drop(mount);
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Report(reply) => drop(reply),
                Command::Refresh(reply) => drop(reply.send(Err(fault.clone()))),
                Command::Stop(reply) => {
                    mounted::detach(&self.request.mountpoint);
                    self.place.remove();
                    drop(reply.send(Ok(())));
                    return;
                }
            }
        }
    }

    /// Takes down a mount that was made but that nobody wants any more.
    pub(crate) fn undo(&self, worker: Worker, mount: Mount) {
        mounted::detach(&self.request.mountpoint);
        self.finish(Some(worker), mount);
    }

    pub(crate) fn unmount(&self) -> Result<(), Fault> {
        let fault = |kind, detail: String| Fault::new(kind, "unmount", self.request.key.as_str(), detail);
        match umount2(&self.request.mountpoint, MntFlags::UMOUNT_NOFOLLOW) {
            // Not mounted any more: that is what was wanted.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
            Err(Errno::EBUSY) => {
                Err(fault(FaultKind::InUse, "files on it are open, or a process is in it".into()))
            }
            Err(errno) => Err(fault(FaultKind::Internal, errno.to_string())),
        }
    }

    /// After the unmount: the worker notices and ends by itself; one that does not is ended.
    pub(crate) fn finish(&self, worker: Option<Worker>, mount: Mount) {
        self.house.store.remove(&self.label());
        if let Some(worker) = worker {
            if !worker.process.has_ended(Duration::from_secs(3)) {
                tracing::warn!(key = %self.request.key, pid = worker.process.pid(),
                    "the mount is still seen somewhere or its worker hangs; both are ended");
                mounted::abort(mount.connection.device_number());
            }
            worker.end();
        }
        self.place.remove();
    }

    /// The mount has gone without us.
    pub(crate) fn forget(&self) {
        self.house.store.remove(&self.label());
        self.place.remove();
    }
}
