//! Requests that have been read and not answered.
//!
//! Every request is registered, also those that are answered by their handler at once: it costs two short locks, and in
//! return an interrupt or the deadline finds each of them. Exactly one party answers a request: whoever [`Ticket::claim`]s
//! it first. All others find it answered and do nothing.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{debug, error, warn};

use crate::NodeId;
use crate::caller_signals::{self, Wish};
use crate::device::Device;
use crate::timer::Bell;
use crate::wire::request::Header;

const SHARDS: usize = 16;

/// By then a thread that has read a request has registered it.
const ORPHANED_AFTER: Duration = Duration::from_millis(100);

/// How long a caller whose signals cannot be seen goes on waiting after one came. Most calls are answered by then, and
/// programs that get signals all the time (a shell's children end, timers) do not see EINTR from them; one that was
/// killed waits so long for its end.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(1);

type Hook = Box<dyn FnOnce() + Send>;

/// What a lost answer would have given to the kernel, and must be taken back from the file system.
#[derive(Debug)]
pub(crate) enum Undo {
    /// Nodes that count as looked up once too often each.
    Forget(Vec<NodeId>),
    /// An open file nobody has.
    Release(NodeId, u64),
    /// An open directory nobody has.
    Releasedir(NodeId, u64),
}

/// All requests in flight on one connection, and the way to answer them.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) device: Device,
    shards: [Mutex<HashMap<u64, Arc<Ticket>>>; SHARDS],
    count: AtomicUsize,
    undo: Mutex<Vec<Undo>>,
    /// Interrupts that had no effect yet: the request's id, and since when.
    interrupts: Mutex<Vec<(u64, Instant)>>,
    pub(crate) bell: Bell,
}

impl InFlight {
    pub(crate) fn new(device: Device) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self {
            device,
            shards,
            count: AtomicUsize::new(0),
            undo: Mutex::default(),
            interrupts: Mutex::default(),
            bell: Bell::default(),
        }
    }

    /// Takes note of a request.
    pub(crate) fn register(self: &Arc<Self>, header: Header) -> Arc<Ticket> {
        let unique = header.unique;
        let ticket = Arc::new(Ticket {
            in_flight: Arc::clone(self),
            header,
            since: Instant::now(),
            answered: AtomicBool::new(false),
            hooks: Mutex::default(),
        });
        if self.shard(unique).lock().insert(unique, Arc::clone(&ticket)).is_none() {
            self.count.fetch_add(1, Ordering::SeqCst);
        }
        self.bell.ring_if_asleep();
        ticket
    }

    /// Requests that are not answered.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// A signal came for the process that waits for request `unique`. (The id of a resent request has its top bit set
    /// here as well.) The kernel says so once for each request, whatever signals follow.
    pub(crate) fn interrupt(&self, unique: u64) {
        let since = Instant::now();
        if !self.interrupt_now(unique, since) {
            self.interrupts.lock().push((unique, since));
            self.bell.ring();
        }
    }

    /// Looks again after the interrupts that had no effect yet; returns how many still have none.
    pub(crate) fn repeat_interrupts(&self) -> usize {
        let mut waiting = std::mem::take(&mut *self.interrupts.lock());
        waiting.retain(|&(unique, since)| !self.interrupt_now(unique, since));
        let mut interrupts = self.interrupts.lock();
        interrupts.append(&mut waiting);
        interrupts.len()
    }

    /// Whether there is nothing to be watched or waited for.
    pub(crate) fn is_quiet(&self) -> bool {
        self.count() == 0 && self.interrupts.lock().is_empty()
    }

    /// `false` if it has to be tried again later. Without a ticket the request is finished, or being read by another
    /// thread just now, or was read by a predecessor that died on a kernel that cannot resend. After a while only the first
    /// and the last are left: then an answer in its name does nothing, or sets the process free. (Answering EAGAIN to
    /// the interrupt, as the protocol has it, would have the kernel repeat it at once, without end in the last case.)
    fn interrupt_now(&self, unique: u64, since: Instant) -> bool {
        let ticket = self.shard(unique).lock().get(&unique).cloned();
        match ticket {
            Some(ticket) => {
                let ends = match caller_signals::wish(ticket.header.caller) {
                    Wish::End => true,
                    Wish::GoOn => false,
                    Wish::Unknown => since.elapsed() >= UNKNOWN_PATIENCE,
                };
                if ends {
                    ticket.cancel(libc::EINTR);
                }
                ends
            }
            None => {
                let orphaned = since.elapsed() >= ORPHANED_AFTER;
                if orphaned {
                    log_failure(unique, &self.device.refuse(unique, libc::EINTR));
                }
                orphaned
            }
        }
    }

    /// Answers EIO to all that are older than `deadline`.
    pub(crate) fn expire(&self, deadline: Duration) {
        let now = Instant::now();
        self.cancel_if(libc::EIO, |ticket| {
            let late = now.saturating_duration_since(ticket.since) >= deadline;
            if late {
                let Header { unique, node, opcode, .. } = ticket.header;
                warn!(unique, node = node.0, opcode, "request expired");
            }
            late
        });
    }

    /// The connection is over: lets all work stop.
    pub(crate) fn cancel_all(&self) {
        self.cancel_if(libc::EIO, |_| true);
    }

    fn cancel_if(&self, errno: i32, mut condition: impl FnMut(&Ticket) -> bool) {
        for shard in &self.shards {
            let chosen: Vec<_> = shard.lock().values().filter(|ticket| condition(ticket)).cloned().collect();
            for ticket in chosen {
                ticket.cancel(errno);
            }
        }
    }

    /// Leaves something to be undone on the timer's thread: not here, where the file system may hold its own locks.
    fn undo(&self, undo: Undo) {
        self.undo.lock().push(undo);
        self.bell.ring();
    }

    /// What is to be undone.
    pub(crate) fn take_undo(&self) -> Vec<Undo> {
        std::mem::take(&mut *self.undo.lock())
    }

    fn remove(&self, unique: u64) {
        if self.shard(unique).lock().remove(&unique).is_some()
            && self.count.fetch_sub(1, Ordering::SeqCst) == 1
        {
            self.bell.emptied();
        }
    }

    /// Uniques go up in steps of two.
    fn shard(&self, unique: u64) -> &Mutex<HashMap<u64, Arc<Ticket>>> {
        &self.shards[(unique >> 1) as usize % SHARDS]
    }
}

