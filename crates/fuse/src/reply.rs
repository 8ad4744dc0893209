//! Answers, exactly one for each request.

use std::marker::PhantomData;

use crate::{DirEntry, Entry};

/// The right and duty to answer one request. Dropped unanswered it answers EIO. It may be moved to other threads; while it
/// lives the request can be interrupted (then it has been answered EINTR and [`Reply::is_answered`] is true) and
/// expires at the session's deadline (EIO).
pub struct Reply<T> {
    _answer: PhantomData<fn(T)>,
}

impl<T> Reply<T> {
    /// Answers with success. After an interrupt or the deadline: does nothing.
    pub fn ok(self, _value: T) {
        unimplemented!()
    }

    /// Answers with a positive errno value.
    pub fn error(self, _errno: i32) {
        unimplemented!()
    }

    /// Whether somebody (an interrupt, the deadline) has answered already, so that work for it can stop.
    pub fn is_answered(&self) -> bool {
        unimplemented!()
    }

    /// Runs `hook` once if the request is interrupted or expires before it is answered.
    pub fn on_cancel(&self, _hook: impl FnOnce() + Send + 'static) {
        unimplemented!()
    }
}

/// Rows of a listing in the kernel's form, bounded by the size the caller asked for.
pub struct DirectoryBuffer {
    _bytes: Vec<u8>,
}

impl DirectoryBuffer {
    /// Appends a row; `false` (and no change) when it does not fit any more.
    pub fn push(&mut self, _row: DirEntry<'_>) -> bool {
        unimplemented!()
    }

    /// Appends a row with attributes (readdirplus); `false` (and no change) when it does not fit any more.
    pub fn push_plus(&mut self, _row: DirEntry<'_>, _entry: Entry) -> bool {
        unimplemented!()
    }
}
