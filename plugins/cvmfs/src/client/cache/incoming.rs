//! Content on its way into the cache.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, memfd_create};

use super::StorageError;
use super::object::{MemoryShare, Object};
use super::seal::Seal;
use super::store::Store;
use crate::client::hash::ObjectId;

/// Free space is looked at each time an object grew by this.
const ROOM_EVERY_BYTES: u64 = 64 << 20;

/// Takes the inflated bytes of one object in order. Dropped without [`commit`](Incoming::commit) it leaves nothing. When the
/// disk fails in the middle, what was written moves to anonymous memory and the rest follows it.
#[derive(Debug)]
pub(crate) struct Incoming {
    store: Arc<Store>,
    id: ObjectId,
    digest: blake3::Hasher,
    size: u64,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Unopened,
    Disk { file: File, path: PathBuf },
    Memory { file: File, share: MemoryShare },
}

impl Incoming {
    pub(super) fn new(store: Arc<Store>, id: ObjectId) -> Self {
        Incoming { store, id, digest: blake3::Hasher::new(), size: 0, sink: Sink::Unopened }
    }

    /// Appends.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.open()?;
        if let Sink::Disk { file, path } = &self.sink
            && let Err(error) =
                self.leaves_room(file, bytes).and_then(|()| file.write_all_at(bytes, self.size))
        {
            self.store.disk.failed("write", path, &error);
            self.ask_for_space(&error);
            self.move_to_memory()?;
        }
        if let Sink::Memory { file, share } = &mut self.sink {
            if !share.grow(bytes.len() as u64) {
                return Err(exhausted(&self.store));
            }
            file.write_all_at(bytes, self.size).map_err(|error| no_memory(&self.store, &error))?;
        }
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Makes it an object. The caller has verified everything that was written.
    pub(crate) fn commit(mut self) -> Result<Object, StorageError> {
        self.open()?;
        match std::mem::replace(&mut self.sink, Sink::Unopened) {
            Sink::Unopened => unreachable!("opened above"),
            Sink::Memory { file, share } => {
                self.store.counters.uncached.fetch_add(1, Ordering::Relaxed);
                Ok(Object::in_memory(file, self.size, share))
            }
            Sink::Disk { file, path } => {
                // The object's file must not be writable through the descriptor that is handed around.
                let reader = File::open(&path).map_err(|error| StorageError::Unreadable(error.to_string()));
                let result = reader.and_then(|reader| self.place(&file, reader, &path));
                let _ = result.as_ref().map_err(|_| fs::remove_file(&path));
                result
            }
        }
    }

    /// Puts a complete file into its place, or serves it without a name when the disk does not let us.
    fn place(&self, file: &File, reader: File, path: &Path) -> Result<Object, StorageError> {
        let fits = self.store.quota().is_none_or(|quota| self.size <= quota);
        if fits {
            let seal = Seal::finish(self.digest.clone(), self.size, &self.id);
            let placed = seal
                .attach(file, path, &self.store.path(&self.id))
                .and_then(|()| self.store.adopt(&self.id, path, &reader, self.size));
            match placed {
                Ok(atime) => {
                    self.store.disk.recovered();
                    return Ok(self.store.keep(self.id, reader, self.size, atime));
                }
                Err(error) => {
                    self.store.disk.failed("store", path, &error);
                    self.ask_for_space(&error);
                }
            }
        }
        let _ = fs::remove_file(path);
        self.store.counters.uncached.fetch_add(1, Ordering::Relaxed);
        Ok(Object::unnamed(reader, self.size))
    }

    /// A very large object may not fill the disk for everybody else. Looked at once for each so many bytes.
    fn leaves_room(&self, file: &File, bytes: &[u8]) -> io::Result<()> {
        if self.size / ROOM_EVERY_BYTES == (self.size + bytes.len() as u64) / ROOM_EVERY_BYTES {
            return Ok(());
        }
        let disk = rustix::fs::fstatvfs(file)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        if free < (total / 20).max(ROOM_EVERY_BYTES) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), StorageError> {
        if !matches!(self.sink, Sink::Unopened) {
            return Ok(());
        }
        if self.store.disk.try_now() {
            match self.create() {
                Ok((file, path)) => {
                    self.sink = Sink::Disk { file, path };
                    return Ok(());
                }
                Err((path, error)) => {
                    self.store.disk.failed("create", &path, &error);
                    self.ask_for_space(&error);
                }
            }
        }
        let file = self.anonymous()?;
        self.sink = Sink::Memory { file, share: MemoryShare::empty(&self.store.memory) };
        Ok(())
    }

    fn create(&self) -> Result<(File, PathBuf), (PathBuf, io::Error)> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let path = self.store.temporary().map_err(|error| (self.store.directory().to_owned(), error))?;
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => return Ok((file, path)),
                // Somebody cleaned up below us.
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempts == 1 => {
                    self.store.forget_workshop();
                }
                Err(error) => return Err((path, error)),
            }
        }
    }

    fn anonymous(&self) -> Result<File, StorageError> {
        memfd_create("volplane-object", MemfdFlags::CLOEXEC)
            .map(File::from)
            .map_err(|errno| no_memory(&self.store, &errno.into()))
    }

    fn move_to_memory(&mut self) -> Result<(), StorageError> {
        let memory = self.anonymous()?;
        let mut share = MemoryShare::empty(&self.store.memory);
        let Sink::Disk { file, path } = std::mem::replace(&mut self.sink, Sink::Unopened) else {
            return Ok(());
        };
        let _ = fs::remove_file(&path);
        if !share.grow(self.size) {
            return Err(exhausted(&self.store));
        }
        let mut buffer = vec![0; 128 << 10];
        let mut offset = 0;
        while offset < self.size {
            let length = buffer.len().min(usize::try_from(self.size - offset).unwrap_or(usize::MAX));
            let part = &mut buffer[..length];
            file.read_exact_at(part, offset).map_err(|error| StorageError::Unreadable(error.to_string()))?;
            memory.write_all_at(part, offset).map_err(|error| no_memory(&self.store, &error))?;
            offset += length as u64;
        }
        self.sink = Sink::Memory { file: memory, share };
        Ok(())
    }

    /// A full disk may be full of what we can evict.
    fn ask_for_space(&self, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.store.bell.want_squeeze();
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Sink::Disk { path, .. } = &self.sink {
            let _ = fs::remove_file(path);
        }
    }
}

fn exhausted(store: &Store) -> StorageError {
    StorageError::Exhausted { disk: disk(store), limit: store.memory.limit() }
}

fn no_memory(store: &Store, error: &io::Error) -> StorageError {
    StorageError::Memory { disk: disk(store), memory: error.to_string() }
}

fn disk(store: &Store) -> String {
    store.disk.trouble().unwrap_or_else(|| "not tried".to_owned())
}
