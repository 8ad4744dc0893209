//! The timer's thread: lets requests expire and undoes answers that the kernel did not take.
//!
//! While nothing is in flight it sleeps without a timeout, so that an idle session does not wake the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::FileSystem;
use crate::in_flight::{InFlight, Undo};

/// How often to look at the signals of those who wait for an answer and got a signal that will not end them: each
/// 20 ms, and if there are many so much less often that it takes some percent of one core at most (a look takes some
/// 20 microseconds).
fn interrupt_tick(watched: usize) -> Duration {
    let watched = u32::try_from(watched).unwrap_or(u32::MAX);
    Duration::from_micros(400)
        .saturating_mul(watched)
        .clamp(Duration::from_millis(20), Duration::from_secs(1))
}

/// Wakes the timer and those who wait for the last answer.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    asleep: AtomicBool,
    rung: Mutex<bool>,
    wakes_timer: Condvar,
    awaited: AtomicBool,
    wakes_waiters: Condvar,
}

impl Bell {
    /// Wakes the timer.
    pub(crate) fn ring(&self) {
        *self.rung.lock() = true;
        self.wakes_timer.notify_one();
    }

    /// Wakes the timer if it sleeps without a timeout. To be called after the count of requests was raised.
    pub(crate) fn ring_if_asleep(&self) {
        if self.asleep.load(Ordering::SeqCst) {
            self.ring();
        }
    }

    /// The last request has been answered.
    pub(crate) fn emptied(&self) {
        if self.awaited.load(Ordering::SeqCst) {
            drop(self.rung.lock());
            self.wakes_waiters.notify_all();
        }
    }

    /// Waits until `is_empty` or until `patience` is over; returns `is_empty`.
    pub(crate) fn wait_until_empty(&self, patience: Duration, is_empty: impl Fn() -> bool) -> bool {
        let until = Instant::now() + patience;
        self.awaited.store(true, Ordering::SeqCst);
        let mut guard = self.rung.lock();
        while !is_empty() {
            if self.wakes_waiters.wait_until(&mut guard, until).timed_out() {
                break;
            }
        }
        is_empty()
    }

    /// Sleeps until rung: at most `tick` if something is in flight.
    fn sleep(&self, tick: Duration, is_empty: impl Fn() -> bool) {
        self.asleep.store(true, Ordering::SeqCst);
        // Whoever registers a request after this line sees `asleep`; whoever did before is seen by `is_empty`.
        let idle = is_empty();
        let mut rung = self.rung.lock();
        if !*rung {
            if idle {
                self.wakes_timer.wait(&mut rung);
            } else {
                self.asleep.store(false, Ordering::SeqCst);
                self.wakes_timer.wait_for(&mut rung, tick);
            }
        }
        *rung = false;
        self.asleep.store(false, Ordering::SeqCst);
    }
}

/// Runs until `over` and nothing is in flight any more.
pub(crate) fn run<F: FileSystem>(fs: &F, in_flight: &Arc<InFlight>, deadline: Duration, over: &AtomicBool) {
    let tick = (deadline / 16).clamp(Duration::from_millis(5), Duration::from_millis(500));
    loop {
        for undo in in_flight.take_undo() {
            self::undo(fs, undo);
        }
        if over.load(Ordering::SeqCst) && in_flight.count() == 0 {
            return;
        }
        in_flight.expire(deadline);
        let tick = match in_flight.repeat_interrupts() {
            0 => tick,
            watched => tick.min(interrupt_tick(watched)),
        };
        in_flight.bell.sleep(tick, || in_flight.is_quiet() && !over.load(Ordering::SeqCst));
    }
}

fn undo<F: FileSystem>(fs: &F, undo: Undo) {
    crate::dispatch::guarded("undo", || match undo {
        Undo::Forget(nodes) => nodes.into_iter().for_each(|node| fs.forget(node, 1)),
        Undo::Release(node, handle) => fs.release(node, handle),
        Undo::Releasedir(node, handle) => fs.releasedir(node, handle),
    });
}
