//! A mount without a worker waits for the nursery: it may come back within seconds (its pod is upgraded) or never.

use std::os::fd::AsFd;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::sync::oneshot;
use volume::{Fault, FaultKind, Retry};

use crate::keeper::{Command, Keeper, Mount};
use crate::mounted;
use crate::nursery::NurseryError;
use crate::origin::Berth;
use crate::worker::no_nursery;

/// First pause between two tries; each is twice as long, up to the other.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Why a mount got no worker.
#[derive(Debug)]
pub(crate) enum Waited {
    /// The mount has gone meanwhile.
    Gone,
    /// It is given up.
    InVain(Fault),
    /// Somebody wants the mount taken down.
    Stop(oneshot::Sender<Result<(), Fault>>),
    /// The pool was dropped.
    PoolGone,
}

impl Keeper {
    /// For a mount that does not exist yet: its caller waits, so only for a moment.
    pub(crate) fn first_berth(&self) -> Result<Berth, Fault> {
        let until = Instant::now() + self.house.limits.nursery_at_launch;
        let mut pause = PAUSES.0;
        loop {
            let error = match self.house.origin.berth() {
                Ok(berth) => return Ok(berth),
                Err(error) => error,
            };
            // Another version or a refusal stays what it is.
            if !matches!(error, NurseryError::Absent { .. }) || Instant::now() >= until {
                return Err(no_nursery(&error, &self.request));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// For a mount that exists: its callers wait in the kernel, and go on where they are when a worker comes.
    pub(crate) fn next_berth(&self, mount: &Mount) -> Result<Berth, Waited> {
        let began = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let error = match self.house.origin.berth() {
                Ok(berth) => {
                    if pause > PAUSES.0 {
                        tracing::info!(key = %self.request.key, waited_ms = began.elapsed().as_millis(),
                            "the nursery is there");
                    }
                    return Ok(berth);
                }
                Err(error) => error,
            };
            if pause == PAUSES.0 {
                tracing::warn!(key = %self.request.key, %error, "the mount waits for the nursery");
            }
            self.lost_berth(&error);
            let waited = began.elapsed();
            let served = self.predecessor.as_ref().is_some_and(|old| !old.process.has_ended(Duration::ZERO));
            if waited >= self.house.limits.nursery && !served {
                let detail = format!(
                    "given up after {} s without a nursery: {error}; the next use of the volume mounts it anew",
                    waited.as_secs()
                );
                let fault = Fault::new(FaultKind::Unavailable, "serve", self.request.key.as_str(), detail);
                return Err(Waited::InVain(fault.with_retry(Retry::Later)));
            }
            self.rest(pause)?;
            if mounted::is_gone(&mount.connection) {
                return Err(Waited::Gone);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Shows what is waited for.
    pub(crate) fn lost_berth(&self, error: &NurseryError) {
        let mut view = self.view.lock();
        view.report.pid = 0;
        view.report.trouble = Some(format!("waiting for the nursery: {error}"));
    }

    /// Answers the pool's commands for a while.
    fn rest(&self, pause: Duration) -> Result<(), Waited> {
        let until = Instant::now() + pause;
        loop {
            loop {
                match self.commands.try_recv() {
                    // Who asked may have gone.
                    Ok(Command::Report(reply)) => drop(reply.send(self.view.lock().report.clone())),
                    Ok(Command::Refresh(reply)) => {
                        let detail = self.view.lock().report.trouble.clone().unwrap_or_default();
                        let key = self.request.key.as_str();
                        drop(reply.send(Err(Fault::new(FaultKind::Unavailable, "refresh", key, detail))));
                    }
                    Ok(Command::Stop(reply)) => return Err(Waited::Stop(reply)),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Err(Waited::PoolGone),
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut polled = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
            if let Err(errno) = nix::poll::poll(&mut polled, timeout)
                && errno != nix::errno::Errno::EINTR
            {
                tracing::error!(%errno, "poll");
                std::thread::sleep(left);
            }
            // Clears the counter; empty is fine.
            let _ = self.wake.read();
        }
    }
}
