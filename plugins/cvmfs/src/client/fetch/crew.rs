//! The threads that hash, inflate and write, one per core, for the whole process.
//!
//! Jobs are short (at most some hundred KiB of input), so first come, first served is fair, and the queue needs no bound of its
//! own: each transfer has at most one job in it, and the number of transfers is bounded.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::thread;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    arrived: Condvar,
}

/// Runs `work` on the crew. The receiver errs when it panicked.
pub(super) fn submit<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    let queue = queue();
    queue.jobs.lock().push_back(Box::new(move || {
        // Nobody waits any more: the work is not needed.
        if !done.is_closed() {
            let _ = done.send(work());
        }
    }));
    queue.arrived.notify_one();
    result
}

fn queue() -> &'static Arc<Queue> {
    static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let queue = Arc::new(Queue::default());
        let threads = thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        for number in 0..threads {
            let queue = Arc::clone(&queue);
            // They live as long as the process and hold nothing between jobs.
            let spawned =
                thread::Builder::new().name(format!("inflate-{number}")).spawn(move || serve(&queue));
            if let Err(error) = spawned {
                assert!(number > 0, "no thread can be started: {error}");
            }
        }
        queue
    })
}

fn serve(queue: &Queue) {
    loop {
        let job = {
            let mut jobs = queue.jobs.lock();
            loop {
                match jobs.pop_front() {
                    Some(job) => break job,
                    None => queue.arrived.wait(&mut jobs),
                }
            }
        };
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a decoding job panicked; its transfer fails");
        }
    }
}
