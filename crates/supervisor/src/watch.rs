//! Waits for what can happen to a mount that is served.

use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use volume::{Fault, FaultKind, WorkerReport};

use crate::keeper::{Command, Keeper, Mount};
use crate::mounted;
use crate::origin::Berth;
use crate::protocol::{Reply, Request};
use crate::worker::Worker;

/// A refresh may fetch; the worker's own deadlines are shorter.
const REFRESH_LIMIT: Duration = Duration::from_secs(60);

/// What ends the watching.
pub(crate) enum Event {
    /// The worker is dead, or was killed because it hung.
    Died,
    /// Somebody wants the mount taken down.
    Stop(oneshot::Sender<Result<(), Fault>>),
    /// The worker serves, but its nursery has gone or will go, and another one is there.
    Move(Berth),
    /// The pool was dropped; the worker goes on.
    PoolGone,
}

/// A question that the worker has not answered yet.
enum Open {
    Report { asked: Instant, waiting: Vec<oneshot::Sender<WorkerReport>> },
    Refresh { asked: Instant, waiting: oneshot::Sender<Result<(), Fault>> },
}

pub(crate) struct Watch<'a> {
    keeper: &'a Keeper,
    worker: Worker,
    mount: &'a Mount,
    open: Vec<(u64, Open)>,
    next_question: Instant,
    /// When a new nursery is looked for, if that is wanted.
    next_look: Option<Instant>,
}

