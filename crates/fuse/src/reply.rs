//! Answers, exactly one for each request.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::in_flight::Ticket;

/// The right and duty to answer one request. Dropped unanswered it answers EIO. It may be moved to other threads; while it
/// lives the request can be interrupted (then it has been answered EINTR and [`Reply::is_answered`] is true) and
/// expires at the session's deadline (EIO).
///
/// When an answer comes too late to be delivered, the session takes back what it would have given: it calls
/// [`FileSystem::forget`](crate::FileSystem::forget) for entries, `release` for an open file, `releasedir` for a
/// directory, from a thread of its own. So a file system may count as if each answer arrives.
pub struct Reply<T> {
    route: Route<T>,
    given: bool,
}

enum Route<T> {
    Kernel { ticket: Arc<Ticket>, deliver: fn(&Ticket, Form, T), form: Form },
    Detached(Mutex<Option<Sink<T>>>),
}

type Sink<T> = Box<dyn FnOnce(Result<T, i32>) + Send>;

/// What a request says about the form of its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form {
    /// The value as it is.
    Plain,
    /// At most so many bytes.
    AtMost(u32),
    /// The value if it has at most so many bytes, else ERANGE; its size if this is 0.
    Xattr(u32),
}

impl<T> Reply<T> {
    /// A reply to the kernel.
    pub(crate) fn to_kernel(ticket: Arc<Ticket>, form: Form, deliver: fn(&Ticket, Form, T)) -> Self {
        Self { route: Route::Kernel { ticket, deliver, form }, given: false }
    }

    /// A reply that goes to `sink` instead of a kernel, so that a file system can be called without a mount. It is
    /// never interrupted and does not expire; dropped unanswered it gives EIO.
    pub fn detached(sink: impl FnOnce(Result<T, i32>) + Send + 'static) -> Self {
        Self { route: Route::Detached(Mutex::new(Some(Box::new(sink)))), given: false }
    }

    /// Answers with success. After an interrupt or the deadline: does nothing.
    pub fn ok(mut self, value: T) {
        self.given = true;
        match &self.route {
            Route::Kernel { ticket, deliver, form } => deliver(ticket, *form, value),
            Route::Detached(sink) => give(sink, Ok(value)),
        }
    }

    /// Answers with a positive errno value.
    pub fn error(mut self, errno: i32) {
        self.given = true;
        self.refuse(errno);
    }

    /// Whether somebody (an interrupt, the deadline) has answered already, so that work for it can stop.
    pub fn is_answered(&self) -> bool {
        match &self.route {
            Route::Kernel { ticket, .. } => ticket.is_answered(),
            Route::Detached(sink) => sink.lock().is_none(),
        }
    }

    /// Runs `hook` once if the request is interrupted or expires before it is answered. It runs on a thread of the session
    /// (at once on this one if it has happened already), so it must be short and must not wait.
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) {
        match &self.route {
            Route::Kernel { ticket, .. } => ticket.on_cancel(Box::new(hook)),
            Route::Detached(_) => {}
        }
    }

    fn refuse(&self, errno: i32) {
        match &self.route {
            Route::Kernel { ticket, .. } => ticket.refuse(errno),
            Route::Detached(sink) => give(sink, Err(errno)),
        }
    }
}

fn give<T>(sink: &Mutex<Option<Sink<T>>>, result: Result<T, i32>) {
    let sink = sink.lock().take();
    if let Some(sink) = sink {
        sink(result);
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if !self.given {
            self.refuse(libc::EIO);
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.route {
            Route::Kernel { ticket, .. } => f.debug_tuple("Reply").field(ticket).finish(),
            Route::Detached(_) => f.write_str("Reply(detached)"),
        }
    }
}
