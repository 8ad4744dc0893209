//! From a request to a status, headers and a part of a file.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use hyper::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue,
};
use hyper::{Response, StatusCode};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::body::FileBody;
use super::request::Asked;

/// Objects never change; three days, as the reference server grants.
const OBJECT_SECONDS: u32 = 259_200;
/// Manifest and whitelist change with every revision.
const CHANGING_SECONDS: u32 = 61;

/// Only what everybody on this machine may read is for everybody else.
const READABLE_BY_ALL: u32 = 0o004;

/// An answer that is not yet a response.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: Vec<(HeaderName, String)>,
    /// The file and the part of it to send.
    content: Option<(Arc<File>, u64, u64)>,
}

impl Answer {
    /// Nothing but a status.
    pub(super) fn refused(status: StatusCode) -> Self {
        let allowed = (status == StatusCode::METHOD_NOT_ALLOWED).then(|| (ALLOW, "GET, HEAD".to_owned()));
        Answer { status, headers: allowed.into_iter().collect(), content: None }
    }

    /// `head`: all of it but the content.
    pub(super) fn into_response(self, head: bool) -> Response<FileBody> {
        let length = self.content.as_ref().map_or(0, |(_, start, end)| end - start);
        let body = match self.content {
            Some((file, start, end)) if !head => FileBody::new(file, start, end),
            _ => FileBody::empty(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.status != StatusCode::NOT_MODIFIED {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        for (name, value) in self.headers {
            let value = HeaderValue::from_str(&value).expect("the server's own header values are ASCII");
            headers.insert(name, value);
        }
        response
    }
}

/// Finds and opens what was asked for.
pub(super) fn answer(root: BorrowedFd<'_>, asked: &Asked) -> Answer {
    let file = match open(root, &asked.path) {
        Ok(file) => file,
        Err(status) => return Answer::refused(status),
    };
    let metadata = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Answer::refused(StatusCode::NOT_FOUND),
        Err(_) => return Answer::refused(StatusCode::INTERNAL_SERVER_ERROR),
    };
    // Keys may be beside a repository, and the server may run as their owner.
    if metadata.mode() & READABLE_BY_ALL == 0 {
        return Answer::refused(StatusCode::FORBIDDEN);
    }
    let length = metadata.len();
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    let tag = format!("\"{:x}.{:x}-{:x}-{length:x}\"", modified.0, modified.1, metadata.ino());
    let object = asked.path.split(|byte| *byte == b'/').any(|name| name == b"data");
    let seconds = if object { OBJECT_SECONDS } else { CHANGING_SECONDS };
    let mut headers = vec![
        (ETAG, tag.clone()),
        (CACHE_CONTROL, format!("max-age={seconds}")),
        (ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let known = asked.known.as_deref().unwrap_or("");
    if known == "*" || known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag) {
        return Answer { status: StatusCode::NOT_MODIFIED, headers, content: None };
    }
    headers.push((CONTENT_TYPE, "application/octet-stream".to_owned()));
    let (status, start, end) = match asked.range.map(|range| range.within(length)) {
        None => (StatusCode::OK, 0, length),
        Some(Some((start, end))) => {
            headers.push((CONTENT_RANGE, format!("bytes {start}-{}/{length}", end - 1)));
            (StatusCode::PARTIAL_CONTENT, start, end)
        }
        Some(None) => {
            headers.push((CONTENT_RANGE, format!("bytes */{length}")));
            return Answer { status: StatusCode::RANGE_NOT_SATISFIABLE, headers, content: None };
        }
    };
    Answer { status, headers, content: Some((Arc::new(file), start, end)) }
}

/// # Errors
/// The status to refuse with.
fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<File, StatusCode> {
    // Unfinished objects are nobody's business.
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    if names.iter().any(|name| [&b"."[..], b".."].contains(name)) {
        return Err(StatusCode::FORBIDDEN);
    }
    if names.is_empty() || names.windows(2).any(|pair| pair == [&b"data"[..], b"txn"]) {
        return Err(StatusCode::NOT_FOUND);
    }
    let how = OpenHow::new()
        // Without O_NONBLOCK, opening a fifo would wait for a writer.
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        return match openat2(root, Path::new(std::ffi::OsStr::from_bytes(path)), how) {
            Ok(file) => Ok(File::from(file)),
            // The kernel could not be sure that a path with `..` stays inside while somebody renames.
            Err(Errno::EINTR | Errno::EAGAIN) => continue,
            Err(Errno::EACCES | Errno::EPERM | Errno::EXDEV | Errno::ELOOP) => Err(StatusCode::FORBIDDEN),
            Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSYS) => {
                Err(StatusCode::SERVICE_UNAVAILABLE)
            }
            Err(Errno::EIO) => {
                tracing::error!(path = %String::from_utf8_lossy(path), error = %io::Error::from(Errno::EIO), "cannot open");
                Err(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Err(_) => Err(StatusCode::NOT_FOUND),
        };
    }
}
