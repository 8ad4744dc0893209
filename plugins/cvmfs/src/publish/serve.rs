//! Offers repositories over HTTP: a static file server for tests, demonstrations and small sites.
//!
//! It does what clients, proxies and replicas need (GET, HEAD, one range, entity tags, keep-alive, times to live by kind of file)
//! and nothing else. Everything is bounded: connections, header bytes, the time a peer may idle or take nothing. The kernel keeps
//! requests inside of the directory (`openat2` with `RESOLVE_BENEATH`), so neither `..` nor a symbolic link leads out of it;
//! and what is not readable by everybody on this machine (keys) is not served, whoever the server runs as.
//! Large sites put a caching proxy before it, or use a web server of their own: the files are all there is.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

mod answer;
mod body;
mod patience;
mod request;
#[cfg(test)]
mod tests;

use answer::Answer;
use body::FileBody;
use patience::Patient;

/// Request lines and headers of all clients and proxies fit in this many bytes.
const HEADER_BYTES: usize = 16 << 10;
/// After an accept that failed (too many open files, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the server grants its peers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServeLimits {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long a connection may be without a byte in either direction.
    pub idle: Duration,
}

impl Default for ServeLimits {
    /// 1024 connections (some 64 KiB each while idle), one minute.
    fn default() -> Self {
        ServeLimits { connections: 1024, idle: Duration::from_secs(60) }
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory cannot be opened.
    #[error("cannot serve {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another address or port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No runtime or thread.
    #[error("cannot start the server: {0}")]
    Start(#[source] io::Error),
}

/// A listening server that does not answer yet.
#[derive(Debug)]
pub struct FileServer {
    listener: TcpListener,
    address: SocketAddr,
    root: Arc<OwnedFd>,
    limits: ServeLimits,
}

impl FileServer {
    /// Opens the directory and listens. Port 0 takes any free one, see [`address`](Self::address).
    ///
    /// # Errors
    /// [`ServeError::Directory`], [`ServeError::Listen`].
    pub fn bind(root: &Path, listen: SocketAddr, limits: ServeLimits) -> Result<Self, ServeError> {
        use nix::fcntl::{OFlag, open};
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(root, flags, nix::sys::stat::Mode::empty())
            .map_err(|errno| ServeError::Directory { path: root.to_owned(), source: errno.into() })?;
        let bind = || -> io::Result<_> {
            let listener = TcpListener::bind(listen)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) = bind().map_err(|source| ServeError::Listen { address: listen, source })?;
        Ok(FileServer { listener, address, root: Arc::new(root), limits })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` completes; connections are closed then.
    ///
    /// # Errors
    /// When the listener cannot be given to the runtime.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let listener = tokio::net::TcpListener::from_std(self.listener).map_err(ServeError::Start)?;
        let slots = Arc::new(Semaphore::new(self.limits.connections.max(1)));
        let mut connections = JoinSet::new();
        let accepting = async {
            loop {
                let slot = Arc::clone(&slots).acquire_owned().await;
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let (root, idle) = (Arc::clone(&self.root), self.limits.idle);
                connections.spawn(async move {
                    let _slot = slot;
                    connection(stream, root, idle).await;
                });
                while connections.try_join_next().is_some() {}
            }
        };
        tokio::select! {
            () = accepting => {}
            () = shutdown => {}
        }
        connections.shutdown().await;
        Ok(())
    }

    /// Answers on a thread of its own, until the handle is dropped.
    ///
    /// # Errors
    /// [`ServeError::Start`].
    pub fn spawn(self) -> Result<ServingFiles, ServeError> {
        let address = self.address;
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("file-server")
            .enable_all()
            .build()
            .map_err(ServeError::Start)?;
        let run = move || {
            let result = runtime.block_on(self.run(async {
                let _ = stopped.await;
            }));
            if let Err(error) = result {
                tracing::error!(%error, "the file server ended");
            }
        };
        let thread = std::thread::Builder::new()
            .name("file-server".to_owned())
            .spawn(run)
            .map_err(ServeError::Start)?;
        Ok(ServingFiles { address, stop: Some(stop), thread: Some(thread) })
    }
}

/// A running server; dropped, it stops and is joined.
#[derive(Debug)]
pub struct ServingFiles {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ServingFiles {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://ADDRESS/path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{}", self.address, path.trim_start_matches('/'))
    }
}

impl Drop for ServingFiles {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, root: Arc<OwnedFd>, idle: Duration) {
    // Small answers must not wait for the peer's delayed acknowledgement; if it cannot be set, they do.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let root = Arc::clone(&root);
        async move { Ok::<_, Infallible>(respond(&root, &request).await) }
    });
    let result = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(Patient::new(stream, idle)), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn respond(root: &Arc<OwnedFd>, request: &Request<Incoming>) -> Response<FileBody> {
    let asked = match request::Asked::parse(request) {
        Ok(asked) => asked,
        Err(status) => return Answer::refused(status).into_response(false),
    };
    let head = asked.head;
    let root = Arc::clone(root);
    // Opening can wait for a disk.
    let answer = tokio::task::spawn_blocking(move || answer::answer(root.as_fd(), &asked)).await;
    let answer = answer.unwrap_or_else(|_| Answer::refused(hyper::StatusCode::INTERNAL_SERVER_ERROR));
    tracing::debug!(path = request.uri().path(), status = answer.status.as_u16(), "served");
    answer.into_response(head)
}
