//! The command line's end of the control socket; blocking.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use volume::Fault;

use super::protocol::{LIMIT, Request, Response};

/// Longer than any of the daemon's own deadlines.
const PATIENCE: Duration = Duration::from_secs(150);

/// Why the daemon did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody answers there.
    #[error(
        "no daemon answers at {}: {source}\n  start it with `systemctl start volplane` or `volplane serve`, or name its \
         directory with --run-dir",
        path.display()
    )]
    Unreachable { path: PathBuf, source: io::Error },
    /// The connection is only for root.
    #[error("{} is only for root; try again with sudo", .0.display())]
    Denied(PathBuf),
    /// The talk broke off.
    #[error("the daemon's answer did not arrive: {0}")]
    Broken(io::Error),
    /// The daemon refused.
    #[error("{0}")]
    Refused(Fault),
}

/// Asks the daemon whose control socket this is.
pub(crate) fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, ClientError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied(socket.to_owned()),
        _ => ClientError::Unreachable { path: socket.to_owned(), source },
    })?;
    let response = exchange(&mut stream, request).map_err(ClientError::Broken)?;
    match response {
        Response::Ok(value) => {
            serde_json::from_value(value).map_err(|error| ClientError::Broken(io::Error::other(error)))
        }
        Response::Error(fault) => Err(ClientError::Refused(fault)),
    }
}

fn exchange(stream: &mut UnixStream, request: &Request) -> io::Result<Response> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let json = serde_json::to_vec(request)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&json)?;
    let mut length = [0u8; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LIMIT {
        return Err(io::Error::other(format!("{length} bytes; {LIMIT} is the limit")));
    }
    let mut json = vec![0u8; length];
    stream.read_exact(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}
