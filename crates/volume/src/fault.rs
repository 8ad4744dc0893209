//! What went wrong, in the one form that crosses crate borders.

use std::fmt;

/// The closed list of situations a caller can tell apart.
///
/// Frontends turn it into an HTTP status, a FlexVolume status or a gRPC code with one exhaustive match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// What the caller sent makes no sense whatever the state is; sending it again does not help.
    InvalidArgument,
    /// A size or offset that this volume or driver cannot have.
    OutOfRange,
    /// The volume, repository, tag or file that was named does not exist.
    NotFound,
    /// The name is taken by something that differs from what was asked for.
    AlreadyExists,
    /// Another operation on the same key is under way.
    Busy,
    /// The thing is still used by somebody.
    InUse,
    /// The caller may not do this.
    PermissionDenied,
    /// Data failed its verification: signature, fingerprint, hash, expiry.
    Untrusted,
    /// A peer (server, proxy, worker) could not be reached or answered with an error.
    Unavailable,
    /// The operation did not finish within its deadline.
    DeadlineExceeded,
    /// Disk, memory, quota or another bound is used up.
    ResourceExhausted,
    /// The kernel, the configuration or this build cannot do it.
    Unsupported,
    /// The caller went away before the operation finished.
    Cancelled,
    /// An invariant of ours broke; a bug or a damaged state directory.
    Internal,
}

/// Whether the same request can succeed later without anybody changing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It fails again until the request or the configuration is changed.
    Never,
    /// It may succeed later.
    Later,
}

/// An error with everything a person needs: what was done (`op`), to what (`subject`), what happened and
/// what to do (`detail`).
///
/// Texts are for people. Nothing decides on a text; programs look at [`kind`](Fault::kind) and
/// [`retry`](Fault::retry).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// The situation.
    pub kind: FaultKind,
    /// The operation, a short verb phrase in lower case: `mount`, `verify whitelist`.
    pub op: String,
    /// What the operation was about: a volume, repository, path or option.
    pub subject: String,
    /// Whether a retry can help.
    pub retry: Retry,
    /// What happened and what to do, in lower case, without a trailing full stop. Never a secret.
    pub detail: String,
}

impl Fault {
    /// A fault with the usual answer to "does a retry help" for its kind.
    pub fn new(
        kind: FaultKind,
        op: impl Into<String>,
        subject: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        let retry = match kind {
            FaultKind::Busy
            | FaultKind::InUse
            | FaultKind::Unavailable
            | FaultKind::DeadlineExceeded
            | FaultKind::ResourceExhausted
            | FaultKind::Cancelled => Retry::Later,
            FaultKind::InvalidArgument
            | FaultKind::OutOfRange
            | FaultKind::NotFound
            | FaultKind::AlreadyExists
            | FaultKind::PermissionDenied
            | FaultKind::Untrusted
            | FaultKind::Unsupported
            | FaultKind::Internal => Retry::Never,
        };
        Fault { kind, op: op.into(), subject: subject.into(), retry, detail: detail.into() }
    }

    /// The same fault with another answer to "does a retry help".
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.subject.is_empty() {
            write!(f, "{}: {}", self.op, self.detail)
        } else {
            write!(f, "{} {}: {}", self.op, self.subject, self.detail)
        }
    }
}

impl std::error::Error for Fault {}
