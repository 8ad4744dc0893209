//! System calls that may block for ever, on threads of their own.
//!
//! Tokio's blocking pool would hold up the end of the runtime until its last thread returns, and a `umount` of a dead
//! mount may never return. So each call gets a named thread that nobody joins; their number is bounded, so a node on
//! which everything hangs gets clear errors and not ten thousand threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

/// At most so many calls are under way (or hang) at a time in this process.
pub const LIMIT: usize = 256;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A blocking call gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockingError {
    /// It goes on, or hangs, on its thread.
    #[error("{name}: no answer from the kernel within {} s", deadline.as_secs_f32())]
    Deadline {
        /// What was called.
        name: &'static str,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// [`LIMIT`] calls are under way.
    #[error("{0}: {LIMIT} system calls hang or are under way; no more are started")]
    TooMany(&'static str),
    /// The thread could not be started, or it panicked.
    #[error("{0}: its thread ended without an answer")]
    Thread(&'static str),
}

struct Slot;

impl Slot {
    fn take() -> Option<Slot> {
        let taken = UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        let slot = Slot;
        (taken < LIMIT).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `call` on a thread named `name` (at most 15 bytes are shown by the kernel) and waits for at most `deadline`.
/// After that the call goes on alone and its result is dropped.
pub async fn run<T: Send + 'static>(
    name: &'static str,
    deadline: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlockingError> {
    let slot = Slot::take().ok_or(BlockingError::TooMany(name))?;
    let (sender, receiver) = oneshot::channel();
    let thread = move || {
        let _slot = slot;
        // Nobody may wait any more; that is what the deadline is for.
        let _ = sender.send(call());
    };
    if std::thread::Builder::new().name(name.to_owned()).spawn(thread).is_err() {
        return Err(BlockingError::Thread(name));
    }
    match tokio::time::timeout(deadline, receiver).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err(BlockingError::Thread(name)),
        Err(_) => Err(BlockingError::Deadline { name, deadline }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn a_call_that_hangs_ends_at_the_deadline() {
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let deadline = Duration::from_millis(20);
        let answer = runtime().block_on(run("hang", deadline, move || gate.recv().is_ok()));
        assert_eq!(answer, Err(BlockingError::Deadline { name: "hang", deadline }));
        release.send(()).unwrap();
    }

    #[test]
    fn a_panic_is_an_error() {
        let answer = runtime().block_on(run("panic", Duration::from_secs(10), || panic!("on purpose")));
        assert_eq!(answer, Err::<(), _>(BlockingError::Thread("panic")));
        assert_eq!(runtime().block_on(run("ok", Duration::from_secs(10), || 7)), Ok(7));
    }
}
