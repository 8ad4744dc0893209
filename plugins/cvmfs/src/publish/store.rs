//! The directory that a web server offers: objects by hash, written once and whole.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::write::ZlibEncoder;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;

use super::error::{PublishError, io_error};
use crate::client::hash::{Algorithm, Compression, Digest, Hasher, ObjectId, Suffix};

/// Contents up to this size are compressed in memory, so that one that is stored already costs no write.
const IN_MEMORY: usize = 4 << 20;
const COPY_BYTES: usize = 256 << 10;
/// Up to so many objects are flushed one by one.
const FEW_OBJECTS: usize = 64;

/// A repository's directory.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    next_temporary: AtomicU64,
    written_objects: AtomicU64,
    written_bytes: AtomicU64,
    unflushed: Mutex<Unflushed>,
}

/// Objects that may not be on the disk yet.
#[derive(Debug)]
enum Unflushed {
    Few(Vec<PathBuf>),
    Many,
}

/// What [`Store::put`] made of a content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stored {
    /// Hash of the stored bytes.
    pub(super) digest: Digest,
    /// Bytes before compression.
    pub(super) size: u64,
}

impl Store {
    pub(super) fn new(root: &Path) -> Self {
        Store {
            root: root.to_owned(),
            next_temporary: AtomicU64::new(0),
            written_objects: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            unflushed: Mutex::new(Unflushed::Few(Vec::new())),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Objects and (compressed) bytes written since the last call.
    pub(super) fn take_written(&self) -> (u64, u64) {
        (self.written_objects.swap(0, Ordering::Relaxed), self.written_bytes.swap(0, Ordering::Relaxed))
    }

    /// Makes the directories of an empty repository.
    pub(super) fn make_directories(&self) -> Result<(), PublishError> {
        let data = self.root.join("data");
        fs::create_dir_all(self.temporaries()).map_err(io_error("create", &data))?;
        for prefix in 0..=255_u8 {
            let directory = data.join(format!("{prefix:02x}"));
            match fs::create_dir(&directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("create", &directory)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Where unfinished objects and databases are; on the same file system as the objects, never offered by the server.
    pub(super) fn temporaries(&self) -> PathBuf {
        self.root.join("data/txn")
    }

    /// A name for a temporary file that nobody else uses.
    pub(super) fn temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.temporaries().join(format!("{}-{number}", std::process::id()))
    }

    /// Keeps other publishers out until the lock is dropped, and removes what a publisher that died has left.
    pub(super) fn lock(&self) -> Result<Flock<fs::File>, PublishError> {
        let temporaries = self.temporaries();
        fs::create_dir_all(&temporaries).map_err(io_error("create", &temporaries))?;
        let directory = fs::File::open(&temporaries).map_err(io_error("open", &temporaries))?;
        let lock = Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                PublishError::Busy { repository: self.root.clone() }
            } else {
                io_error("lock", &temporaries)(errno.into())
            }
        })?;
        for entry in fs::read_dir(&temporaries).map_err(io_error("read", &temporaries))? {
            let path = entry.map_err(io_error("read", &temporaries))?.path();
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
        }
        Ok(lock)
    }

    /// Where an object is.
    pub(super) fn object(&self, id: &ObjectId) -> PathBuf {
        self.root.join(id.url_path())
    }

    /// Stores one content: at most `limit` bytes of `source`.
    pub(super) fn put(
        &self,
        source: impl Read,
        limit: u64,
        algorithm: Algorithm,
        compression: Compression,
        suffix: Suffix,
    ) -> Result<Stored, PutError> {
        let sink = Sink { store: self, hasher: Hasher::new(algorithm), memory: Vec::new(), spilled: None };
        let mut source = source.take(limit);
        let (sink, size) = match compression {
            Compression::None => {
                let mut sink = sink;
                let size = copy(&mut source, &mut sink)?;
                (sink, size)
            }
            Compression::Zlib => {
                let mut encoder = ZlibEncoder::new(sink, flate2::Compression::default());
                let size = copy(&mut source, &mut encoder)?;
                (encoder.finish().map_err(PutError::Write)?, size)
            }
        };
        let digest = sink.commit(suffix).map_err(PutError::Write)?;
        Ok(Stored { digest, size })
    }

    /// Stores bytes that are in memory.
    pub(super) fn put_bytes(
        &self,
        bytes: &[u8],
        algorithm: Algorithm,
        compression: Compression,
        suffix: Suffix,
    ) -> Result<Digest, PublishError> {
        self.put(bytes, u64::MAX, algorithm, compression, suffix)
            .map(|stored| stored.digest)
            .map_err(|error| error.at(&self.root, &self.root))
    }

    /// An object's content, verified and inflated, at most `limit` bytes of it.
    pub(super) fn get(&self, id: &ObjectId, limit: u64) -> Result<Vec<u8>, PublishError> {
        let path = self.object(id);
        let stored = fs::read(&path).map_err(io_error("read", &path))?;
        let damaged = |reason: &str| PublishError::Damaged {
            what: path.display().to_string(),
            reason: reason.to_owned(),
        };
        if id.digest.algorithm.digest(&stored) != id.digest {
            return Err(damaged("its bytes do not have the hash of its name"));
        }
        let mut content = Vec::new();
        flate2::read::ZlibDecoder::new(&stored[..])
            .take(limit)
            .read_to_end(&mut content)
            .map_err(|_| damaged("it is no zlib stream"))?;
        if content.len() as u64 == limit {
            return Err(damaged("it is unreasonably large"));
        }
        Ok(content)
    }

    /// Puts everything written so far on the disk: a few objects one by one, many by flushing the file system as a whole. Either
    /// alone would be slow: the one for a first publication, the other beside busy neighbours on the same disk.
    pub(super) fn sync(&self) -> Result<(), PublishError> {
        let unflushed = std::mem::replace(&mut *self.unflushed.lock(), Unflushed::Few(Vec::new()));
        let Unflushed::Few(objects) = unflushed else {
            let directory = fs::File::open(&self.root).map_err(io_error("open", &self.root))?;
            return nix::unistd::syncfs(directory.as_fd())
                .map_err(|errno| io_error("sync", &self.root)(errno.into()));
        };
        let directories: BTreeSet<PathBuf> =
            objects.iter().filter_map(|object| object.parent().map(Path::to_owned)).collect();
        for path in objects.iter().chain(&directories) {
            fs::File::open(path).and_then(|file| file.sync_all()).map_err(io_error("sync", path))?;
        }
        Ok(())
    }

    fn remember(&self, object: PathBuf) {
        let mut unflushed = self.unflushed.lock();
        if let Unflushed::Few(objects) = &mut *unflushed {
            if objects.len() < FEW_OBJECTS {
                objects.push(object);
            } else {
                *unflushed = Unflushed::Many;
            }
        }
    }

    /// Replaces a file in the repository's root: readers see the old one or the new one.
    pub(super) fn replace(&self, name: &str, content: &[u8]) -> Result<(), PublishError> {
        let temporary = self.temporary();
        let target = self.root.join(name);
        let write = || -> io::Result<()> {
            let mut file = new_file(&temporary)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&temporary, &target)?;
            fs::File::open(&self.root)?.sync_all()
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            io_error("replace", &target)(error)
        })
    }
}

