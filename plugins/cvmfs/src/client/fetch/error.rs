//! What can go wrong between a name and its verified content.

use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use volume::{Fault, FaultKind, Retry};

use crate::client::cache::StorageError;

/// Why something could not be fetched. The URL is the one of the last attempt, with the proxy where one was used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// A host name has no address.
    #[error("{url}: no address for {host}: {detail}")]
    Resolve {
        /// Attempted URL.
        url: Arc<str>,
        /// Name that was looked up.
        host: String,
        /// What the resolver said.
        detail: String,
    },
    /// No TCP connection, or it broke before an answer.
    #[error("{url}: {detail}")]
    Connect {
        /// Attempted URL.
        url: Arc<str>,
        /// What the kernel said.
        detail: String,
    },
    /// No answer in time, or bytes came slower than the limit.
    #[error("{url}: no progress within {:.1} s", .waited.as_secs_f32())]
    Slow {
        /// Attempted URL.
        url: Arc<str>,
        /// How long one attempt waited.
        waited: Duration,
    },
    /// The body ended early, or was no valid HTTP.
    #[error("{url}: the transfer broke off: {detail}")]
    Broken {
        /// Attempted URL.
        url: Arc<str>,
        /// What was wrong.
        detail: String,
    },
    /// The server has no such thing (404), nor has any other server.
    #[error("{url}: not found on any server")]
    NotFound {
        /// Attempted URL.
        url: Arc<str>,
    },
    /// Any other status than the one wanted.
    #[error("{url}: HTTP status {status}")]
    Status {
        /// Attempted URL.
        url: Arc<str>,
        /// Status code.
        status: u16,
    },
    /// A redirect that may not be followed, or goes round in circles.
    #[error("{url}: redirect not followed (CVMFS_FOLLOW_REDIRECTS; at most 4, http only)")]
    Redirect {
        /// Attempted URL.
        url: Arc<str>,
    },
    /// A server answered a request for a range with something else.
    #[error("{url}: the server ignores ranges; it cannot serve chunked external files")]
    RangeIgnored {
        /// Attempted URL.
        url: Arc<str>,
    },
    /// More bytes than allowed.
    #[error("{url}: longer than the limit of {limit} bytes")]
    TooLarge {
        /// Attempted URL.
        url: Arc<str>,
        /// The limit.
        limit: u64,
    },
    /// The transferred bytes are not those that the name stands for, on any server.
    #[error("{url}: wrong content: its hash is not {expected}")]
    WrongHash {
        /// Attempted URL.
        url: Arc<str>,
        /// The name.
        expected: String,
    },
    /// The right bytes, but the catalog tells another size.
    #[error("{url}: its size is not the {expected} bytes of the catalog")]
    WrongSize {
        /// Attempted URL.
        url: Arc<str>,
        /// Size in the catalog.
        expected: u64,
    },
    /// The right bytes, but they are no zlib stream.
    #[error("{url}: is no zlib stream")]
    BadStream {
        /// Attempted URL.
        url: Arc<str>,
    },
    /// The call's deadline passed; what was wrong last is in `last`.
    #[error("{url}: gave up after {:.1} s{}", .after.as_secs_f32(), .last.as_deref().map_or(" without an answer in time".to_owned(), |last| format!("; {last}")))]
    Deadline {
        /// Attempted URL.
        url: Arc<str>,
        /// The deadline.
        after: Duration,
        /// The error before, if there was one.
        last: Option<String>,
    },
    /// External data, but no external server is configured.
    #[error("{path}: external data, but CVMFS_EXTERNAL_URL is not set")]
    NoExternalServer {
        /// Path in the repository.
        path: String,
    },
    /// The name cannot be made into a URL.
    #[error("{name:?} is no object name")]
    BadName {
        /// What was asked for.
        name: String,
    },
    /// Neither disk nor memory took the content.
    #[error("{0}")]
    Storage(#[from] StorageError),
    /// The fetcher is shutting down.
    #[error("{url}: stopped")]
    Stopped {
        /// Object.
        url: Arc<str>,
    },
}

impl FetchError {
    /// The situation as the rest of volplane knows it.
    pub fn kind(&self) -> FaultKind {
        match self {
            FetchError::Resolve { .. }
            | FetchError::Connect { .. }
            | FetchError::Slow { .. }
            | FetchError::Broken { .. }
            | FetchError::Status { .. }
            | FetchError::Redirect { .. } => FaultKind::Unavailable,
            FetchError::NotFound { .. } => FaultKind::NotFound,
            FetchError::RangeIgnored { .. } | FetchError::NoExternalServer { .. } => FaultKind::Unsupported,
            FetchError::TooLarge { .. }
            | FetchError::WrongHash { .. }
            | FetchError::WrongSize { .. }
            | FetchError::BadStream { .. } => FaultKind::Untrusted,
            FetchError::Deadline { .. } => FaultKind::DeadlineExceeded,
            FetchError::BadName { .. } => FaultKind::InvalidArgument,
            FetchError::Storage(_) => FaultKind::ResourceExhausted,
            FetchError::Stopped { .. } => FaultKind::Cancelled,
        }
    }

    /// What an application sees. Remote trouble is EIO, as with the C++ client.
    pub fn errno(&self) -> Errno {
        match self {
            FetchError::Resolve { .. }
            | FetchError::Connect { .. }
            | FetchError::Slow { .. }
            | FetchError::Broken { .. }
            | FetchError::NotFound { .. }
            | FetchError::Status { .. }
            | FetchError::Redirect { .. }
            | FetchError::RangeIgnored { .. }
            | FetchError::TooLarge { .. }
            | FetchError::WrongHash { .. }
            | FetchError::WrongSize { .. }
            | FetchError::BadStream { .. }
            | FetchError::Deadline { .. }
            | FetchError::NoExternalServer { .. }
            | FetchError::BadName { .. }
            | FetchError::Storage(_) => Errno::EIO,
            FetchError::Stopped { .. } => Errno::EINTR,
        }
    }

    /// The URL (or name) it is about.
    pub fn subject(&self) -> &str {
        match self {
            FetchError::Resolve { url, .. }
            | FetchError::Connect { url, .. }
            | FetchError::Slow { url, .. }
            | FetchError::Broken { url, .. }
            | FetchError::NotFound { url }
            | FetchError::Status { url, .. }
            | FetchError::Redirect { url }
            | FetchError::RangeIgnored { url }
            | FetchError::TooLarge { url, .. }
            | FetchError::WrongHash { url, .. }
            | FetchError::WrongSize { url, .. }
            | FetchError::BadStream { url }
            | FetchError::Deadline { url, .. }
            | FetchError::Stopped { url } => url,
            FetchError::NoExternalServer { path } => path,
            FetchError::BadName { name } => name,
            FetchError::Storage(_) => "",
        }
    }

    /// As a fault of the operation `op` (`mount`, `read`).
    pub fn fault(&self, op: &str) -> Fault {
        let text = self.to_string();
        // Messages begin with their subject; a fault shows it by itself.
        let detail =
            text.strip_prefix(self.subject()).map_or(text.as_str(), |rest| rest.trim_start_matches(": "));
        let fault = Fault::new(self.kind(), op, self.subject(), detail);
        // A server may be in the middle of its replication.
        if matches!(self, FetchError::NotFound { .. }) { fault.with_retry(Retry::Later) } else { fault }
    }
}
