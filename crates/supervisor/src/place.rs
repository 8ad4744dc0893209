//! The files of one mount in the run directory: socket, record, state file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use volume::{LaunchRequest, MountKey};

use crate::nursery::fresh_token;
use crate::protocol::REQUEST_LIMIT;

/// Longest key that is used as a file name as it is; with a suffix it fits a socket address.
const PLAIN_KEY: usize = 60;

/// What the names of files of released mounts begin with; no key does.
const RELEASED: &str = "~";

/// Where the files of one mount are.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    directory: PathBuf,
    stem: String,
}

/// What is kept about a mount beside its worker, for a daemon that finds the worker dead.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Record {
    /// Version of this format.
    version: u32,
    request: LaunchRequest,
    /// The nursery's name for the newest worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

const RECORD_VERSION: u32 = 1;

impl Place {
    pub(crate) fn of(directory: &Path, key: &MountKey) -> Place {
        let key = key.as_str();
        let stem = if key.len() <= PLAIN_KEY {
            key.to_owned()
        } else {
            format!("{}~{:016x}", &key[..PLAIN_KEY - 17], fnv1a(key.as_bytes()))
        };
        Place { directory: directory.to_owned(), stem }
    }

    /// Whether the mount is released: see [`crate::released`].
    pub(crate) fn is_released(&self) -> bool {
        self.stem.starts_with(RELEASED)
    }

    /// The name of the mount's connection where descriptors are kept.
    pub(crate) fn label(&self, key: &MountKey) -> String {
        if self.is_released() { self.stem.clone() } else { key.as_str().to_owned() }
    }

    /// Moves the files of the mount aside: its key is free for another mount. A socket is known by its inode, so who
    /// listens on it and who is connected notices nothing.
    pub(crate) fn release(&self, request: &LaunchRequest, token: Option<&str>) -> io::Result<Place> {
        let aside = Place { directory: self.directory.clone(), stem: format!("{RELEASED}{}", fresh_token()) };
        // The record first: a mount that is recorded twice is found twice, one that is recorded nowhere is lost.
        aside.write_record(request, token)?;
        for suffix in ["state", "sock"] {
            match std::fs::rename(self.path(suffix), aside.path(suffix)) {
                // A mount that waits for its next worker has no socket.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    aside.remove();
                    return Err(error);
                }
                _ => {}
            }
        }
        self.remove();
        Ok(aside)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// File name of the worker's socket.
    pub(crate) fn socket_name(&self) -> String {
        format!("{}.sock", self.stem)
    }

    /// Writes down what was asked for.
    pub(crate) fn write_record(&self, request: &LaunchRequest, token: Option<&str>) -> io::Result<()> {
        let token = token.map(str::to_owned);
        let record = Record { version: RECORD_VERSION, request: request.clone(), token };
        host::atomic::replace(&self.path("json"), &serde_json::to_vec(&record)?, 0o600)
    }

    /// A new, empty state file.
    pub(crate) fn create_state(&self) -> io::Result<File> {
        // A worker of an earlier mount may still have the old file open: it gets no part of the new one.
        match std::fs::remove_file(self.path("state")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::options().read(true).write(true).create_new(true).mode(0o600).open(self.path("state"))
    }

    /// The state file as it is.
    pub(crate) fn open_state(&self) -> io::Result<File> {
        File::options().read(true).write(true).open(self.path("state"))
    }

    /// Removes all files of the mount.
    pub(crate) fn remove(&self) {
        for suffix in ["sock", "state", "json"] {
            let path = self.path(suffix);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a file of an ended mount stays behind");
                }
                _ => {}
            }
        }
    }

    fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.stem))
    }
}

/// A mount that an earlier daemon wrote down.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) place: Place,
    pub(crate) request: LaunchRequest,
    pub(crate) token: Option<String>,
}

/// All recorded mounts of the directory; records that cannot be read are logged and left.
pub(crate) fn recorded(directory: &Path) -> io::Result<Vec<Recorded>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match read_record(&path) {
            Ok(Record { request, token, .. }) => {
                let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                let place = if stem.starts_with(RELEASED) {
                    Place { directory: directory.to_owned(), stem: stem.to_owned() }
                } else {
                    Place::of(directory, &request.key)
                };
                found.push(Recorded { place, request, token });
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a record of a mount cannot be read");
            }
        }
    }
    Ok(found)
}

fn read_record(path: &Path) -> io::Result<Record> {
    let mut json = Vec::new();
    File::open(path)?.take(REQUEST_LIMIT).read_to_end(&mut json)?;
    let record: Record = serde_json::from_slice(&json)?;
    if record.version != RECORD_VERSION {
        return Err(io::Error::other(format!("version {} is not known", record.version)));
    }
    Ok(record)
}

/// FNV-1a, 64 bits: only tells long keys apart; a clash is found by the key in the record.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
