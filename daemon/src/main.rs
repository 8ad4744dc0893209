//! The `volplane` binary: the daemon, its workers, and the command line.
//!
//! This is the composition root: the only place that knows every part. It holds no logic about mounts.

#![forbid(unsafe_code)]

mod cli;
mod config;
mod control;
mod foreground;
mod logging;
mod serve;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
