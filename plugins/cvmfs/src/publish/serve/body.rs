//! A part of a file as a response body, read in pieces on the blocking threads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

const PIECE_BYTES: u64 = 256 << 10;

/// A part of a file.
#[derive(Debug, Default)]
pub(super) struct FileBody {
    file: Option<Arc<File>>,
    at: u64,
    end: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(super) fn empty() -> Self {
        FileBody::default()
    }

    /// Bytes from `start` to `end`, which is excluded.
    pub(super) fn new(file: Arc<File>, start: u64, end: u64) -> Self {
        FileBody { file: Some(file), at: start, end, reading: None }
    }
}

fn read(file: &File, at: u64, length: usize) -> io::Result<Bytes> {
    let mut piece = vec![0; length];
    // A file that shrank ends the connection: the length was promised.
    file.read_exact_at(&mut piece, at)?;
    Ok(piece.into())
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let left = self.end - self.at;
        let Some(file) = self.file.as_ref().filter(|_| left > 0) else { return Poll::Ready(None) };
        let (file, at) = (Arc::clone(file), self.at);
        let length = left.min(PIECE_BYTES) as usize;
        let reading =
            self.reading.get_or_insert_with(|| tokio::task::spawn_blocking(move || read(&file, at, length)));
        let read =
            ready!(Pin::new(reading).poll(context)).unwrap_or_else(|error| Err(io::Error::other(error)));
        self.reading = None;
        match read {
            Ok(piece) => {
                self.at += piece.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Err(error) => {
                self.file = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.end || self.file.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end - self.at)
    }
}
