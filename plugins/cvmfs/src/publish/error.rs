//! Why a publication did not happen. Every text names the path and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// Why a repository could not be made, extended or signed. The manifest is as it was before: readers notice nothing.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A system call failed.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `create`, …
        op: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A source file was written to during the publication.
    #[error(
        "{} changed while it was read: stop what writes there, or publish a snapshot or a copy of the tree",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Something that the format cannot hold.
    #[error("{} cannot be published: {reason}", path.display())]
    Unstorable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// Another publication holds the repository.
    #[error("{} is being published to by another process: wait until it is done", repository.display())]
    Busy {
        /// The repository's directory.
        repository: PathBuf,
    },
    /// The directory holds no repository.
    #[error("{} is no repository (it has no .cvmfspublished): create one there first", repository.display())]
    NoRepository {
        /// The directory.
        repository: PathBuf,
    },
    /// A repository is there already.
    #[error("{} holds a repository already: publish to it, or choose an empty directory", repository.display())]
    Exists {
        /// The directory.
        repository: PathBuf,
    },
    /// What the repository holds cannot be built upon.
    #[error("the repository's {what} cannot be read: {reason}; restore it from a backup or a replica")]
    Damaged {
        /// The object or file.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key or certificate does not fit.
    #[error("{what}: {reason}")]
    Key {
        /// The file.
        what: String,
        /// What is wrong with it, and what to do. Never key material.
        reason: String,
    },
    /// An option that makes no sense.
    #[error("{option}: {reason}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// SQLite refused; a full disk, as a rule.
    #[error("cannot write a catalog or history database in {}: {source}", directory.display())]
    Database {
        /// Where the databases are built.
        directory: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// [`Progress::cancelled`](super::Progress::cancelled) said so.
    #[error("the publication was cancelled; the repository is unchanged")]
    Cancelled,
}

/// For `map_err`: puts the operation and the path to an I/O error.
pub(super) fn io_error(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PublishError {
    let path = path.to_owned();
    move |source| PublishError::Io { op, path, source }
}
