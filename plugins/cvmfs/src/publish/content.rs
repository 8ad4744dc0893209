//! Reads, cuts, compresses, hashes and stores file contents on all cores.
//!
//! A file is one job, unless it is cut into chunks: then the job finds the cuts and makes each chunk a job of its own, so that one
//! huge file keeps all cores busy as well. A chunk is read twice, the second time out of the page cache.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

use parking_lot::{Condvar, Mutex};

use super::chunker::Chunker;
use super::error::{PublishError, io_error};
use super::options::{Chunking, Progress, PublishOptions};
use super::scan::{EntryId, FileIdentity, Kind, Tree};
use super::store::{Store, Stored};
use crate::client::hash::{Algorithm, Compression, Digest, Suffix};

const READ_BYTES: usize = 1 << 20;

/// Where a file's content is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Content {
    /// In one object.
    Whole(Digest),
    /// In these, in order and without gaps.
    Chunks(Vec<Chunk>),
}

/// A part of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Chunk {
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// A content that is stored, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct StoredContent {
    pub(super) content: Content,
    pub(super) algorithm: Algorithm,
    pub(super) compression: Compression,
}

/// Stores the content of every file for which `known` has none. Indexed as the tree's entries; `None` for what is no file.
pub(super) fn store_all(
    tree: &Tree,
    store: &Store,
    algorithm: Algorithm,
    options: &PublishOptions,
    known: impl Fn(EntryId, &FileIdentity) -> Option<StoredContent>,
    progress: &dyn Progress,
) -> Result<Vec<Option<StoredContent>>, PublishError> {
    let mut contents: Vec<Option<StoredContent>> = vec![None; tree.entries.len()];
    // All names of a file share its content.
    let mut inodes: HashMap<(u64, u64), EntryId> = HashMap::new();
    let mut shared: Vec<(EntryId, EntryId)> = Vec::new();
    let mut jobs = VecDeque::new();
    let mut total = (0, 0);
    for (id, entry) in tree.entries.iter().enumerate() {
        let Kind::File(identity) = entry.kind else { continue };
        if let Some(content) = known(id, &identity) {
            contents[id] = Some(content);
            continue;
        }
        if entry.linked {
            if let Some(first) = inodes.get(&identity.inode()) {
                shared.push((id, *first));
                continue;
            }
            inodes.insert(identity.inode(), id);
        }
        total = (total.0 + 1, total.1 + identity.size);
        jobs.push_back(Job::File(id, identity));
    }
    progress.total(total.0, total.1);
    let work = Work {
        tree,
        store,
        algorithm,
        compression: options.compression,
        chunking: options.chunking,
        progress,
        stop: AtomicBool::new(false),
        queue: Mutex::new(Queue { jobs, active: 0, contents: HashMap::new(), error: None }),
        changed: Condvar::new(),
    };
    let threads = options
        .threads
        .unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get))
        .clamp(1, 256);
    thread::scope(|scope| -> io::Result<()> {
        for number in 0..threads {
            let started =
                thread::Builder::new().name(format!("publish-{number}")).spawn_scoped(scope, || work.run());
            if let Err(error) = started {
                work.stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    })
    .map_err(io_error("start threads to read", &tree.source_path(0)))?;
    let queue = work.queue.into_inner();
    if let Some(error) = queue.error {
        return Err(error);
    }
    for (id, content) in queue.contents {
        let content = match content {
            Partial::Whole(digest) => Content::Whole(digest),
            Partial::Chunks(mut chunks) => {
                chunks.sort_by_key(|chunk| chunk.offset);
                Content::Chunks(chunks)
            }
        };
        contents[id] = Some(StoredContent { content, algorithm, compression: options.compression });
    }
    for (id, first) in shared {
        contents[id] = contents[first].clone();
    }
    Ok(contents)
}

enum Job {
    File(EntryId, FileIdentity),
    Chunk { id: EntryId, identity: FileIdentity, offset: u64, size: u64 },
}

enum Partial {
    Whole(Digest),
    Chunks(Vec<Chunk>),
}

struct Queue {
    jobs: VecDeque<Job>,
    /// Jobs being worked on: they may add more.
    active: usize,
    contents: HashMap<EntryId, Partial>,
    error: Option<PublishError>,
}

struct Work<'a> {
    tree: &'a Tree,
    store: &'a Store,
    algorithm: Algorithm,
    compression: Compression,
    chunking: Option<Chunking>,
    progress: &'a dyn Progress,
    stop: AtomicBool,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Work<'_> {
    fn run(&self) {
        while let Some(job) = self.next() {
            let result =
                if self.progress.cancelled() { Err(PublishError::Cancelled) } else { self.work(job) };
            let mut queue = self.queue.lock();
            queue.active -= 1;
            if let Err(error) = result {
                queue.error.get_or_insert(error);
                queue.jobs.clear();
                self.stop.store(true, Ordering::Relaxed);
            }
            drop(queue);
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.active += 1;
                return Some(job);
            }
            if queue.active == 0 {
                return None;
            }
            self.changed.wait(&mut queue);
        }
    }

    fn work(&self, job: Job) -> Result<(), PublishError> {
        match job {
            Job::File(id, identity) => match self.chunking {
                Some(chunking) if identity.size > 0 && identity.size >= chunking.threshold => {
                    self.cut(id, identity, &chunking)
                }
                _ => {
                    let stored = self.put(id, &identity, 0, identity.size, Suffix::None)?;
                    self.queue.lock().contents.insert(id, Partial::Whole(stored.digest));
                    self.progress.done(1, identity.size);
                    Ok(())
                }
            },
            Job::Chunk { id, identity, offset, size } => {
                let stored = self.put(id, &identity, offset, size, Suffix::Partial)?;
                let mut queue = self.queue.lock();
                if let Some(Partial::Chunks(chunks)) = queue.contents.get_mut(&id) {
                    chunks.push(Chunk { offset, size, digest: stored.digest });
                }
                drop(queue);
                self.progress.done(u64::from(offset == 0), size);
                Ok(())
            }
        }
    }

    fn put(
        &self,
        id: EntryId,
        identity: &FileIdentity,
        offset: u64,
        size: u64,
        suffix: Suffix,
    ) -> Result<Stored, PublishError> {
        let path = self.tree.source_path(id);
        let mut file = open(&path, identity)?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset)).map_err(io_error("read", &path))?;
        }
        let stored = self
            .store
            .put(&file, size, self.algorithm, self.compression, suffix)
            .map_err(|error| error.at(&path, self.store.root()))?;
        still(&file, identity, &path)?;
        if stored.size != size {
            return Err(PublishError::Changed { path });
        }
        Ok(stored)
    }

    /// Finds a file's chunks and queues them.
    fn cut(&self, id: EntryId, identity: FileIdentity, chunking: &Chunking) -> Result<(), PublishError> {
        let path = self.tree.source_path(id);
        let mut file = open(&path, &identity)?;
        self.queue.lock().contents.insert(id, Partial::Chunks(Vec::new()));
        let mut chunker = Chunker::new(chunking);
        let mut buffer = vec![0; READ_BYTES];
        let (mut start, mut at) = (0, 0);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let bytes = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(io_error("read", &path)(error)),
            };
            let mut piece = &buffer[..bytes];
            while let Some(end) = chunker.cut(piece) {
                at += end as u64;
                self.queue_chunk(id, identity, start, at - start);
                start = at;
                piece = &piece[end..];
            }
            at += piece.len() as u64;
        }
        if at != identity.size {
            return Err(PublishError::Changed { path });
        }
        if at > start {
            self.queue_chunk(id, identity, start, at - start);
        }
        still(&file, &identity, &path)
    }

    fn queue_chunk(&self, id: EntryId, identity: FileIdentity, offset: u64, size: u64) {
        // In front: while the file is in the page cache.
        self.queue.lock().jobs.push_front(Job::Chunk { id, identity, offset, size });
        self.changed.notify_one();
    }
}

/// Opens the very file that the scan saw.
fn open(path: &Path, identity: &FileIdentity) -> Result<fs::File, PublishError> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            PublishError::Changed { path: path.to_owned() }
        } else {
            io_error("read", path)(error)
        }
    })?;
    still(&file, identity, path)?;
    Ok(file)
}

fn still(file: &fs::File, identity: &FileIdentity, path: &Path) -> Result<(), PublishError> {
    let metadata = file.metadata().map_err(io_error("read", path))?;
    if FileIdentity::of(&metadata) == *identity {
        return Ok(());
    }
    Err(PublishError::Changed { path: path.to_owned() })
}
