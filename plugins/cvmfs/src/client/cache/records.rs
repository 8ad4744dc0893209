//! What a repository was last verified with, for starts without a server and so that no worker ever goes back.
//!
//! One file per repository, replaced atomically and synced (it is rare, and it guards against old revisions):
//!
//! ```text
//! magic "VPRECRD1" | u32 length of the JSON header | header { revision, lengths } | blobs | BLAKE3 of all before (32)
//! ```
//!
//! The blobs are kept as they came from the server and are verified again when they are used: a record is a cache, not a proof.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

const MAGIC: &[u8; 8] = b"VPRECRD1";
/// Between two looks at a lock that is taken.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Larger files are not records.
const MAX_BYTES: u64 = 4 << 20;

/// Raw bytes of a verified state of a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifiedRecord {
    /// `.cvmfspublished`.
    pub manifest: Bytes,
    /// `.cvmfswhitelist`.
    pub whitelist: Bytes,
    /// The certificate (inflated PEM).
    pub certificate: Bytes,
    /// The highest revision that was verified. Kept when a record of a lower one is saved.
    pub revision: u64,
}

/// Why a record was not saved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The name is no repository name.
    #[error("{0:?} is no repository name")]
    Name(String),
    /// The blobs are too large.
    #[error("record of {0} is larger than {MAX_BYTES} bytes")]
    TooLarge(String),
    /// The disk did not take it.
    #[error("record of {fqrn}: {detail}")]
    Disk {
        /// Repository.
        fqrn: String,
        /// What the kernel said.
        detail: String,
    },
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    revision: u64,
    manifest: usize,
    whitelist: usize,
    certificate: usize,
}

fn path(directory: &Path, fqrn: &str) -> Result<PathBuf, RecordError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let good = !fqrn.is_empty() && fqrn.len() <= 200 && !fqrn.starts_with('.') && fqrn.chars().all(allowed);
    if !good {
        return Err(RecordError::Name(fqrn.chars().take(200).collect()));
    }
    Ok(directory.join("records").join(fqrn))
}

/// Saves; the record on disk wins as a whole while its revision is higher.
pub(super) fn save(directory: &Path, fqrn: &str, record: &VerifiedRecord) -> Result<(), RecordError> {
    let target = path(directory, fqrn)?;
    let disk = |error: io::Error| RecordError::Disk { fqrn: fqrn.to_owned(), detail: error.to_string() };
    // Read, compare and replace must be one step among all workers.
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(target.with_file_name(".lock")).map_err(disk)?;
    wait_for_lock(&lock).map_err(disk)?;
    if read(&target).is_some_and(|old| old.revision > record.revision) {
        return Ok(());
    }
    let bytes = encode(record);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(RecordError::TooLarge(fqrn.to_owned()));
    }
    let temporary = target.with_file_name(format!(".new-{fqrn}"));
    let replace = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &target)?;
        File::open(target.parent().expect("records have a directory"))?.sync_all()
    };
    replace().map_err(disk)
}

/// Saving takes milliseconds; who holds the lock for longer was stopped in the middle.
fn wait_for_lock(lock: &File) -> io::Result<()> {
    for _ in 0..100 {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock"))
}

/// Loads; anything that is not whole is as good as nothing.
pub(super) fn load(directory: &Path, fqrn: &str) -> Option<VerifiedRecord> {
    read(&path(directory, fqrn).ok()?)
}

fn encode(record: &VerifiedRecord) -> Vec<u8> {
    let header = Header {
        revision: record.revision,
        manifest: record.manifest.len(),
        whitelist: record.whitelist.len(),
        certificate: record.certificate.len(),
    };
    let header = serde_json::to_vec(&header).expect("numbers become JSON");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&header);
    for blob in [&record.manifest, &record.whitelist, &record.certificate] {
        bytes.extend_from_slice(blob);
    }
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

fn read(path: &Path) -> Option<VerifiedRecord> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if blake3::hash(body).as_bytes() != digest {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (header, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    let header: Header = serde_json::from_slice(header).ok()?;
    let (manifest, rest) = rest.split_at_checked(header.manifest)?;
    let (whitelist, rest) = rest.split_at_checked(header.whitelist)?;
    let (certificate, rest) = rest.split_at_checked(header.certificate)?;
    rest.is_empty().then(|| VerifiedRecord {
        manifest: Bytes::copy_from_slice(manifest),
        whitelist: Bytes::copy_from_slice(whitelist),
        certificate: Bytes::copy_from_slice(certificate),
        revision: header.revision,
    })
}
