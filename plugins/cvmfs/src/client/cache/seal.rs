//! The proof that a cached file is what was verified: BLAKE3 over its content followed by its name, and its size.
//!
//! 40 bytes: the digest (32), the size as little-endian u64 (8). Kept in the extended attribute `user.volplane.blake3`, which
//! lies in the inode on ext4 and xfs and is renamed with the file; on a file system without user attributes in a file beside
//! it with the suffix `.seal`. The name is part of the digest so that a file under a wrong name is found out too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr};

use crate::client::hash::ObjectId;

const ATTRIBUTE: &str = "user.volplane.blake3";
const SEAL_BYTES: usize = 40;
const BUFFER_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seal([u8; SEAL_BYTES]);

impl Seal {
    /// Ends a digest over the content.
    pub(super) fn finish(mut content: blake3::Hasher, size: u64, id: &ObjectId) -> Self {
        content.update(id.to_string().as_bytes());
        let mut bytes = [0; SEAL_BYTES];
        bytes[..32].copy_from_slice(content.finalize().as_bytes());
        bytes[32..].copy_from_slice(&size.to_le_bytes());
        Seal(bytes)
    }

    /// The seal of an open file by reading all of it. `size` is what `fstat` says.
    pub(super) fn of_file(file: &File, size: u64, id: &ObjectId) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(size).unwrap_or(BUFFER_BYTES).max(1))];
        let mut offset = 0;
        while offset < size {
            match file.read_at(&mut buffer, offset) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Seal::finish(hasher, offset, id))
    }

    /// Puts the seal on a file that will be renamed to `target`.
    pub(super) fn attach(&self, file: &File, temporary: &Path, target: &Path) -> io::Result<()> {
        match fsetxattr(file, ATTRIBUTE, &self.0, XattrFlags::empty()) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
                let beside = beside(temporary);
                let written = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(&beside)
                    .and_then(|seal| seal.write_all_at(&self.0, 0))
                    .and_then(|()| rename_into_shard(&beside, &self::beside(target)));
                if written.is_err() {
                    let _ = fs::remove_file(&beside);
                }
                written
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// The seal that a cached file carries; `None` if it has none (of the right form).
    pub(super) fn carried_by(file: &File, path: &Path) -> io::Result<Option<Self>> {
        let mut bytes = [0; SEAL_BYTES];
        match fgetxattr(file, ATTRIBUTE, &mut bytes) {
            Ok(SEAL_BYTES) => return Ok(Some(Seal(bytes))),
            Ok(_) | Err(rustix::io::Errno::RANGE) => return Ok(None),
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
        let beside = match File::open(beside(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut content = Vec::with_capacity(SEAL_BYTES + 1);
        beside.take(SEAL_BYTES as u64 + 1).read_to_end(&mut content)?;
        Ok(content.try_into().ok().map(Seal))
    }
}

/// Where the seal of `path` is on file systems without attributes.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".seal");
    PathBuf::from(name)
}

/// Renames, making the target's directory if it is not there.
pub(super) fn rename_into_shard(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = to.parent().expect("an object path has a directory");
            match fs::create_dir(parent) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
            fs::rename(from, to)
        }
        result => result,
    }
}
