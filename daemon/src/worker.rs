//! `volplane worker`: the process behind one mount.

use std::process::ExitCode;

use clap::Args;

/// Who the worker becomes; given by the daemon.
#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// User id
    #[arg(long)]
    uid: Option<u32>,
    /// Group id
    #[arg(long)]
    gid: Option<u32>,
}

/// Serves until the mount is gone.
pub(crate) fn main(arguments: &WorkerArguments) -> ExitCode {
    eprintln!(
        "volplane worker: {:?} {:?}: the file system is not wired in yet",
        arguments.uid, arguments.gid
    );
    ExitCode::FAILURE
}
