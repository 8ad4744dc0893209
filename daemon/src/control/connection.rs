//! One connection of the control socket: messages with bounds and deadlines, and the moment when its client is gone.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::protocol::{LIMIT, Response};

/// How long a client may take to send a request that it began, or to take an answer.
pub(crate) const TRANSFER: Duration = Duration::from_secs(10);

/// Time between two looks at a connection that says it is readable: whether its client has gone altogether.
const LOOK: Duration = Duration::from_millis(100);

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A message, at most [`LIMIT`] bytes.
    Message(Vec<u8>),
    /// A message of so many bytes, which were not read.
    TooLong(usize),
    /// The client is done, or has said nothing for too long.
    End,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Connection {
        Connection { stream }
    }

    /// Waits for a message for `patience`.
    pub(crate) async fn hear(&mut self, patience: Duration) -> io::Result<Heard> {
        let length = match timeout(patience, self.stream.read_u32()).await {
            Ok(Ok(length)) => length as usize,
            Ok(Err(_)) | Err(_) => return Ok(Heard::End),
        };
        if length > LIMIT {
            return Ok(Heard::TooLong(length));
        }
        let mut json = vec![0_u8; length];
        timeout(TRANSFER, self.stream.read_exact(&mut json)).await.map_err(late)??;
        Ok(Heard::Message(json))
    }

    /// Sends an answer.
    pub(crate) async fn say(&mut self, response: &Response) -> io::Result<()> {
        let json = serde_json::to_vec(response)?;
        let sent = async {
            self.stream.write_u32(u32::try_from(json.len()).unwrap_or(u32::MAX)).await?;
            self.stream.write_all(&json).await
        };
        timeout(TRANSFER, sent).await.map_err(late)?
    }

    /// Returns when nobody is there any more who could take an answer. A client that only ends its side of the talk
    /// (`shutdown`) still waits for one, and what it has sent ahead stays unread.
    pub(crate) async fn hung_up(&self) {
        loop {
            // Wakes at an end, and at data that came too early.
            if self.stream.ready(Interest::READABLE).await.is_err() {
                return;
            }
            match self.stream.ready(Interest::READABLE | Interest::WRITABLE).await {
                Ok(ready) if !ready.is_write_closed() => sleep(LOOK).await,
                Ok(_) | Err(_) => return,
            }
        }
    }
}

fn late(_: tokio::time::error::Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_goes_is_noticed_and_one_that_only_ends_its_side_is_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours);
        theirs.write_all(b"\0\0\0\x02{}early").await.unwrap();
        assert_eq!(connection.hear(TRANSFER).await.unwrap(), Heard::Message(b"{}".to_vec()));
        theirs.shutdown().await.unwrap();
        assert!(timeout(3 * LOOK, connection.hung_up()).await.is_err(), "it still waits for its answer");
        connection.say(&Response::Ok(serde_json::Value::Null)).await.unwrap();
        drop(theirs);
        timeout(TRANSFER, connection.hung_up()).await.unwrap();
    }

    #[tokio::test]
    async fn an_end_without_a_word_is_noticed_too() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let connection = Connection::new(ours);
        let (_, ()) = tokio::join!(async { drop(theirs) }, connection.hung_up());
    }

    #[tokio::test]
    async fn a_message_is_bounded() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours);
        theirs.write_u32(u32::MAX).await.unwrap();
        assert_eq!(connection.hear(TRANSFER).await.unwrap(), Heard::TooLong(u32::MAX as usize));
        drop(theirs);
        assert_eq!(connection.hear(TRANSFER).await.unwrap(), Heard::End);
    }
}
