//! The session: threads that read requests and hand them to the file system.

use std::io;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::{error, info, warn};

use crate::device::{Device, Received};
use crate::in_flight::InFlight;
use crate::request_buffer::RequestBuffer;
use crate::{Connection, FileSystem, Notifier, dispatch, stop_signal, timer};

/// The longest time [`Session::stop`] waits for requests in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How a session runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Threads that read requests, 1 to 64.
    pub threads: usize,
    /// The age at which an unanswered request is answered EIO.
    pub deadline: Duration,
    /// Have the kernel repeat what a dead predecessor read and did not answer. Only when adopting.
    pub resend: bool,
}

impl Default for SessionConfig {
    fn default() -> Self {
        // The kernel wakes readers in turn, so each thread more makes caches colder: 9 microseconds for an open, a read and
        // a close with one or two threads, 15 with eight (examples/latency.rs on two cores).
        let threads = thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
        Self { threads, deadline: Duration::from_secs(60), resend: false }
    }
}

/// A file system at work. Dropping it stops reading, and does not wait for what is in flight.
#[derive(Debug)]
pub struct Session {
    in_flight: Arc<InFlight>,
    state: Arc<State>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    timer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Readers shall end.
    stopping: AtomicBool,
    /// All readers have ended.
    over: AtomicBool,
    readers: AtomicUsize,
    ended: Mutex<bool>,
    wakes_waiters: Condvar,
}

impl Session {
    /// Starts to serve. With `config.resend` on a live connection whose server died this is an adoption: requests that the
    /// dead one had read come again. The dead one must really be dead, or both answer.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn start<F: FileSystem>(
        fs: Arc<F>,
        connection: Connection,
        config: SessionConfig,
    ) -> io::Result<Session> {
        let in_flight = Arc::new(InFlight::new(Device::new(connection.into_fd())));
        if config.resend {
            // Before any thread reads: what was read by us must not be repeated.
            if let Err(error) = in_flight.device.resend() {
                warn!(%error, "the kernel cannot resend requests; those of the former server wait to be interrupted");
            }
        }
        let state = Arc::new(State::default());
        let session = Session {
            in_flight: Arc::clone(&in_flight),
            state: Arc::clone(&state),
            readers: Mutex::default(),
            timer: Mutex::default(),
        };
        let timer = {
            let (fs, in_flight, state) = (Arc::clone(&fs), Arc::clone(&in_flight), Arc::clone(&state));
            let run = move || timer::run(&*fs, &in_flight, config.deadline, &state.over);
            thread::Builder::new().name("fuse-timer".into()).spawn(run)?
        };
        *session.timer.lock() = Some(timer);
        let threads = config.threads.clamp(1, 64);
        state.readers.store(threads, Ordering::SeqCst);
        for number in 0..threads {
            let (fs, in_flight) = (Arc::clone(&fs), Arc::clone(&in_flight));
            let last_words = LastWords { in_flight: Arc::clone(&in_flight), state: Arc::clone(&state) };
            let run = move |mut buffer: RequestBuffer| {
                read_requests(&*fs, &in_flight, &last_words.state.stopping, &mut buffer);
                drop(last_words);
            };
            let spawned = RequestBuffer::new().and_then(|buffer| {
                thread::Builder::new().name(format!("fuse-{number}")).spawn(move || run(buffer))
            });
            // On failure `last_words` of this one is dropped with the closure; those that never were are accounted here.
            match spawned {
                Ok(reader) => session.readers.lock().push(reader),
                Err(error) => {
                    (number + 1..threads).for_each(|_| one_reader_less(&session.in_flight, &state));
                    return Err(error);
                }
            }
        }
        Ok(session)
    }

    /// Drops what the kernel has cached.
    pub fn notifier(&self) -> Notifier {
        Notifier::new(Arc::clone(&self.in_flight))
    }

    /// Requests read and not answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.count()
    }

    /// Stops reading requests and waits for those in flight, at most five seconds. What comes later stays queued in the
    /// kernel for the next server, as long as somebody holds the connection. `true` if all were answered; replies that are
    /// still out keep their right to answer, until the deadline.
    pub fn stop(&self) -> bool {
        let until = Instant::now() + STOP_PATIENCE;
        self.stop_reading(until);
        let patience = until.saturating_duration_since(Instant::now());
        let answered = self.in_flight.bell.wait_until_empty(patience, || self.in_flight.count() == 0);
        if answered {
            self.join();
        }
        answered
    }

    fn stop_reading(&self, until: Instant) {
        self.state.stopping.store(true, Ordering::SeqCst);
        let wakes = stop_signal::prepare();
        while !self.state.over.load(Ordering::SeqCst) && Instant::now() < until {
            // A signal that comes just before read(2) is lost, so it is repeated.
            for reader in self.readers.lock().iter().filter(|reader| wakes && !reader.is_finished()) {
                stop_signal::send(reader.as_pthread_t());
            }
            let mut ended = self.state.ended.lock();
            if !*ended {
                self.state.wakes_waiters.wait_for(&mut ended, Duration::from_millis(2));
            }
        }
    }

    /// Waits until the kernel has closed the connection (unmounted, aborted) or [`Session::stop`] was called.
    pub fn wait(&self) {
        let mut ended = self.state.ended.lock();
        while !*ended {
            self.state.wakes_waiters.wait(&mut ended);
        }
    }

    /// Collects the threads, unless called on one of them.
    fn join(&self) {
        let threads: Vec<_> = self.readers.lock().drain(..).chain(self.timer.lock().take()).collect();
        let this = thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this) {
            // A panic has been logged where it was caught, and ends no thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop_reading(Instant::now() + STOP_PATIENCE);
    }
}

/// Reads until the connection ends or the session stops.
fn read_requests<F: FileSystem>(
    fs: &F,
    in_flight: &Arc<InFlight>,
    stopping: &AtomicBool,
    buffer: &mut RequestBuffer,
) {
    stop_signal::admit();
    while !stopping.load(Ordering::SeqCst) {
        match in_flight.device.receive(buffer) {
            Ok(Received::Request(bytes)) => dispatch::serve(fs, in_flight, &buffer[..bytes]),
            Ok(Received::Nothing) => {}
            Ok(Received::Ended) => {
                in_flight.cancel_all();
                info!("the connection has ended");
                return;
            }
            Err(error) => {
                error!(%error, "requests cannot be read");
                return;
            }
        }
    }
}

/// Says that a reader has ended, however it did.
struct LastWords {
    in_flight: Arc<InFlight>,
    state: Arc<State>,
}

impl Drop for LastWords {
    fn drop(&mut self) {
        one_reader_less(&self.in_flight, &self.state);
    }
}

fn one_reader_less(in_flight: &InFlight, state: &State) {
    if state.readers.fetch_sub(1, Ordering::SeqCst) == 1 {
        state.over.store(true, Ordering::SeqCst);
        in_flight.bell.ring();
        *state.ended.lock() = true;
        state.wakes_waiters.notify_all();
    }
}
