//! The workers of a nursery, those that have ended without their daemon having heard of it among them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::process::{Ending, Process};

/// Most workers of a nursery, the ended ones among them.
pub(crate) const LIMIT: usize = 4096;

/// One worker.
#[derive(Debug)]
pub(crate) struct Nursling {
    pub(crate) token: String,
    pub(crate) process: Process,
    pub(crate) ended: Option<Ending>,
    /// A duplicate of its FUSE connection.
    pub(crate) kept: Option<OwnedFd>,
    /// The connection of the daemon that looks after it.
    pub(crate) holder: Option<u64>,
}

/// All of them, by a number that is not used again.
#[derive(Debug, Default)]
pub(crate) struct Brood {
    nurslings: BTreeMap<u64, Nursling>,
    next: u64,
}

impl Brood {
    pub(crate) fn is_full(&self) -> bool {
        self.nurslings.len() >= LIMIT
    }

    /// How many run.
    pub(crate) fn alive(&self) -> usize {
        self.nurslings.values().filter(|nursling| nursling.ended.is_none()).count()
    }

    pub(crate) fn add(&mut self, nursling: Nursling) -> u64 {
        self.next += 1;
        self.nurslings.insert(self.next, nursling);
        self.next
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Nursling> {
        self.nurslings.get_mut(&id)
    }

    pub(crate) fn find(&self, token: &str) -> Option<u64> {
        self.nurslings.iter().find(|(_, nursling)| nursling.token == token).map(|(id, _)| *id)
    }

    /// The connection kept for the worker with this token passes on to another.
    pub(crate) fn inherit(&mut self, token: &str) -> Option<OwnedFd> {
        let id = self.find(token)?;
        let kept = self.nurslings.get_mut(&id)?.kept.take();
        self.drop_if_done(id);
        kept
    }

    /// Collects all children that have ended, also strangers that became ours because we are the first process of the
    /// namespace. Answers whose daemon is to be told.
    pub(crate) fn reap(&mut self) -> Vec<(u64, Ending)> {
        let mut told = Vec::new();
        loop {
            let (pid, ending) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Ending::Exited(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ending::Signalled(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return told,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(errno) => {
                    tracing::error!(%errno, "waitpid");
                    return told;
                }
            };
            let alive = |nursling: &Nursling| nursling.ended.is_none();
            let found = self.nurslings.iter_mut().find(|(_, n)| alive(n) && n.process.pid() == pid.as_raw());
            let Some((id, nursling)) = found else { continue };
            tracing::info!(pid = pid.as_raw(), %ending, "a worker ended");
            nursling.ended = Some(ending);
            let id = *id;
            told.extend(nursling.holder.map(|holder| (holder, ending)));
            self.drop_if_done(id);
        }
    }

    /// The daemon's connection has gone.
    pub(crate) fn let_go(&mut self, id: u64, holder: u64) {
        if let Some(nursling) = self.nurslings.get_mut(&id)
            && nursling.holder == Some(holder)
        {
            nursling.holder = None;
        }
        self.drop_if_done(id);
    }

    /// An ended worker is of interest while a daemon looks after it, or while its connection is kept for the next.
    fn drop_if_done(&mut self, id: u64) {
        let done = |n: &Nursling| n.ended.is_some() && n.holder.is_none() && n.kept.is_none();
        if self.nurslings.get(&id).is_some_and(done) {
            self.nurslings.remove(&id);
        }
    }

    /// The connections that are kept, to be watched for their end.
    pub(crate) fn kept(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>)> {
        self.nurslings.iter().filter_map(|(id, nursling)| Some((*id, nursling.kept.as_ref()?.as_fd())))
    }

    /// Drops a kept connection that the kernel has ended.
    pub(crate) fn kept_has(&mut self, id: u64, events: PollFlags) {
        if events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL) {
            self.forget(id);
        }
    }

    /// Drops a kept connection.
    pub(crate) fn forget(&mut self, id: u64) {
        if let Some(nursling) = self.nurslings.get_mut(&id) {
            nursling.kept = None;
        }
        self.drop_if_done(id);
    }
}
