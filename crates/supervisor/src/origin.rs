//! Where workers come from: they are forked, or a nursery starts them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::unistd::chown;
use volume::LaunchRequest;

use crate::nursery::{Found, NurseryError, NurseryLink, fresh_token};
use crate::process::Process;
use crate::spawn;
use crate::worker::StartError;
use crate::{Program, WorkerUser};

/// Who makes the processes of a pool.
#[derive(Debug)]
pub(crate) enum Origin {
    /// This process.
    Fork {
        /// What is executed.
        program: Program,
        /// Who it runs as, if not as ourselves.
        user: Option<WorkerUser>,
    },
    /// The nursery that listens here.
    Nursery(PathBuf),
}

/// Leave to start one worker: whoever starts it is there and ready.
#[derive(Debug)]
pub(crate) enum Berth {
    /// By this process.
    Fork(Program, Option<WorkerUser>),
    /// By a nursery.
    Nursery(NurseryLink),
}

/// What a nursery calls a worker; nothing where none is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Names {
    /// The new worker.
    pub(crate) token: Option<String>,
    /// The one that it replaces.
    pub(crate) heir_of: Option<String>,
}

impl Origin {
    /// Sees to it that a worker can be started now.
    pub(crate) fn berth(&self) -> Result<Berth, NurseryError> {
        match self {
            Origin::Fork { program, user } => Ok(Berth::Fork(program.clone(), *user)),
            Origin::Nursery(path) => NurseryLink::open(path).map(Berth::Nursery),
        }
    }

    /// Makes the directory of the nursery's socket, for its user: a node's agent that makes it first gives it to root,
    /// and the nursery, which has no privilege, could not listen in it.
    pub(crate) fn make_ready(&self, user: Option<WorkerUser>) {
        let Origin::Nursery(socket) = self else { return };
        let Some(directory) = socket.parent() else { return };
        let made = std::fs::create_dir_all(directory).and_then(|()| {
            let owner = std::fs::metadata(directory)?.uid();
            match user {
                Some(user) if owner == 0 => {
                    tracing::info!(directory = %directory.display(), uid = user.uid.as_raw(),
                        "the nursery's directory is given to the workers' user");
                    Ok(chown(directory, Some(user.uid), Some(user.gid))?)
                }
                Some(_) | None => Ok(()),
            }
        });
        if let Err(error) = made {
            tracing::warn!(directory = %directory.display(), %error, "the nursery's directory cannot be made");
        }
    }

    /// Whether workers are to be in a nursery.
    pub(crate) fn is_nursery(&self) -> bool {
        matches!(self, Origin::Nursery(_))
    }

    /// What the nursery knows of the worker with this token; `None` without a nursery, or if it does not know it.
    pub(crate) fn find(&self, token: Option<&str>) -> Option<Found> {
        let (Origin::Nursery(path), Some(token)) = (self, token) else { return None };
        match NurseryLink::open(path).and_then(|link| link.find(token)) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "a worker cannot be asked for");
                None
            }
        }
    }
}

impl Berth {
    /// Who the worker will run as; `None`: as this process.
    pub(crate) fn user(&self) -> Option<WorkerUser> {
        match self {
            Berth::Fork(_, user) => *user,
            Berth::Nursery(link) => Some(link.user),
        }
    }

    /// A name by which a later daemon can ask for the worker.
    pub(crate) fn token(&self) -> Option<String> {
        match self {
            Berth::Fork(..) => None,
            Berth::Nursery(_) => Some(fresh_token()),
        }
    }

    /// Starts the worker.
    pub(crate) fn start(
        self,
        names: &Names,
        socket: BorrowedFd<'_>,
        request: &LaunchRequest,
    ) -> Result<Process, StartError> {
        let step = |error: io::Error| StartError::Host("start the worker process", error);
        let file = spawn::request_file(request).map_err(step)?;
        match self {
            Berth::Fork(program, user) => {
                spawn::execute(&program, user, request.key.as_str(), socket, file.as_fd()).map_err(step)
            }
            Berth::Nursery(mut link) => {
                let (pid, pidfd) = link.start(names, &request.key, socket, file.as_fd())?;
                Ok(Process::of_nursery(pid, pidfd, link))
            }
        }
    }
}