/// Which side of a [`Store::put`] failed.
#[derive(Debug)]
pub(super) enum PutError {
    /// Reading the content.
    Read(io::Error),
    /// Writing the object.
    Write(io::Error),
}

impl PutError {
    /// Names the paths.
    pub(super) fn at(self, source: &Path, repository: &Path) -> PublishError {
        match self {
            PutError::Read(error) => io_error("read", source)(error),
            PutError::Write(error) => io_error("write objects to", repository)(error),
        }
    }
}

fn new_file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)
}

fn copy(source: &mut impl Read, target: &mut impl Write) -> Result<u64, PutError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut total = 0;
    loop {
        let bytes = match source.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(PutError::Read(error)),
        };
        target.write_all(&buffer[..bytes]).map_err(PutError::Write)?;
        total += bytes as u64;
    }
}

/// Takes stored bytes: hashes them and keeps them in memory, or in a temporary file once there are many.
struct Sink<'store> {
    store: &'store Store,
    hasher: Hasher,
    memory: Vec<u8>,
    spilled: Option<(fs::File, PathBuf, u64)>,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        if self.memory.len() + bytes.len() > IN_MEMORY {
            self.spill()?;
        }
        match &mut self.spilled {
            Some((file, _, total)) => {
                file.write_all(bytes)?;
                *total += bytes.len() as u64;
            }
            None => self.memory.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink<'_> {
    fn spill(&mut self) -> io::Result<()> {
        if self.spilled.is_none() {
            let path = self.store.temporary();
            self.spilled = Some((new_file(&path)?, path, 0));
        }
        let memory = std::mem::take(&mut self.memory);
        if let Some((file, _, total)) = &mut self.spilled {
            file.write_all(&memory)?;
            *total += memory.len() as u64;
        }
        Ok(())
    }

    /// Gives the object its name, unless it is there. One that is there with another length was torn by a crash and is replaced.
    fn commit(mut self, suffix: Suffix) -> io::Result<Digest> {
        let digest = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha1)).finish();
        let target = self.store.object(&digest.with_suffix(suffix));
        let length = self.spilled.as_ref().map_or(self.memory.len() as u64, |(_, _, total)| *total);
        if fs::symlink_metadata(&target).is_ok_and(|there| there.is_file() && there.size() == length) {
            return Ok(digest);
        }
        self.spill()?;
        let (_, path, _) = self.spilled.as_ref().expect("spill always makes a file");
        match fs::rename(path, &target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody removed the (empty) directory; the objects of the reference tools come without empty ones.
                fs::create_dir_all(target.parent().expect("an object is in a directory"))?;
                fs::rename(path, &target)?;
            }
            other => other?,
        }
        self.spilled = None;
        self.store.remember(target);
        self.store.written_objects.fetch_add(1, Ordering::Relaxed);
        self.store.written_bytes.fetch_add(length, Ordering::Relaxed);
        Ok(digest)
    }
}

