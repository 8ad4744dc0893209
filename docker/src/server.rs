//! The unix socket: connections, bounds, shutdown.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{Instrument, debug, info, info_span, warn};
use volume::{Driver, VolumeService};

use crate::calls::Calls;
use crate::engine;
use crate::reply::{Answer, Refusal, response};
use crate::request::{Body, Call};

/// Bounds of a plugin socket.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Connections at once; more wait in the socket's backlog. Engines keep one open and add one per call in flight.
    pub max_connections: usize,
    /// Bytes of a request body; engines send a few hundred.
    pub max_body_bytes: usize,
    /// How long a client may take to send a request after its first byte.
    pub receive_limit: Duration,
    /// How long calls in flight may go on after shutdown was asked for.
    pub drain_limit: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        ServerConfig {
            max_connections: 1024,
            max_body_bytes: 1 << 20,
            receive_limit: Duration::from_secs(10),
            drain_limit: Duration::from_secs(5),
        }
    }
}

/// One plugin socket, serving one driver.
pub struct Server {
    calls: Calls,
    config: ServerConfig,
}

impl Server {
    /// A server for `driver`'s volumes.
    pub fn new(service: Arc<dyn VolumeService>, driver: Driver, config: ServerConfig) -> Self {
        Server { calls: Calls { service, driver }, config }
    }

    /// Serves until `shutdown` completes, then lets calls in flight finish within the drain limit. Connections that
    /// fail are logged and forgotten; accepting goes on.
    pub async fn serve(self, listener: UnixListener, shutdown: impl Future<Output = ()>) {
        let server = Arc::new(self);
        let permits = Arc::new(Semaphore::new(server.config.max_connections));
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            while connections.try_join_next().is_some() {}
            let permit = tokio::select! {
                () = &mut shutdown => break,
                permit = permits.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            };
            let stream = tokio::select! {
                () = &mut shutdown => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, most likely; accepting at once again would spin.
                        warn!(%error, "accept on the plugin socket");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let (server, stopped) = (server.clone(), stopped.clone());
            connections.spawn(async move {
                server.connection(stream, stopped).await;
                drop(permit);
            });
        }
        drop(listener);
        let _ = stop.send(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if timeout(server.config.drain_limit, all).await.is_err() {
            info!(left = connections.len(), "calls of engines cut off at shutdown");
        }
    }

    async fn connection(self: Arc<Self>, stream: UnixStream, mut stopped: watch::Receiver<bool>) {
        let server = self.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.request(request).await) }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(64 << 10);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let asked_to_stop = async { stopped.wait_for(|stop| *stop).await.map(drop) };
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            _ = asked_to_stop => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%error, "connection of an engine ended");
        }
    }

    async fn request(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let frontend = engine::frontend(request.headers());
        let span = info_span!("docker", call = %path.trim_start_matches('/'), engine = frontend.as_str());
        async {
            let outcome = self.outcome(&path, frontend, request).await;
            response(outcome)
        }
        .instrument(span)
        .await
    }

    async fn outcome(
        &self,
        path: &str,
        frontend: volume::Frontend,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let call = Call::of_path(path);
        let bytes = self.receive(request.into_body()).await?;
        let body = Body::parse(&bytes)?;
        let outcome = self.calls.answer(call?, frontend, body).await;
        if let Err(refusal) = &outcome {
            info!(error = refusal.text(), "refused");
        }
        outcome
    }

    async fn receive(&self, body: Incoming) -> Result<Bytes, Refusal> {
        let limited = Limited::new(body, self.config.max_body_bytes);
        let collected = timeout(self.config.receive_limit, limited.collect()).await.map_err(|_| {
            let seconds = self.config.receive_limit.as_secs();
            Refusal::new(format!("the request body did not arrive within {seconds} s")).and_close()
        })?;
        match collected {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                let limit = self.config.max_body_bytes;
                Err(Refusal::new(format!("the request body is longer than {limit} bytes")).and_close())
            }
            Err(error) => {
                Err(Refusal::new(format!("the request body could not be read: {error}")).and_close())
            }
        }
    }
}

#[cfg(test)]
mod tests;
