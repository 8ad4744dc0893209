//! What a nursery is told, and what it cannot begin with.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use nix::unistd::Uid;

use crate::{WorkerUser, privileges};

/// What a nursery is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NurseryConfig {
    /// Where it listens; the directory must exist. An older socket there is replaced, whoever listens on it.
    pub socket: PathBuf,
    /// Group that may connect beside the owner (mode 0660 instead of 0600).
    pub group: Option<u32>,
    /// First arguments of a worker, `worker` among them; the program is always the nursery's own.
    pub arguments: Vec<OsString>,
    /// Who workers run as when the nursery is root. Otherwise they run as the nursery does.
    pub user: Option<WorkerUser>,
}

/// Why a nursery could not begin.
#[derive(Debug, thiserror::Error)]
pub enum NurseryServeError {
    /// It is root and has no other user for workers.
    #[error("a nursery that runs as root needs a user for its workers")]
    NoUser,
    /// It is root but could not drop to the workers' user.
    #[error(
        "the nursery runs as root but without the capability {0}, so its workers could not become another user; run it \
         as the workers' user (in Kubernetes: runAsUser), which needs no capability"
    )]
    Root(&'static str),
    /// It is root and the workers' user is root as well.
    #[error("workers are not run as root")]
    RootWorkers,
    /// The socket cannot be made.
    #[error("{}: {source}", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The system refused.
    #[error(transparent)]
    System(#[from] io::Error),
    /// A limit could not be set.
    #[error(transparent)]
    Privilege(#[from] crate::PrivilegeError),
}

/// Root drops to another user for its workers, and must be able to; whoever else starts them as itself.
pub(super) fn workers_user(user: Option<WorkerUser>) -> Result<Option<WorkerUser>, NurseryServeError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let user = user.ok_or(NurseryServeError::NoUser)?;
    if user.uid.is_root() {
        return Err(NurseryServeError::RootWorkers);
    }
    match privileges::missing_to_change_user() {
        Some(capability) => Err(NurseryServeError::Root(capability)),
        None => Ok(Some(user)),
    }
}
