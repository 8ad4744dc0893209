//! Waiting on conditions, never on the clock alone.

use std::time::{Duration, Instant};

/// How long a test waits for something that must happen; generous, as machines are slow and busy.
pub const LONG: Duration = Duration::from_secs(120);

/// Asks until `condition` answers `Some`, at most for [`LONG`].
///
/// # Panics
/// When it did not happen; the text says what.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < LONG, "waited {LONG:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks until `condition` is true.
///
/// # Panics
/// When it did not become true.
pub fn until_true(what: &str, mut condition: impl FnMut() -> bool) {
    until(what, || condition().then_some(()));
}

/// The same as [`until`] for conditions that are costly to ask about, with more to say about a wait in vain.
///
/// # Panics
/// When it did not happen; the text says what, and what `why` found.
pub fn patiently<T>(what: &str, why: impl Fn() -> String, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < LONG, "waited {LONG:?} in vain: {what}\n{}", why());
        std::thread::sleep(Duration::from_millis(200));
    }
}
