//! Operations run in tasks of their own, so that a caller who hangs up does not stop one half-way.
//!
//! Whether an acquire's answer reached its caller is decided exactly: the answer carries the lane with it, and if it
//! is not taken (the caller's future was dropped before, while or after it was sent) the reference is given back
//! before anything else about the same volume happens. An engine whose Mount timed out never sends the Unmount.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use volume::{Acquired, Fault, FaultKind, RefId};

use crate::core::{Core, late};
use crate::guard::Guard;
use crate::table::{Change, ReferenceRow};

/// A finished acquire on its way to the caller.
struct Delivery {
    core: Arc<Core>,
    reference: RefId,
    /// The path, and whether the reference was not held before.
    outcome: Result<(Acquired, bool), Fault>,
    _lane: Guard<String>,
}

impl Delivery {
    /// Nobody took it.
    async fn undo(self) {
        if let Ok((_, true)) = self.outcome {
            tracing::info!(reference = %self.reference, "caller went away; its reference is given back");
            if let Err(fault) = self.core.release_in_lane(&self.reference, true).await {
                tracing::warn!(
                    reference = %self.reference, %fault,
                    "the mount of a caller that went away could not be taken back; tried again"
                );
                self.core.unsettle(&self.reference).await;
            }
        }
    }
}

/// Set when the caller of an acquire has gone away, or has been told that it is too late.
#[derive(Debug, Clone, Default)]
pub(crate) struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Whether nobody will take the answer.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

struct Waiting {
    receiver: oneshot::Receiver<Delivery>,
    abandoned: Abandoned,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.abandoned.0.store(true, Ordering::SeqCst);
        self.receiver.close();
        if let Ok(delivery) = self.receiver.try_recv() {
            // Without a runtime the process is ending, and the next start takes back what is not wanted.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                runtime.spawn(delivery.undo());
            }
        }
    }
}

impl Core {
    /// Leaves the taking back of a reference to the sweeper.
    async fn unsettle(&self, reference: &RefId) {
        if let Some(held) = self.held(reference) {
            let row = ReferenceRow { settled: false, ..held };
            if let Err(fault) = self.commit(vec![Change::PutReference(reference.clone(), row)]).await {
                tracing::warn!(%reference, %fault, "reference of a caller that went away stays");
            }
        }
        self.sweep_soon.notify_one();
    }

    /// Runs an acquire in its lane.
    pub(crate) async fn deliver(
        self: &Arc<Self>,
        reference: RefId,
        lane: Guard<String>,
        deadline: Instant,
        abandoned: Abandoned,
        work: impl Future<Output = Result<(Acquired, bool), Fault>> + Send + 'static,
    ) -> Result<Acquired, Fault> {
        let permit = self.operation()?;
        let subject = reference.scope.clone();
        let (sender, receiver) = oneshot::channel();
        let core = self.clone();
        let mut waiting = Waiting { receiver, abandoned };
        tokio::spawn(async move {
            let _permit = permit;
            let outcome = work.await;
            if let Err(delivery) = sender.send(Delivery { core, reference, outcome, _lane: lane }) {
                delivery.undo().await;
            }
        });
        match timeout_at(deadline, &mut waiting.receiver).await {
            Ok(Ok(delivery)) => delivery.outcome.map(|(acquired, _)| acquired),
            Ok(Err(_)) => Err(died("mount", &subject)),
            Err(_) => Err(late("mount", &subject, "was not ready in time; it is being taken back")),
        }
    }

    /// Runs any other operation, which is completed also when nobody waits for it.
    pub(crate) async fn complete<T: Send + 'static>(
        self: &Arc<Self>,
        op: &'static str,
        subject: &str,
        deadline: Instant,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T, Fault> {
        let permit = self.operation()?;
        let task = tokio::spawn(async move {
            let _permit = permit;
            work.await
        });
        match timeout_at(deadline, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(died(op, subject)),
            Err(_) => Err(late(op, subject, "did not end in time; it goes on")),
        }
    }
}

fn died(op: &str, subject: &str) -> Fault {
    Fault::new(FaultKind::Internal, op, subject, "the operation ended without an answer; see the log")
}
