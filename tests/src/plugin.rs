//! Speaks the volume plugin API as an engine does, for what no engine would send.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use crate::wait;

/// What a plugin answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its JSON body; null if that is none.
    pub body: Value,
}

impl Answer {
    /// The text of a refusal.
    ///
    /// # Panics
    /// When it is none: status 500 and a text in `Err`.
    pub fn refusal(&self) -> &str {
        assert_eq!(self.status, 500, "{self:?}");
        self.body["Err"]
            .as_str()
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| panic!("{self:?} says nothing"))
    }

    /// The body of a success.
    ///
    /// # Panics
    /// When it is none.
    pub fn success(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.body["Err"].as_str().unwrap_or(""), "", "{self:?}");
        &self.body
    }
}

/// `POST /VolumeDriver.<call>` with this body.
///
/// # Panics
/// When the plugin does not answer in time or not with HTTP.
pub fn call(socket: &Path, call: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let mut request = format!(
        "POST /VolumeDriver.{call} HTTP/1.1\r\nHost: plugin\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body.as_bytes());
    let bytes = send(socket, &request, false).expect("the plugin answers");
    parse(&bytes).unwrap_or_else(|| panic!("no HTTP answer: {}", String::from_utf8_lossy(&bytes)))
}

/// Sends bytes, closes that direction, and reads what comes until the other end closes. A peer that stops taking bytes
/// is no error.
///
/// # Errors
/// When it cannot be connected to, or nothing comes for [`wait::LONG`].
pub fn exchange(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    send(socket, request, true)
}

/// A plugin takes a closed direction for a client that hung up: only garbage may end so.
fn send(socket: &Path, request: &[u8], close: bool) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(wait::LONG))?;
    stream.set_write_timeout(Some(wait::LONG))?;
    let _ = stream.write_all(request);
    if close {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        // The rest of what it did not want to read was thrown away.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(answer),
        Err(error) => Err(error),
    }
}

/// The first HTTP answer in these bytes, which has a body of known length or one that ends with the connection.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: serde_json::from_str(body.trim()).unwrap_or(Value::Null) })
}
