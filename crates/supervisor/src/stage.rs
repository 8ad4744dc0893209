//! What a worker is doing, and its answers on the control connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use volume::{Fault, FaultKind, LaunchRequest, MountKey, WorkerReport};

use crate::broker::{BrokerClient, shut_down};
use crate::packet::{self, PacketError};
use crate::protocol::{Answer, Call, Reply, Request};
use crate::{PreparedServant, Servant, ServeContext, ServingServant};

/// How long an answer may wait for room in the socket.
const SENDING: Duration = Duration::from_secs(5);

/// Most bytes of samples and details in a report; the rest of a packet is room for texts.
const REPORT_LIMIT: usize = packet::PACKET_LIMIT / 2;

enum State {
    Fresh,
    /// A request is being worked on; the state comes back with its result.
    Occupied,
    Prepared(Box<dyn PreparedServant>),
    Serving(Arc<dyn ServingServant>, Arc<fuse::Connection>),
}

/// The one thing that a worker serves.
pub(crate) struct Stage {
    servant: Arc<dyn Servant>,
    request: LaunchRequest,
    broker: Arc<BrokerClient>,
    state: Mutex<State>,
    control: Mutex<Option<Arc<OwnedFd>>>,
    refreshing: Mutex<()>,
}

impl Stage {
    pub(crate) fn new(
        servant: Arc<dyn Servant>,
        request: LaunchRequest,
        broker: Arc<BrokerClient>,
    ) -> Arc<Stage> {
        Arc::new(Stage {
            servant,
            request,
            broker,
            state: Mutex::new(State::Fresh),
            control: Mutex::new(None),
            refreshing: Mutex::new(()),
        })
    }

    /// The mount's identity.
    pub(crate) fn key(&self) -> &MountKey {
        &self.request.key
    }

    /// Whether a FUSE connection is served.
    pub(crate) fn is_serving(&self) -> bool {
        matches!(*self.state.lock(), State::Serving(..))
    }

    /// The worker's side of the broker.
    pub(crate) fn broker(&self) -> &Arc<BrokerClient> {
        &self.broker
    }

    /// Answers on `socket` from now on, in a thread of its own; an earlier control connection is closed.
    pub(crate) fn attend(self: &Arc<Self>, socket: OwnedFd) -> io::Result<()> {
        let socket = Arc::new(socket);
        if let Some(old) = self.control.lock().replace(Arc::clone(&socket)) {
            shut_down(&old);
        }
        let stage = Arc::clone(self);
        std::thread::Builder::new().name("control".to_owned()).spawn(move || stage.answer_calls(&socket))?;
        Ok(())
    }

    fn answer_calls(self: Arc<Self>, socket: &Arc<OwnedFd>) {
        loop {
            match packet::receive::<Call>(socket.as_fd(), 2, None) {
                Ok((call, fds)) => self.answer(socket, call, fds),
                Err(error) => {
                    if !matches!(error, PacketError::Closed) {
                        tracing::warn!(key = %self.key(), %error, "the control connection broke");
                    }
                    break;
                }
            }
        }
        let mut control = self.control.lock();
        if control.as_ref().is_some_and(|current| Arc::ptr_eq(current, socket)) {
            *control = None;
            drop(control);
            if !self.is_serving() {
                tracing::info!(key = %self.key(), "the daemon went away before the mount; the worker ends");
                std::process::exit(0);
            }
        }
    }

    fn answer(self: &Arc<Self>, socket: &Arc<OwnedFd>, call: Call, fds: Vec<OwnedFd>) {
        match call.request {
            Request::Report => {
                let reply = Reply::Report(Box::new(self.report()));
                respond(socket, call.id, reply, &[]);
            }
            Request::GiveConnection => match self.connection() {
                Some(connection) => respond(socket, call.id, Reply::Connection, &[connection.as_fd()]),
                None => respond(socket, call.id, Reply::Failed(self.fault("nothing is served yet")), &[]),
            },
            Request::Stop => {
                let serving = self.serving();
                if let Some(serving) = serving {
                    serving.stop();
                }
                respond(socket, call.id, Reply::Done, &[]);
                std::process::exit(0);
            }
            // These can take long; reports are answered meanwhile.
            Request::Prepare { .. } | Request::Refresh | Request::Serve { .. } => {
                let (stage, socket) = (Arc::clone(self), Arc::clone(socket));
                let id = call.id;
                let work = {
                    let socket = Arc::clone(&socket);
                    move || {
                        let reply = match stage.work(call.request, fds) {
                            Ok(()) => Reply::Done,
                            Err(fault) => Reply::Failed(fault),
                        };
                        respond(&socket, id, reply, &[]);
                    }
                };
                if let Err(error) = std::thread::Builder::new().name("request".to_owned()).spawn(work) {
                    respond(&socket, id, Reply::Failed(self.fault(&format!("no thread: {error}"))), &[]);
                }
            }
        }
    }