impl Drop for Sink<'_> {
    fn drop(&mut self) {
        if let Some((_, path, _)) = &self.spilled {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path());
        store.make_directories().unwrap();
        (directory, store)
    }

    #[test]
    fn the_empty_file_is_the_object_that_every_repository_has() {
        let (_directory, store) = store();
        let digest = store.put_bytes(b"", Algorithm::Sha1, Compression::Zlib, Suffix::None).unwrap();
        assert_eq!(digest.to_string(), "e8ec3d88b62ebf526e4e5a4ff6162a3aa48a6b78");
        let digest = store.put_bytes(b"", Algorithm::Sha1, Compression::None, Suffix::None).unwrap();
        assert_eq!(digest.to_string(), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        assert!(store.object(&digest.with_suffix(Suffix::None)).exists());
    }

    #[test]
    fn objects_are_written_once_and_torn_ones_again() {
        let (_directory, store) = store();
        let content = vec![7_u8; 9 << 20];
        for compression in [Compression::Zlib, Compression::None] {
            let put =
                || store.put_bytes(&content, Algorithm::Shake128, compression, Suffix::Partial).unwrap();
            let path = store.object(&put().with_suffix(Suffix::Partial));
            assert_eq!(store.take_written().0, 1);
            put();
            assert_eq!(store.take_written().0, 0);
            fs::write(&path, b"torn").unwrap();
            put();
            assert_eq!(store.take_written().0, 1);
            assert_ne!(fs::read(&path).unwrap(), b"torn");
        }
        assert_eq!(fs::read_dir(store.temporaries()).unwrap().count(), 0, "nothing is left over");
    }

    #[test]
    fn a_second_publisher_is_told_to_wait() {
        let (_directory, store) = store();
        let _lock = store.lock().unwrap();
        assert!(matches!(store.lock(), Err(PublishError::Busy { .. })));
    }
}
