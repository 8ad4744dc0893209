//! What an operation on a file can end with.

use std::io;

use nix::errno::Errno;

use crate::client::catalog::CatalogError;
use crate::client::fetch::FetchError;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FsError {
    /// The kernel asks for a node that it was never given, or whose path is gone with its catalog.
    #[error("the node is not known any more")]
    Stale,
    #[error("it is a directory")]
    IsDirectory,
    #[error("it is no directory")]
    NotDirectory,
    /// The entry is of a type that has no content, target or listing.
    #[error("the operation makes no sense for this type of file")]
    WrongType,
    #[error("the file system is read-only")]
    ReadOnly,
    #[error("the name or path is too long")]
    TooLong,
    #[error("there is no such attribute")]
    NoAttribute,
    #[error("{0}")]
    Catalog(#[from] CatalogError),
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("reading cached content: {0}")]
    Content(io::Error),
    #[error("recording what the kernel knows: {0}")]
    State(io::Error),
    /// A repository of the tree of all could not be opened.
    #[error("{0}")]
    Repository(String),
    #[error("no answer within {0} ms")]
    Deadline(u128),
    #[error("more than {0} requests are waiting")]
    Refused(usize),
}

impl FsError {
    /// What the application sees.
    pub(crate) fn errno(&self) -> Errno {
        match self {
            FsError::Stale => Errno::ESTALE,
            FsError::IsDirectory => Errno::EISDIR,
            FsError::NotDirectory => Errno::ENOTDIR,
            FsError::WrongType => Errno::EINVAL,
            FsError::ReadOnly => Errno::EROFS,
            FsError::TooLong | FsError::Catalog(CatalogError::Path(_)) => Errno::ENAMETOOLONG,
            FsError::NoAttribute => Errno::ENODATA,
            FsError::Catalog(
                CatalogError::Fetch { .. }
                | CatalogError::Malformed { .. }
                | CatalogError::Read { .. }
                | CatalogError::Nesting { .. }
                | CatalogError::Entry(_),
            )
            | FsError::Content(_)
            | FsError::State(_)
            | FsError::Repository(_)
            | FsError::Deadline(_)
            | FsError::Refused(_) => Errno::EIO,
            FsError::Fetch(error) => error.errno(),
        }
    }

    /// Whether it is worth a line in the log and in `status`, rather than an ordinary answer.
    pub(crate) fn is_trouble(&self) -> bool {
        match self {
            FsError::Stale
            | FsError::IsDirectory
            | FsError::NotDirectory
            | FsError::WrongType
            | FsError::ReadOnly
            | FsError::TooLong
            | FsError::NoAttribute => false,
            FsError::Catalog(_)
            | FsError::Fetch(_)
            | FsError::Content(_)
            | FsError::State(_)
            | FsError::Repository(_)
            | FsError::Deadline(_)
            | FsError::Refused(_) => true,
        }
    }
}