    fn work(self: &Arc<Self>, request: Request, fds: Vec<OwnedFd>) -> Result<(), Fault> {
        match request {
            Request::Prepare { offline } => self.prepare(offline),
            Request::Serve { adopted } => self.serve(adopted, fds),
            Request::Refresh => match (self.serving(), self.refreshing.try_lock()) {
                (None, _) => Err(self.fault("nothing is served yet")),
                (Some(_), None) => Err(Fault::new(
                    FaultKind::Busy,
                    "refresh",
                    self.key().as_str(),
                    "another refresh is under way",
                )),
                (Some(serving), Some(_one_at_a_time)) => serving.refresh(),
            },
            Request::Report | Request::GiveConnection | Request::Stop => Ok(()),
        }
    }

    fn prepare(&self, offline: bool) -> Result<(), Fault> {
        match std::mem::replace(&mut *self.state.lock(), State::Occupied) {
            State::Fresh => {}
            other => {
                *self.state.lock() = other;
                return Err(self.fault("the worker was prepared already"));
            }
        }
        let prepared = self.servant.prepare(self.request.driver, self.request.payload.clone(), offline);
        let (state, result) = match prepared {
            Ok(prepared) => (State::Prepared(prepared), Ok(())),
            Err(fault) => (State::Fresh, Err(fault)),
        };
        *self.state.lock() = state;
        result
    }

    fn serve(self: &Arc<Self>, adopted: bool, fds: Vec<OwnedFd>) -> Result<(), Fault> {
        let Ok([connection, state]) = <[OwnedFd; 2]>::try_from(fds) else {
            return Err(self.fault("the connection and the state file did not come along"));
        };
        let prepared = match std::mem::replace(&mut *self.state.lock(), State::Occupied) {
            State::Prepared(prepared) => prepared,
            other => {
                *self.state.lock() = other;
                return Err(self.fault("the worker is not prepared"));
            }
        };
        let connection = fuse::Connection::from_fd(connection);
        let kept = connection.try_clone().map_err(|error| self.fault(&error.to_string()))?;
        let context = ServeContext {
            connection,
            adopted,
            state: state.into(),
            backings: Arc::clone(&self.broker) as Arc<dyn fuse::Backings>,
        };
        match prepared.serve(context) {
            Ok(serving) => {
                let watched = Arc::clone(&serving);
                *self.state.lock() = State::Serving(serving, Arc::new(kept));
                let key = self.key().clone();
                let watch = move || {
                    watched.wait();
                    tracing::debug!(%key, "the mount is gone; the worker ends");
                    std::process::exit(0);
                };
                std::thread::Builder::new()
                    .name("until-unmounted".to_owned())
                    .spawn(watch)
                    .map_err(|error| self.fault(&error.to_string()))?;
                Ok(())
            }
            Err(fault) => {
                *self.state.lock() = State::Fresh;
                Err(fault)
            }
        }
    }

    fn serving(&self) -> Option<Arc<dyn ServingServant>> {
        match &*self.state.lock() {
            State::Serving(serving, _) => Some(Arc::clone(serving)),
            State::Fresh | State::Occupied | State::Prepared(_) => None,
        }
    }

    fn connection(&self) -> Option<Arc<fuse::Connection>> {
        match &*self.state.lock() {
            State::Serving(_, connection) => Some(Arc::clone(connection)),
            State::Fresh | State::Occupied | State::Prepared(_) => None,
        }
    }

    fn report(&self) -> WorkerReport {
        let mut report = self.serving().map(|serving| serving.report()).unwrap_or_default();
        let size = |report: &WorkerReport| serde_json::to_vec(report).map_or(usize::MAX, |bytes| bytes.len());
        if size(&report) > REPORT_LIMIT {
            report.samples.clear();
        }
        if size(&report) > REPORT_LIMIT {
            report.details.clear();
        }
        report
    }

    fn fault(&self, detail: &str) -> Fault {
        Fault::new(FaultKind::Internal, "serve", self.key().as_str(), detail)
    }
}

fn respond(socket: &OwnedFd, id: u64, reply: Reply, fds: &[BorrowedFd<'_>]) {
    if let Err(error) = packet::send(socket.as_fd(), &Answer { id, reply }, fds, SENDING) {
        tracing::debug!(%error, "an answer could not be sent; the daemon has gone");
    }
}
