//! The executable's end of the control socket: blocking, and with a deadline on everything.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use volume::Fault;

use crate::wire::Question;

/// A daemon that does not answer a greeting within this time is down. Kubelet hears of it and tries again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// Most bytes of an answer; the daemon's own limit.
const LIMIT: usize = 1 << 20;

/// Why the daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers there: what was asked has not begun.
    #[error(
        "the volplane daemon does not answer at {} ({source}): start it on this node (`systemctl start volplane`, or its \
         pod), or name its directory with `volplane flexvolume install --run-dir`",
        path.display()
    )]
    Unreachable { path: PathBuf, source: io::Error },
    /// It was there and went away in the middle.
    #[error("the volplane daemon at {} went away before it had answered ({source})", path.display())]
    Broken { path: PathBuf, source: io::Error },
    /// Our own deadline has passed.
    #[error("it was not ready within {} s and is taken back", .0.as_secs())]
    Late(Duration),
    /// The daemon refused.
    #[error("{0}")]
    Refused(Fault),
}

/// An answer of the daemon (`proto/control.md`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Ok(serde::de::IgnoredAny),
    Error(Fault),
}

/// A daemon that has answered.
#[derive(Debug)]
pub(crate) struct Daemon {
    stream: UnixStream,
    path: PathBuf,
}

impl Daemon {
    /// Connects and waits for a first answer, for `patience` at most.
    pub(crate) fn greet(socket: &Path, patience: Duration) -> Result<Daemon, ClientError> {
        let unreachable = |source| ClientError::Unreachable { path: socket.to_owned(), source };
        let until = Instant::now() + patience;
        let stream = connect(socket, until).map_err(unreachable)?;
        let mut daemon = Daemon { stream, path: socket.to_owned() };
        // An older daemon refuses the greeting; it is there all the same.
        match daemon.exchange(&Question::Hello, until) {
            Ok(Answer::Ok(_) | Answer::Error(_)) => Ok(daemon),
            Err(source) => Err(unreachable(source)),
        }
    }

    /// Asks and waits for the answer for `limit`, counted from now.
    pub(crate) fn ask(&mut self, question: &Question<'_>, limit: Duration) -> Result<(), ClientError> {
        match self.exchange(question, Instant::now() + limit) {
            Ok(Answer::Ok(_)) => Ok(()),
            Ok(Answer::Error(fault)) => Err(ClientError::Refused(fault)),
            Err(error) if is_late(&error) => Err(ClientError::Late(limit)),
            Err(source) => Err(ClientError::Broken { path: self.path.clone(), source }),
        }
    }

    /// Confirms a mount. A daemon that says nothing to that is as good as gone: nobody knows whether it heard.
    pub(crate) fn confirm(&mut self, limit: Duration) -> Result<(), ClientError> {
        self.ask(&Question::FlexvolumeKeep, limit).map_err(|error| match error {
            ClientError::Late(_) => ClientError::Broken {
                path: self.path.clone(),
                source: io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            },
            other => other,
        })
    }

    fn exchange(&mut self, question: &Question<'_>, until: Instant) -> io::Result<Answer> {
        let json = serde_json::to_vec(question)?;
        let length = u32::try_from(json.len()).map_err(io::Error::other)?;
        self.write(&length.to_be_bytes(), until)?;
        self.write(&json, until)?;
        let mut length = [0_u8; 4];
        self.read(&mut length, until)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > LIMIT {
            return Err(io::Error::other(format!("an answer of {length} bytes; {LIMIT} is the limit")));
        }
        let mut json = vec![0_u8; length];
        self.read(&mut json, until)?;
        Ok(serde_json::from_slice(&json)?)
    }

    fn write(&mut self, mut bytes: &[u8], until: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(left(until)?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted || is_late(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, mut space: &mut [u8], until: Instant) -> io::Result<()> {
        while !space.is_empty() {
            self.stream.set_read_timeout(Some(left(until)?))?;
            match self.stream.read(space) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
                Ok(count) => space = space.get_mut(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted || is_late(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The time that is left; none is an error, as sockets take a limit of zero for none.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")) } else { Ok(left) }
}

/// A socket's own time limit is reported as either.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// A connect to a unix socket waits without limit while the backlog is full, so it is left to a thread.
fn connect(socket: &Path, until: Instant) -> io::Result<UnixStream> {
    let (sender, receiver) = mpsc::channel();
    let path = socket.to_owned();
    std::thread::Builder::new().name("connect".to_owned()).spawn(move || {
        // Nobody listens any more when it was too late.
        let _ = sender.send(UnixStream::connect(path));
    })?;
    receiver
        .recv_timeout(left(until)?)
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))?
}

#[cfg(test)]
mod tests;
