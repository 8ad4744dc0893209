//! From a request to its answer: at once when everything is at hand, else in a task.
//!
//! Each operation is one `async fn`. The thread that read the request polls it once; with catalogs and objects at
//! hand it is ready then, and no other thread is woken. Otherwise it moves to the runtime, where it ends with its
//! answer, with an interrupt, or at the deadline. How many may wait is bounded: a server that answers slowly must
//! not fill the memory with requests of a thousand readers, who get EIO instead.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use fuse::Reply;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use volume::Sample;

use super::error::FsError;

/// Most requests that may wait at once. The kernel itself holds back readahead far below this; more means that
/// thousands of processes wait, each of which would rather have an error.
const WAITING_MAX: usize = 8192;

/// The operations, as metrics name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Lookup,
    Getattr,
    Readlink,
    Open,
    Read,
    Opendir,
    Readdir,
    Xattr,
    Statfs,
}

impl Operation {
    const ALL: [Operation; 9] = [
        Operation::Lookup,
        Operation::Getattr,
        Operation::Readlink,
        Operation::Open,
        Operation::Read,
        Operation::Opendir,
        Operation::Readdir,
        Operation::Xattr,
        Operation::Statfs,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Operation::Lookup => "lookup",
            Operation::Getattr => "getattr",
            Operation::Readlink => "readlink",
            Operation::Open => "open",
            Operation::Read => "read",
            Operation::Opendir => "opendir",
            Operation::Readdir => "readdir",
            Operation::Xattr => "xattr",
            Operation::Statfs => "statfs",
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    waited: AtomicU64,
    errors: AtomicU64,
    nanos: AtomicU64,
}

/// Requests under way and what became of the others.
#[derive(Debug)]
pub(crate) struct Requests {
    runtime: Handle,
    deadline: Duration,
    waiting: AtomicUsize,
    counts: [Counts; Operation::ALL.len()],
    last_error: Mutex<Option<(SystemTime, String)>>,
}

impl Requests {
    pub(crate) fn new(runtime: Handle, deadline: Duration) -> Arc<Requests> {
        Arc::new(Requests {
            runtime,
            deadline,
            waiting: AtomicUsize::new(0),
            counts: Default::default(),
            last_error: Mutex::default(),
        })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Answers `reply` with what `work` comes to.
    pub(crate) fn answer<T: Send + 'static>(
        self: &Arc<Self>,
        operation: Operation,
        reply: Reply<T>,
        work: impl Future<Output = Result<T, FsError>> + Send + 'static,
    ) {
        let begun = Instant::now();
        let mut work: Pin<Box<dyn Future<Output = Result<T, FsError>> + Send>> = Box::pin(work);
        let first = {
            // Timers and sockets that the work makes belong to the runtime.
            let _context = self.runtime.enter();
            work.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        match first {
            Poll::Ready(result) => self.finish(operation, begun, reply, result),
            Poll::Pending => self.wait(operation, begun, reply, work),
        }
    }

    /// Answers at once.
    pub(crate) fn finish<T>(
        &self,
        operation: Operation,
        begun: Instant,
        reply: Reply<T>,
        result: Result<T, FsError>,
    ) {
        let counts = &self.counts[operation as usize];
        counts.answered.fetch_add(1, Ordering::Relaxed);
        counts.nanos.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        match result {
            Ok(value) => reply.ok(value),
            Err(error) => {
                reply.error(error.errno() as i32);
                if error.is_trouble() {
                    counts.errors.fetch_add(1, Ordering::Relaxed);
                    self.note(operation.as_str(), &error.to_string());
                }
            }
        }
    }

    fn wait<T: Send + 'static>(
        self: &Arc<Self>,
        operation: Operation,
        begun: Instant,
        reply: Reply<T>,
        work: Pin<Box<dyn Future<Output = Result<T, FsError>> + Send>>,
    ) {
        let Some(place) = Waiting::enter(self) else {
            self.finish(operation, begun, reply, Err(FsError::Refused(WAITING_MAX)));
            return;
        };
        self.counts[operation as usize].waited.fetch_add(1, Ordering::Relaxed);
        let cancelled = Arc::new(tokio::sync::Notify::new());
        let cancel = Arc::clone(&cancelled);
        reply.on_cancel(move || cancel.notify_one());
        let requests = Arc::clone(self);
        self.runtime.spawn(async move {
            let _place = place;
            let deadline = requests.deadline;
            let result = tokio::select! {
                result = tokio::time::timeout(deadline, work) => {
                    result.unwrap_or_else(|_| Err(FsError::Deadline(deadline.as_millis())))
                }
                // Answered already: what was under way for it ends here, unless others wait for the same.
                () = cancelled.notified() => return,
            };
            requests.finish(operation, begun, reply, result);
        });
    }

    /// Keeps an error for `status` and logs it.
    pub(crate) fn note(&self, what: &str, error: &str) {
        tracing::warn!(what, error, "request failed");
        *self.last_error.lock() = Some((SystemTime::now(), format!("{what}: {error}")));
    }

    /// The newest error and when it was.
    pub(crate) fn last_error(&self) -> Option<(SystemTime, String)> {
        self.last_error.lock().clone()
    }

    /// How many requests ended in trouble.
    pub(crate) fn errors(&self) -> u64 {
        self.counts.iter().map(|counts| counts.errors.load(Ordering::Relaxed)).sum()
    }

    /// How many requests wait for something.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::with_capacity(4 * Operation::ALL.len() + 1);
        for operation in Operation::ALL {
            let counts = &self.counts[operation as usize];
            let mut sample = |name: &str, value: f64| {
                let labels = vec![("operation".to_owned(), operation.as_str().to_owned())];
                samples.push(Sample { name: name.to_owned(), labels, value });
            };
            let count = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
            sample("cvmfs_requests_total", count(&counts.answered));
            sample("cvmfs_requests_waited_total", count(&counts.waited));
            sample("cvmfs_request_errors_total", count(&counts.errors));
            sample("cvmfs_request_seconds_total", count(&counts.nanos) / 1e9);
        }
        let waiting = self.waiting() as f64;
        samples.push(Sample {
            name: "cvmfs_requests_waiting".to_owned(),
            labels: Vec::new(),
            value: waiting,
        });
        samples
    }
}

/// A place among those that wait.
struct Waiting(Arc<Requests>);

impl Waiting {
    fn enter(requests: &Arc<Requests>) -> Option<Waiting> {
        let before = requests.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Waiting(Arc::clone(requests));
        (before < WAITING_MAX).then_some(place)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
