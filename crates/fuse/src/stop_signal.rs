//! A signal that does nothing but end a read(2), so that a stopping session need not wait for one more request.
//!
//! poll(2) with an eventfd would do without, but would wake every thread for each request; a blocking read wakes one.

use std::sync::OnceLock;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet};

/// A real-time signal: nothing else in the process gives it a meaning.
fn number() -> libc::c_int {
    libc::SIGRTMIN() + 9
}

extern "C" fn nothing(_: libc::c_int) {}

/// Installs the handler, once in the life of the process. Without it, nothing must be sent: the signal would kill.
pub(crate) fn prepare() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        // Without SA_RESTART, or read(2) would go on.
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        let action: libc::sigaction = action.into();
        // SAFETY: the handler does nothing, which is async-signal-safe; `action` is fully initialised.
        let result = unsafe { libc::sigaction(number(), &raw const action, std::ptr::null_mut()) };
        if result != 0 {
            tracing::warn!(error = %std::io::Error::last_os_error(), "threads cannot be woken");
        }
        result == 0
    })
}

/// Lets the signal reach the calling thread, whatever mask it inherited.
pub(crate) fn admit() {
    // SAFETY: a sigset_t of zeroes is a valid value to be overwritten by sigemptyset; all pointers are to locals.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, number());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Sends the signal to a thread that has not been joined.
pub(crate) fn send(thread: libc::pthread_t) {
    // SAFETY: the caller holds the thread's JoinHandle, so its id is valid; the signal has a handler that does nothing.
    unsafe { libc::pthread_kill(thread, number()) };
}
