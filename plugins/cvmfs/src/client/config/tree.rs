//! The directory that a node's configuration is in.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::shell::Files;

/// Where the configuration usually is, and what files in it call themselves.
pub const SYSTEM_DIR: &str = "/etc/cvmfs";
/// Most bytes of a configuration file or blacklist.
pub const FILE_LIMIT: u64 = 1 << 20;
/// Most bytes of a key file.
pub const KEY_LIMIT: u64 = 64 << 10;

/// A configuration directory. Where it is not `/etc/cvmfs` itself, paths below `/etc/cvmfs` in its files mean the same
/// below this directory, if they exist there: a copied or bind-mounted `/etc/cvmfs` works as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigTree {
    dir: PathBuf,
}

impl ConfigTree {
    /// The configuration in `dir`; need not exist.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        ConfigTree { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path below the directory.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.join(below)
    }

    /// What a path in a configuration file means.
    pub fn locate(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(SYSTEM_DIR) {
            Ok(below) if self.path(below).exists() => self.path(below),
            Ok(_) | Err(_) => path.to_owned(),
        }
    }

    /// The text of a file, if there is one. Bytes that are no text become replacement characters.
    ///
    /// # Errors
    /// It is there but is no regular file, is larger than `limit`, or cannot be read.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<String>> {
        // A named pipe must not keep us waiting.
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        match OpenOptions::new().read(true).custom_flags(flags).open(self.locate(path)) {
            Ok(file) => read_bounded(&file, limit).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Files of a directory whose names end so, sorted by name; empty when there is no such directory.
    pub fn list(&self, directory: &Path, suffix: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.locate(directory)) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(suffix)))
            .take(10_000)
            .collect();
        paths.sort();
        paths
    }
}

fn read_bounded(mut file: &File, limit: u64) -> io::Result<String> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than {limit} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Files for ConfigTree {
    fn read(&self, path: &Path) -> io::Result<String> {
        ConfigTree::read(self, path, FILE_LIMIT)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn look(&self, path: &Path) -> Option<Metadata> {
        std::fs::metadata(self.locate(path)).ok()
    }
}
