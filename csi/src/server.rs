//! The unix socket: connections, bounds, deadlines, one span per call, shutdown.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use proto::csi::v1::controller_server::ControllerServer;
use proto::csi::v1::group_controller_server::GroupControllerServer;
use proto::csi::v1::identity_server::IdentityServer;
use proto::csi::v1::node_server::NodeServer;
use proto::csi::v1::snapshot_metadata_server::SnapshotMetadataServer;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service as TowerService};
use tonic::{Code, Status};
use tracing::{Instrument, field, info, info_span, warn};
use volume::VolumeService;

use crate::config::CsiConfig;
use crate::controller::Controller;
use crate::group::GroupController;
use crate::node::NodeService;
use crate::routes::Routes;
use crate::snapshot_metadata::SnapshotMetadata;
use crate::statistics::CallStatistics;
use crate::{Service, connections, deadline};

/// Bytes of one message. Kubernetes' objects, of which requests are made, are smaller than 1.5 MiB.
pub(crate) const MESSAGE_LIMIT: usize = 4 << 20;

/// Bounds of a driver's socket.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once; more wait in the socket's backlog. Kubelet opens one for each call, sidecars keep one.
    pub connections: usize,
    /// Calls at once over all connections; further ones are refused with UNAVAILABLE and come again. More than a node has
    /// pods: all of them may start at once after a reboot.
    pub calls: usize,
    /// Longest time of a call whose caller names none. The registry's own deadlines are shorter.
    pub call_limit: Duration,
    /// How long calls in flight may go on after shutdown was asked for.
    pub drain_limit: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            connections: 1024,
            calls: 1024,
            call_limit: Duration::from_secs(600),
            drain_limit: Duration::from_secs(5),
        }
    }
}

/// One driver on one socket.
pub struct Server {
    routes: Routes,
    bounds: Bounds,
    statistics: Arc<CallStatistics>,
}

impl Server {
    /// A server of the driver that `config` describes, with the services of its roles.
    pub fn new(volumes: Arc<dyn VolumeService>, config: CsiConfig, bounds: Bounds) -> Self {
        let service = Service { volumes, config: Arc::new(config) };
        let statistics = Arc::new(CallStatistics::new(service.driver()));
        Server { routes: services(&service), bounds, statistics }
    }

    /// Counts of its calls; they go on while it serves.
    pub fn statistics(&self) -> Arc<CallStatistics> {
        self.statistics.clone()
    }

    /// Serves until `shutdown` completes, then lets calls in flight finish within the drain limit. Connections that fail
    /// are forgotten; accepting goes on.
    pub async fn serve(self, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let bounds = self.bounds.clone();
        let front = Front {
            routes: Arc::new(self.routes),
            calls: Arc::new(Semaphore::new(bounds.calls)),
            call_limit: bounds.call_limit,
            statistics: self.statistics,
        };
        let streams = u32::try_from(bounds.calls).unwrap_or(u32::MAX);
        let (asked, was_asked) = oneshot::channel::<()>();
        let (accepting, connections) = connections::accept(listener, bounds.connections);
        let stop = async move {
            // An error means that the sender is gone, and that is a wish to end as well.
            let _ = was_asked.await;
        };
        let builder = tonic::transport::Server::builder().max_concurrent_streams(streams);
        let serving = builder.serve_with_incoming_shutdown(front, connections, stop);
        tokio::pin!(serving, shutdown);
        let ended = tokio::select! {
            () = &mut shutdown => {
                accepting.abort();
                let _ = asked.send(());
                timeout(bounds.drain_limit, serving).await
            }
            ended = &mut serving => Ok(ended),
        };
        accepting.abort();
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "the CSI socket is not served any more"),
            Err(_) => info!("CSI calls are left to the end of the process"),
        }
    }
}

/// The services of a driver's roles. Each is a generated server around a struct that holds a [`Service`], with
/// `max_decoding_message_size(MESSAGE_LIMIT)`.
fn services(service: &Service) -> Routes {
    let mut routes =
        Routes::default().with(IdentityServer::new(service.clone()).max_decoding_message_size(MESSAGE_LIMIT));
    if service.config.roles.node {
        let node = NodeService::new(service.clone());
        routes = routes.with(NodeServer::new(node).max_decoding_message_size(MESSAGE_LIMIT));
    }
    if service.config.roles.controller {
        let controller = ControllerServer::new(Controller(service.clone()));
        let group = GroupControllerServer::new(GroupController(service.clone()));
        let metadata = SnapshotMetadataServer::new(SnapshotMetadata(service.clone()));
        routes = routes
            .with(controller.max_decoding_message_size(MESSAGE_LIMIT))
            .with(group.max_decoding_message_size(MESSAGE_LIMIT))
            .with(metadata.max_decoding_message_size(MESSAGE_LIMIT));
    }
    routes
}

/// What stands before all services.
#[derive(Clone)]
struct Front {
    routes: Arc<Routes>,
    calls: Arc<Semaphore>,
    call_limit: Duration,
    statistics: Arc<CallStatistics>,
}

impl Front {
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let begun = Instant::now();
        let path = request.uri().path().to_owned();
        let method = path.rsplit('/').next().unwrap_or_default();
        let limit = deadline::of(request.headers()).unwrap_or(self.call_limit).min(self.call_limit);
        let answered = async {
            // Kept to the end of this block: one call in flight.
            let Ok(_permit) = self.calls.clone().try_acquire_owned() else {
                return Status::unavailable("too many calls at once; try again").into_http();
            };
            let Some(service) = self.routes.find(&path) else {
                return Status::unimplemented("this driver has no such service in this process").into_http();
            };
            match timeout(limit, service(request)).await {
                Ok(Ok(response)) => response,
                Err(_) => {
                    let text = format!("not done within the {} s that the caller gave", limit.as_secs_f32());
                    Status::deadline_exceeded(text).into_http()
                }
            }
        };
        let response = answered.await;
        let refusal = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
        if let Some(refusal) = &refusal {
            info!(code = ?refusal.code(), error = refusal.message(), "refused");
        }
        self.statistics.note(method, refusal.map_or(Code::Ok, |status| status.code()), begun.elapsed());
        response
    }
}

impl TowerService<Request<Body>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A path is a token of HTTP/2 without control characters; its length is bounded by the header limit, and cut here.
        let call: String = request.uri().path().chars().take(100).collect();
        let call = call.trim_start_matches("/csi.v1.");
        let span = info_span!("csi", call, volume = field::Empty, path = field::Empty);
        let front = self.clone();
        Box::pin(async move { Ok(front.answer(request).await) }.instrument(span))
    }
}

#[cfg(test)]
mod tests;
