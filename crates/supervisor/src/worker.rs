//! The daemon's hold on one worker: process, control connection, broker thread.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use volume::{Fault, FaultKind, LaunchRequest, Retry};

use crate::broker;
use crate::house::House;
use crate::link::{self, Link};
use crate::nursery::Found;
use crate::nursery::NurseryError;
use crate::origin::{Berth, Names};
use crate::packet::PacketError;
use crate::place::{Place, Recorded};
use crate::process::{Ending, Process};
use crate::protocol::{Reply, Request, Role, VERSION};

/// How long a prepared worker may take to begin serving.
const SERVE_LIMIT: Duration = Duration::from_secs(10);

/// A worker that this daemon talks to.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) process: Process,
    pub(crate) control: Link,
    /// Who it runs as: whose files are passed through.
    owner: Uid,
    /// When it began to serve, as far as this daemon knows.
    pub(crate) serving_since: Option<Instant>,
    /// Shut down to end the broker's thread.
    broker: Option<Arc<OwnedFd>>,
}

impl Worker {
    /// Starts a worker and lets it prepare. On an error no process is left.
    pub(crate) fn start(
        house: &House,
        place: &Place,
        request: &LaunchRequest,
        berth: Berth,
        names: &Names,
        offline: bool,
    ) -> Result<Worker, StartError> {
        let step = |what: &'static str| move |error: io::Error| StartError::Host(what, error);
        let owner = berth.user().map_or_else(Uid::effective, |user| user.uid);
        // Written down first: what is started and not known by its name could not be found again.
        place.write_record(request, names.token.as_deref()).map_err(step("write the mount's record"))?;
        let name = place.socket_name();
        let listener = link::listen_at(place.directory(), &name).map_err(step("make the worker's socket"))?;
        let process = berth.start(names, listener.as_fd(), request)?;
        // Only the worker listens now: its death closes connections that wait to be accepted.
        drop(listener);
        let mut control = match Link::connect(place.directory(), &name, Role::Control) {
            Ok((control, _)) => control,
            Err(error) => return Err(StartError::Ended(process.end(), error)),
        };
        let limit = if offline { house.limits.prepare_offline } else { house.limits.prepare };
        match control.ask(Request::Prepare { offline }, &[], 0, limit) {
            Ok((Reply::Done, _)) => Ok(Worker { process, control, owner, serving_since: None, broker: None }),
            Ok((Reply::Failed(fault), _)) => {
                process.end();
                Err(StartError::Refused(fault))
            }
            Ok((other, _)) => {
                process.end();
                Err(StartError::Protocol(format!("{other:?}")))
            }
            Err(error @ PacketError::TimedOut(_)) => {
                process.end();
                Err(StartError::Slow(error))
            }
            Err(error) => Err(StartError::Ended(process.end(), error)),
        }
    }

    /// Hands the mount over to a prepared worker.
    pub(crate) fn serve(
        &mut self,
        place: &Place,
        connection: &fuse::Connection,
        state: &File,
        adopted: bool,
    ) -> Result<(), StartError> {
        self.connect_broker(place, connection);
        let fds = [connection.as_fd(), state.as_fd()];
        match self.control.ask(Request::Serve { adopted }, &fds, 0, SERVE_LIMIT) {
            Ok((Reply::Done, _)) => {
                self.serving_since = Some(Instant::now());
                if let Some(nursery) = self.process.nursery() {
                    nursery.keep(connection.as_fd());
                }
                Ok(())
            }
            Ok((Reply::Failed(fault), _)) => Err(StartError::Refused(fault)),
            Ok((other, _)) => Err(StartError::Protocol(format!("{other:?}"))),
            Err(error @ PacketError::TimedOut(_)) => Err(StartError::Slow(error)),
            Err(error) => Err(StartError::Lost(error)),
        }
    }

    /// Takes over a worker that an earlier daemon started, with the mount that it serves; `stored` is the connection
    /// if somebody kept it.
    pub(crate) fn adopt(
        house: &House,
        recorded: &Recorded,
        stored: Option<OwnedFd>,
    ) -> Result<(Worker, fuse::Connection), AdoptError> {
        let Recorded { place, request, token } = recorded;
        let found = house.origin.find(token.as_deref());
        let (found, stored) = match found {
            Some(Found { link, pid, pidfd, kept }) => {
                (Some(Process::of_nursery(pid, pidfd, link)), stored.or(kept))
            }
            None => (None, stored),
        };
        let given_back = |stored| move |why: String| AdoptError { why, stored, predecessor: None };
        let mut control = match Link::open(place.directory(), &place.socket_name()) {
            Ok(control) => control,
            Err(error) => return Err(given_back(stored)(error.to_string())),
        };
        let owner = Uid::from_raw(control.listener_uid);
        let process = match found.map_or_else(|| Process::of_listener(&control), Ok) {
            Ok(process) => process,
            Err(error) => return Err(given_back(stored)(format!("pid {}: {error}", control.listener_pid))),
        };
        let welcome = match control.greet(Role::Control) {
            Ok(welcome) => welcome,
            Err(error) => {
                // It hangs, but what it holds is good for the next one.
                let connection = stored.or_else(|| process.steal(is_fuse_device));
                process.end();
                return Err(given_back(connection)(error.to_string()));
            }
        };
        if welcome.key != request.key || !welcome.serving {
            process.end();
            return Err(given_back(stored)(format!("it serves {}: {}", welcome.key, welcome.serving)));
        }
        let serving_since = Some(Instant::now());
        let mut worker = Worker { process, control, owner, serving_since, broker: None };
        let connection = match stored {
            Some(fd) => fd,
            None => match worker.control.ask(Request::GiveConnection, &[], 1, link::PROMPT) {
                Ok((Reply::Connection, mut fds)) if fds.first().is_some_and(is_fuse_device) => fds.remove(0),
                other => {
                    worker.end();
                    return Err(given_back(None)(format!("it did not give its connection: {other:?}")));
                }
            },
        };
        if welcome.version != VERSION {
            // It serves on until another one can be started, which a nursery of its own version could not.
            let why = format!("it speaks version {}", welcome.version);
            return Err(AdoptError { why, stored: Some(connection), predecessor: Some(Box::new(worker)) });
        }
        let connection = fuse::Connection::from_fd(connection);
        worker.connect_broker(place, &connection);
        Ok((worker, connection))
    }

