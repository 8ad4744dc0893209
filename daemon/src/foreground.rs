//! `volplane mount --foreground`: one mount without a daemon.

use std::path::PathBuf;

use volume::OptionMap;

use crate::cli::CliError;

/// What to serve.
#[derive(Debug)]
pub(crate) struct Foreground {
    /// Volume name.
    pub(crate) name: String,
    /// Where to mount.
    pub(crate) target: PathBuf,
    /// Volume options.
    pub(crate) options: OptionMap,
    /// The site's configuration.
    pub(crate) config_dir: PathBuf,
    /// The cache; `None` is the user's own.
    pub(crate) cache_dir: Option<PathBuf>,
}

/// Serves until it is unmounted or interrupted.
pub(crate) fn run(wanted: Foreground) -> Result<(), CliError> {
    Err(CliError::Other(format!("{wanted:?}: the file system is not wired in yet")))
}