/// One request in flight.
pub(crate) struct Ticket {
    in_flight: Arc<InFlight>,
    header: Header,
    since: Instant,
    answered: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
}

impl Ticket {
    /// The inode the request is about.
    pub(crate) fn node(&self) -> NodeId {
        self.header.node
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }

    /// Answers with success unless it was answered before; an answer that the kernel does not take is undone.
    pub(crate) fn answer(&self, head: &[u8], body: &[u8], undo: impl FnOnce() -> Option<Undo>) {
        let mut taken = false;
        if self.claim() {
            let written = self.in_flight.device.answer(self.header.unique, head, body);
            log_failure(self.header.unique, &written);
            taken = written.is_ok();
            if !taken {
                // Most often nobody waits any more (ENOENT again); otherwise this must not leave somebody waiting.
                let _ = self.in_flight.device.refuse(self.header.unique, libc::EIO);
            }
            self.finish();
        }
        if !taken && let Some(undo) = undo() {
            self.in_flight.undo(undo);
        }
    }

    /// Answers with an error unless it was answered before.
    pub(crate) fn refuse(&self, errno: i32) {
        if self.claim() {
            log_failure(self.header.unique, &self.in_flight.device.refuse(self.header.unique, errno));
            self.finish();
        }
    }

    /// Like [`Ticket::refuse`], and tells whoever works on it.
    fn cancel(&self, errno: i32) {
        if self.claim() {
            log_failure(self.header.unique, &self.in_flight.device.refuse(self.header.unique, errno));
            let hooks = self.finish();
            hooks.into_iter().for_each(run);
        }
    }

    /// Runs `hook` when the request is cancelled, now if it was.
    pub(crate) fn on_cancel(&self, hook: Hook) {
        let mut hooks = self.hooks.lock();
        if self.is_answered() {
            drop(hooks);
            run(hook);
        } else {
            hooks.push(hook);
        }
    }

    /// Whether the caller is the one to answer.
    fn claim(&self) -> bool {
        !self.answered.swap(true, Ordering::SeqCst)
    }

    fn finish(&self) -> Vec<Hook> {
        self.in_flight.remove(self.header.unique);
        std::mem::take(&mut *self.hooks.lock())
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ticket").field(&self.header).finish()
    }
}

fn run(hook: Hook) {
    if catch_unwind(AssertUnwindSafe(hook)).is_err() {
        error!("a cancel hook panicked");
    }
}

/// ENOENT is an answer to a request that was aborted, ENODEV one to a connection that ended; the rest is ours to mend.
fn log_failure(unique: u64, written: &std::io::Result<()>) {
    let Err(error) = written else { return };
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENOTCONN | libc::ECONNABORTED) => {
            debug!(unique, %error, "answer not taken");
        }
        _ => error!(unique, %error, "answer refused by the kernel"),
    }
}
