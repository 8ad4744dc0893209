//! Accepted connections, so many at a time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::warn;

use crate::authority::Mended;

/// Bytes that are read at a time.
const READ: usize = 8 << 10;

/// A connection that counts until it is closed.
pub(crate) struct Connection {
    stream: UnixStream,
    _permit: OwnedSemaphorePermit,
    /// Callers that dial the socket by its path are not understood otherwise.
    mended: Mended,
    /// What has come in and is not read yet, from `read` on.
    ready: Vec<u8>,
    read: usize,
}

impl Connection {
    fn new(stream: UnixStream, permit: OwnedSemaphorePermit) -> Self {
        Connection { stream, _permit: permit, mended: Mended::new(), ready: Vec::new(), read: 0 }
    }
}

/// Accepts in a task, which owns the listener and ends when it is aborted or the stream is dropped. At most `limit`
/// connections are open at a time; more wait in the socket's backlog.
pub(crate) fn accept(
    listener: UnixListener,
    limit: usize,
) -> (JoinHandle<()>, ReceiverStream<io::Result<Connection>>) {
    let (sender, receiver) = mpsc::channel(1);
    let permits = Arc::new(Semaphore::new(limit));
    let accepting = tokio::spawn(async move {
        loop {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    if sender.send(Ok(Connection::new(stream, permit))).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, "accept on the CSI socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    (accepting, ReceiverStream::new(receiver))
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.read == this.ready.len() {
            this.ready.clear();
            this.read = 0;
            let mut bytes = [0; READ];
            let mut arrived = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut arrived))?;
            if arrived.filled().is_empty() {
                this.mended.end(&mut this.ready);
                if this.ready.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.mended.pass(arrived.filled(), &mut this.ready);
            }
        }
        let now = buffer.remaining().min(this.ready.len() - this.read);
        buffer.put_slice(&this.ready[this.read..this.read + now]);
        this.read += now;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