/// Pause between two looks for a new nursery.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl<'a> Watch<'a> {
    pub(crate) fn new(keeper: &'a Keeper, worker: Worker, mount: &'a Mount) -> Self {
        let next_question = Instant::now() + keeper.house.limits.ask_every;
        let mut watch = Watch { keeper, worker, mount, open: Vec::new(), next_question, next_look: None };
        watch.check_nursery();
        watch
    }

    pub(crate) fn into_worker(self) -> Worker {
        self.worker
    }

    pub(crate) fn run(&mut self) -> Event {
        loop {
            match self.take_commands() {
                Some(Event::Died) => return self.died(),
                Some(event) => return event,
                None => {}
            }
            if let Err(errno) = self.keeper.poll(&self.worker, self.next_wake()) {
                tracing::error!(%errno, "poll");
                return self.died();
            }
            // Clears the counter; empty is fine.
            let _ = self.keeper.wake.read();
            if self.worker.process.has_ended(Duration::ZERO) || !self.take_answers() {
                return self.died();
            }
            if self.check_time() {
                return self.died();
            }
            self.check_nursery();
            if let Some(berth) = self.look_for_nursery() {
                self.died();
                return Event::Move(berth);
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let limits = self.open.iter().map(|(_, open)| match open {
            Open::Refresh { asked, .. } => *asked + REFRESH_LIMIT,
            Open::Report { asked, .. } => *asked + self.keeper.house.limits.hang,
        });
        limits.chain(self.next_look).fold(self.next_question, Instant::min)
    }

    /// A worker that runs in no nursery that stays is to be moved to one: its own drains, or it was forked before
    /// there was one.
    fn check_nursery(&mut self) {
        if self.next_look.is_none()
            && self.keeper.house.origin.is_nursery()
            && !self.worker.process.has_staying_nursery()
        {
            self.next_look = Some(Instant::now());
        }
    }

    fn look_for_nursery(&mut self) -> Option<Berth> {
        if self.next_look.is_none_or(|when| Instant::now() < when) {
            return None;
        }
        let found = self.keeper.house.origin.berth();
        self.next_look = Some(Instant::now() + LOOK_EVERY);
        found.ok()
    }

    fn take_commands(&mut self) -> Option<Event> {
        loop {
            match self.keeper.commands.try_recv() {
                Ok(Command::Report(reply)) => {
                    let asked = self.open.iter_mut().find_map(|(_, open)| match open {
                        Open::Report { waiting, .. } => Some(waiting),
                        Open::Refresh { .. } => None,
                    });
                    match asked {
                        Some(waiting) => {
                            waiting.retain(|earlier| !earlier.is_closed());
                            waiting.push(reply);
                        }
                        None => {
                            if !self.ask_report(vec![reply]) {
                                return Some(Event::Died);
                            }
                        }
                    }
                }
                Ok(Command::Refresh(reply)) => match self.worker.control.send(Request::Refresh, &[]) {
                    Ok(id) => self.open.push((id, Open::Refresh { asked: Instant::now(), waiting: reply })),
                    Err(_) => return Some(Event::Died),
                },
                Ok(Command::Stop(reply)) => return Some(Event::Stop(reply)),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => return Some(Event::PoolGone),
            }
        }
    }

    fn ask_report(&mut self, waiting: Vec<oneshot::Sender<WorkerReport>>) -> bool {
        match self.worker.control.send(Request::Report, &[]) {
            Ok(id) => {
                self.open.push((id, Open::Report { asked: Instant::now(), waiting }));
                true
            }
            Err(error) => {
                tracing::debug!(key = %self.keeper.request.key, %error, "the worker cannot be asked");
                false
            }
        }
    }

    /// Takes all answers that are there; `false` when the worker has gone.
    fn take_answers(&mut self) -> bool {
        loop {
            let answer = match self.worker.control.answer() {
                Ok(Some(answer)) => answer,
                Ok(None) => return true,
                Err(error) => {
                    tracing::debug!(key = %self.keeper.request.key, %error, "the control connection ended");
                    return false;
                }
            };
            let Some(index) = self.open.iter().position(|(id, _)| *id == answer.id) else { continue };
            match (self.open.swap_remove(index).1, answer.reply) {
                (Open::Report { waiting, .. }, Reply::Report(report)) => {
                    self.keeper.note_report(*report, self.worker.process.pid());
                    for reply in waiting {
                        // Who asked may have gone.
                        let _ = reply.send(self.keeper.view.lock().report.clone());
                    }
                }
                (Open::Refresh { waiting, .. }, Reply::Done) => drop(waiting.send(Ok(()))),
                (Open::Refresh { waiting, .. }, Reply::Failed(fault)) => drop(waiting.send(Err(fault))),
                (_, reply) => {
                    tracing::warn!(key = %self.keeper.request.key, ?reply, "the worker answered something else");
                }
            }
        }
    }

    /// Asks at intervals and gives up on what was not answered; `true` when the worker hangs.
    fn check_time(&mut self) -> bool {
        let now = Instant::now();
        let limits = self.keeper.house.limits;
        let mut hangs = false;
        let mut kept = Vec::new();
        for (id, open) in self.open.drain(..) {
            match open {
                Open::Refresh { asked, waiting } if now >= asked + REFRESH_LIMIT => {
                    let key = self.keeper.request.key.as_str();
                    let detail = format!("no answer within {REFRESH_LIMIT:?}");
                    let _ =
                        waiting.send(Err(Fault::new(FaultKind::DeadlineExceeded, "refresh", key, detail)));
                }
                Open::Report { asked, .. } if now >= asked + limits.hang => hangs = true,
                still => kept.push((id, still)),
            }
        }
        self.open = kept;
        if hangs && mounted::waiting_requests(&self.mount.connection) != Some(0) {
            tracing::error!(key = %self.keeper.request.key, pid = self.worker.process.pid(),
                "the worker hangs while requests wait; it is replaced");
            return true;
        }
        if now >= self.next_question {
            self.next_question = now + limits.ask_every;
            let asked = self.open.iter().any(|(_, open)| matches!(open, Open::Report { .. }));
            if !asked && !self.ask_report(Vec::new()) {
                return true;
            }
        }
        false
    }

    /// Whoever waits for an answer of the worker that is gone hears it.
    fn died(&mut self) -> Event {
        for (_, open) in self.open.drain(..) {
            if let Open::Refresh { waiting, .. } = open {
                let key = self.keeper.request.key.as_str();
                let detail = "the worker died meanwhile; a new one is being started";
                let _ = waiting.send(Err(Fault::new(FaultKind::Unavailable, "refresh", key, detail)));
            }
        }
        Event::Died
    }
}
