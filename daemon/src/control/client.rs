//! The command line's end of the control socket; blocking, with a deadline.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use volume::Fault;

use super::{MAX_MESSAGE_BYTES, Request, Response};
use crate::config::control_socket;

/// Longer than the registry's own longest deadline.
const PATIENCE: Duration = Duration::from_secs(125);

/// Why the daemon gave no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers at the socket.
    #[error(
        "no volplane daemon answers at {socket}: {error}\nstart it (`systemctl start volplane`, or `volplane serve` as root), \
         or name its directory with --run-dir"
    )]
    NoDaemon { socket: PathBuf, error: io::Error },
    /// Something answers that does not speak this protocol, or the daemon died meanwhile.
    #[error("the daemon at {socket} did not answer as it should: {error}")]
    Broken { socket: PathBuf, error: io::Error },
    /// The daemon says that it cannot be done.
    #[error("{0}")]
    Fault(#[from] Fault),
}

/// Asks the daemon with this run directory.
pub(crate) fn call(run_dir: &Path, request: &Request) -> Result<Response, ClientError> {
    let socket = control_socket(run_dir);
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) => return Err(ClientError::NoDaemon { socket, error }),
    };
    match exchange(&mut stream, request) {
        Ok(Response::Fault(fault)) => Err(fault.into()),
        Ok(response) => Ok(response),
        Err(error) => Err(ClientError::Broken { socket, error }),
    }
}

fn exchange(stream: &mut UnixStream, request: &Request) -> io::Result<Response> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let bytes = serde_json::to_vec(request)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= MAX_MESSAGE_BYTES);
    let length = length.ok_or_else(|| io::Error::other("the request is longer than 1 MiB"))?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&bytes)?;
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    // The daemon is trusted not to lie about its own length; a wild number is still not allocated at once.
    let mut answer = Vec::new();
    let length = u64::from(u32::from_be_bytes(head));
    stream.take(length).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}
