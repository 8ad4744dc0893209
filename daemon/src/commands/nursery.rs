//! `nursery`: workers in a container of their own.

use std::error::Error;
use std::ffi::OsString;

use nix::unistd::Uid;
use supervisor::{NurseryConfig, WorkerUser, nursery_main};

use crate::cli;

/// Runs until it is told to end and no worker is left. The process must have one thread.
pub(crate) fn run(arguments: &cli::Nursery) -> Result<(), Box<dyn Error>> {
    let user =
        if Uid::effective().is_root() { Some(WorkerUser::find(arguments.user.as_deref())?) } else { None };
    let of_workers =
        ["worker", "--log-format", arguments.log_format.as_str(), "--log-level", &arguments.log_level];
    nursery_main(NurseryConfig {
        socket: arguments.socket.clone(),
        group: arguments.group,
        arguments: of_workers.into_iter().map(OsString::from).collect(),
        user,
    })?;
    Ok(())
}
