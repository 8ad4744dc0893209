//! `volplane-flexvolume`: the executable that kubelet runs as `VENDOR~DRIVER/DRIVER`.
//!
//! One JSON object on standard output whatever happens, and never a byte on standard error, which kubelet reads as part of
//! the answer.

#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use flexvolume::{Environment, Outcome, answer};

fn main() -> ExitCode {
    // The default hook writes to standard error.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(|| answer(&Environment::of_this_process()))
        .unwrap_or_else(|_| Outcome::defect());
    let mut output = std::io::stdout().lock();
    // A reader that is gone cannot be told; the status still says how it went.
    let _ = output.write_all(outcome.line().as_bytes()).and_then(|()| output.flush());
    ExitCode::from(outcome.exit_status())
}