    /// Asks it to finish what it has begun and to exit, and ends it if it does not.
    pub(crate) fn retire(mut self) -> Ending {
        if let Err(error) = self.control.ask(Request::Stop, &[], 0, link::PROMPT) {
            tracing::debug!(%error, "a worker did not stop when asked");
        }
        if let Some(nursery) = self.process.nursery() {
            nursery.forget();
        }
        self.end()
    }

    /// Ends the process if it has not ended, and says how it did.
    pub(crate) fn end(mut self) -> Ending {
        if let Some(broker) = self.broker.take() {
            broker::shut_down(&broker);
        }
        if self.process.has_ended(Duration::ZERO) {
            return self.process.reap();
        }
        if !self.process.kill() {
            // Out of reach: it can only be asked.
            let _asked = self.control.send(Request::Stop, &[]);
        }
        self.process.end()
    }

    /// Stops talking to the worker, which goes on serving.
    pub(crate) fn leave(mut self) {
        if let Some(broker) = self.broker.take() {
            broker::shut_down(&broker);
        }
    }

    /// Without a broker the worker serves without passthrough, so nothing here is an error.
    fn connect_broker(&mut self, place: &Place, connection: &fuse::Connection) {
        let socket = match Link::connect(place.directory(), &place.socket_name(), Role::Broker) {
            Ok((link, _)) => Arc::new(link.into_socket()),
            Err(error) => {
                tracing::warn!(%error, "the worker's broker connection failed; no passthrough");
                return;
            }
        };
        let Ok(connection) = connection.try_clone() else { return };
        let owner = self.owner;
        let kept = Arc::clone(&socket);
        let serve = move || {
            let backings = fuse::DeviceBackings::new(connection);
            broker::answer_calls(&socket, &backings, owner);
        };
        let thread = std::thread::Builder::new().name("broker".to_owned()).stack_size(512 * 1024);
        match thread.spawn(serve) {
            Ok(_detached) => self.broker = Some(kept),
            Err(error) => tracing::warn!(%error, "no thread for a broker; no passthrough"),
        }
    }
}

/// Whether the descriptor is /dev/fuse (misc device 10:229); a worker could send anything.
pub(crate) fn is_fuse_device(fd: &OwnedFd) -> bool {
    let fuse = nix::sys::stat::makedev(10, 229);
    nix::sys::stat::fstat(fd).is_ok_and(|meta| meta.st_rdev == fuse)
}

/// A worker that could not be taken over; a stored connection comes back for the next one.
#[derive(Debug)]
pub(crate) struct AdoptError {
    pub(crate) why: String,
    pub(crate) stored: Option<OwnedFd>,
    /// The worker, if it serves and is only to be replaced.
    pub(crate) predecessor: Option<Box<Worker>>,
}

/// Why there is no serving worker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The worker itself says why.
    #[error(transparent)]
    Refused(Fault),
    /// Whoever starts workers does not.
    #[error(transparent)]
    Nursery(#[from] NurseryError),
    /// It ended.
    #[error("the worker {0} before it was ready: {1}")]
    Ended(Ending, PacketError),
    /// It ended, or broke the connection, when it should have begun to serve.
    #[error("the worker ended before it served: {0}")]
    Lost(PacketError),
    /// It took too long.
    #[error("the worker was not ready in time: {0}")]
    Slow(PacketError),
    /// It answered nonsense.
    #[error("the worker answered {0}")]
    Protocol(String),
    /// The host refused something.
    #[error("{0}: {1}")]
    Host(&'static str, io::Error),
}

impl StartError {
    /// How the worker's life counts.
    pub(crate) fn ending(&self) -> Ending {
        match self {
            StartError::Ended(ending, _) => *ending,
            StartError::Refused(_)
            | StartError::Nursery(_)
            | StartError::Lost(_)
            | StartError::Slow(_)
            | StartError::Protocol(_)
            | StartError::Host(..) => Ending::Unknown,
        }
    }

    /// The fault for the caller.
    pub(crate) fn into_fault(self, request: &LaunchRequest) -> Fault {
        let kind = match &self {
            StartError::Refused(fault) => return fault.clone(),
            StartError::Nursery(error) => return no_nursery(error, request),
            StartError::Ended(..) | StartError::Lost(_) | StartError::Protocol(_) => FaultKind::Internal,
            StartError::Slow(_) => FaultKind::DeadlineExceeded,
            StartError::Host(..) => FaultKind::Unavailable,
        };
        Fault::new(kind, "start worker", request.key.as_str(), format!("{self}; its log says more"))
    }
}

/// The fault of a mount that nobody starts a worker for.
pub(crate) fn no_nursery(error: &NurseryError, request: &LaunchRequest) -> Fault {
    Fault::new(FaultKind::Unavailable, "start worker", request.key.as_str(), error.to_string())
        .with_retry(Retry::Later)
}
