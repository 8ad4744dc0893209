//! Content of open regular files.
//!
//! A plain file is one object, fetched whole when it is opened, as the C++ client does; reads are `pread` from the
//! cached file. A chunked file fetches nothing at open; a read fetches the chunks that it covers side by side, and
//! one that goes on where the last one ended has the next chunks fetched ahead.
//!
//! The table holds what is open, by node id. It is only a short cut: after a worker's death it is empty, and the next
//! read of an open file finds the content again by its node.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::error::FsError;
use super::served::{Node, Served};
use crate::client::cache::Object;
use crate::client::catalog::{Chunk, FileContent, Kind, Located};
use crate::client::hash::{ObjectId, Suffix};

/// Most chunks fetched ahead of a reader, and most bytes of them.
const AHEAD_CHUNKS_MAX: usize = 8;
const AHEAD_BYTES_MAX: u64 = 64 << 20;
/// Objects from this size on are fetched to their end though nobody waits any more.
const GOES_ON_FROM: u64 = 8 << 20;
const SHARDS: usize = 32;

/// An open regular file.
pub(crate) enum OpenFile {
    /// One object.
    Whole {
        object: Object,
        /// The publisher wants the page cache passed by.
        direct: bool,
    },
    /// Many.
    Chunked(Arc<Chunked>),
}

/// A file in chunks.
pub(crate) struct Chunked {
    served: Arc<Served>,
    /// The path as the external server knows it.
    path: Vec<u8>,
    content: FileContent,
    chunks: Vec<Chunk>,
    /// The chunk read last; mostly the next one, too.
    recent: Mutex<Option<(usize, Object)>>,
    /// The last chunk read, for telling sequential readers; begins before the first.
    last: AtomicUsize,
    window: AtomicUsize,
    /// Chunks up to here are being fetched ahead or are there.
    ahead: Mutex<Ahead>,
}

#[derive(Default)]
struct Ahead {
    until: usize,
    tasks: JoinSet<()>,
}

impl OpenFile {
    /// The content of an entry, fetched if it is one object.
    pub(crate) async fn load(node: &Node, located: &Located) -> Result<OpenFile, FsError> {
        let content = match &located.dirent.kind {
            Kind::Regular(content) => content,
            Kind::Directory { .. } => return Err(FsError::IsDirectory),
            Kind::Symlink(_) | Kind::Fifo | Kind::Socket | Kind::CharDevice(_) | Kind::BlockDevice(_) => {
                return Err(FsError::WrongType);
            }
        };
        let served = &node.served;
        let inner = || located.catalog.inner_path(&node.path).unwrap_or_else(|| node.path.to_vec());
        if content.chunked {
            let catalogs = served.repository.catalogs();
            let chunks = catalogs.chunks(&located.catalog, &node.path, content).await?;
            return Ok(OpenFile::Chunked(Arc::new(Chunked {
                served: Arc::clone(served),
                path: inner(),
                content: *content,
                chunks,
                recent: Mutex::default(),
                last: AtomicUsize::new(usize::MAX),
                window: AtomicUsize::new(0),
                ahead: Mutex::default(),
            })));
        }
        // The catalog's reader gives no unchunked file without a digest.
        let digest = content.digest.ok_or(FsError::WrongType)?;
        let id = ObjectId { digest, suffix: Suffix::None };
        let object = match served.fetcher.cached(&id, Some(content.size)) {
            Some(object) => object,
            None if content.external => {
                let fetcher = &served.fetcher;
                fetcher.external(&inner(), None, &digest, content.compression, content.size).await?
            }
            None if content.size < GOES_ON_FROM => {
                served.fetcher.object(&id, content.compression, Some(content.size)).await?
            }
            None => {
                // A transfer that takes longer than one request may is not thrown away with it: whoever tries again
                // joins it. The fetcher bounds it.
                let (served, compression, size) = (Arc::clone(served), content.compression, content.size);
                let runtime = served.runtime.clone();
                let fetch = async move { served.fetcher.object(&id, compression, Some(size)).await };
                runtime.spawn(fetch).await.map_err(|error| FsError::Content(error.into()))??
            }
        };
        Ok(OpenFile::Whole { object, direct: content.direct_io })
    }

    /// At most `size` bytes at `offset`, fewer only at the end; `None` when something has to be fetched first.
    pub(crate) fn try_read(&self, offset: u64, size: u32) -> Option<Result<Vec<u8>, FsError>> {
        match self {
            OpenFile::Whole { object, .. } => Some(read_object(object, offset, size)),
            OpenFile::Chunked(chunked) => chunked.try_read(offset, size),
        }
    }

    /// As [`try_read`](Self::try_read), fetching what is missing.
    pub(crate) async fn read(&self, offset: u64, size: u32) -> Result<Vec<u8>, FsError> {
        match self {
            OpenFile::Whole { object, .. } => read_object(object, offset, size),
            OpenFile::Chunked(chunked) => chunked.read(offset, size).await,
        }
    }

    /// Whether the page cache is to be passed by.
    pub(crate) fn direct(&self) -> bool {
        match self {
            OpenFile::Whole { direct, .. } => *direct,
            OpenFile::Chunked(chunked) => chunked.content.direct_io,
        }
    }
}

fn read_object(object: &Object, offset: u64, size: u32) -> Result<Vec<u8>, FsError> {
    let left = object.size().saturating_sub(offset).min(u64::from(size));
    let mut bytes = vec![0; left as usize];
    read_exact(object, &mut bytes, offset)?;
    Ok(bytes)
}

/// Objects have the size they say; less is a cache file that somebody cut.
fn read_exact(object: &Object, mut bytes: &mut [u8], mut offset: u64) -> Result<(), FsError> {
    while !bytes.is_empty() {
        match object.read_at(bytes, offset).map_err(FsError::Content)? {
            0 => return Err(FsError::Content(std::io::ErrorKind::UnexpectedEof.into())),
            count => {
                bytes = &mut bytes[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}

impl Chunked {
    /// The chunks that hold the bytes from `offset` to `end`, which is not behind the file's end.
    fn covering(&self, offset: u64, end: u64) -> std::ops::Range<usize> {
        let first = self.chunks.partition_point(|chunk| chunk.offset + chunk.size <= offset);
        let last = self.chunks.partition_point(|chunk| chunk.offset < end);
        first..last.max(first)
    }

    fn end(&self, offset: u64, size: u32) -> u64 {
        offset.saturating_add(u64::from(size)).min(self.content.size)
    }

    fn at_hand(&self, index: usize) -> Option<Object> {
        if let Some((recent, object)) = &*self.recent.lock()
            && *recent == index
        {
            return Some(object.clone());
        }
        let chunk = &self.chunks[index];
        let id = ObjectId { digest: chunk.digest, suffix: Suffix::Partial };
        let object = self.served.fetcher.cached(&id, Some(chunk.size))?;
        *self.recent.lock() = Some((index, object.clone()));
        Some(object)
    }

    async fn fetch(&self, index: usize) -> Result<Object, FsError> {
        if let Some(object) = self.at_hand(index) {
            return Ok(object);
        }
        let Chunk { offset, size, digest } = self.chunks[index];
        let fetcher = &self.served.fetcher;
        let compression = self.content.compression;
        let object = if self.content.external {
            let range = Some(offset..offset + size);
            fetcher.external(&self.path, range, &digest, compression, size).await?
        } else {
            let id = ObjectId { digest, suffix: Suffix::Partial };
            fetcher.object(&id, compression, Some(size)).await?
        };
        *self.recent.lock() = Some((index, object.clone()));
        Ok(object)
    }

    fn try_read(self: &Arc<Self>, offset: u64, size: u32) -> Option<Result<Vec<u8>, FsError>> {
        let end = self.end(offset, size);
        if offset >= end {
            return Some(Ok(Vec::new()));
        }
        let covering = self.covering(offset, end);
        let objects: Option<Vec<_>> = covering.clone().map(|index| self.at_hand(index)).collect();
        let objects = objects?;
        self.went_through(&covering);
        Some(self.gather(covering.start, &objects, offset, end))
    }

    async fn read(self: &Arc<Self>, offset: u64, size: u32) -> Result<Vec<u8>, FsError> {
        let end = self.end(offset, size);
        if offset >= end {
            return Ok(Vec::new());
        }
        let covering = self.covering(offset, end);
        self.went_through(&covering);
        let mut fetching = JoinSet::new();
        for index in covering.clone().skip(1) {
            let chunked = Arc::clone(self);
            fetching.spawn(async move { chunked.fetch(index).await.map(drop) });
        }
        let mut objects = Vec::with_capacity(covering.len());
        for index in covering.clone() {
            objects.push(self.fetch(index).await?);
        }
        self.gather(covering.start, &objects, offset, end)
    }

    fn gather(&self, first: usize, objects: &[Object], offset: u64, end: u64) -> Result<Vec<u8>, FsError> {
        let mut bytes = vec![0; (end - offset) as usize];
        let mut rest = &mut bytes[..];
        let mut at = offset;
        for (chunk, object) in self.chunks[first..].iter().zip(objects) {
            let inside = at - chunk.offset;
            let count = (chunk.size - inside).min(end - at) as usize;
            let (piece, after) = rest.split_at_mut(count);
            read_exact(object, piece, inside)?;
            rest = after;
            at += count as u64;
        }
        Ok(bytes)
    }

    /// A reader was at these chunks: fetches ahead if it goes straight on.
    fn went_through(self: &Arc<Self>, covering: &std::ops::Range<usize>) {
        let Some(newest) = covering.clone().next_back() else { return };
        let last = self.last.swap(newest, Ordering::Relaxed);
        if newest == last {
            return;
        }
        let straight = covering.start == last.wrapping_add(1) || covering.start == last;
        let window =
            if straight { (self.window.load(Ordering::Relaxed) * 2 + 2).min(AHEAD_CHUNKS_MAX) } else { 0 };
        self.window.store(window, Ordering::Relaxed);
        if window == 0 {
            return;
        }
        let mut ahead = self.ahead.lock();
        while ahead.tasks.try_join_next().is_some() {}
        let mut bytes = 0;
        for index in newest + 1..(newest + 1 + window).min(self.chunks.len()) {
            bytes += self.chunks[index].size;
            if bytes > AHEAD_BYTES_MAX {
                break;
            }
            if index < ahead.until || ahead.tasks.len() >= AHEAD_CHUNKS_MAX {
                continue;
            }
            ahead.until = index + 1;
            // Not an Arc of the file: it ends with it.
            let (served, chunk) = (Arc::clone(&self.served), self.chunks[index]);
            let (path, content) = (self.path.clone(), self.content);
            ahead.tasks.spawn_on(
                async move {
                    let id = ObjectId { digest: chunk.digest, suffix: Suffix::Partial };
                    if served.fetcher.cached(&id, Some(chunk.size)).is_some() {
                        return;
                    }
                    let Chunk { offset, size, digest } = chunk;
                    let fetcher = &served.fetcher;
                    // Whoever reads the chunk gets the error.
                    if content.external {
                        let range = Some(offset..offset + size);
                        let _ = fetcher.external(&path, range, &digest, content.compression, size).await;
                    } else {
                        let _ = fetcher.object(&id, content.compression, Some(size)).await;
                    }
                },
                &self.served.runtime,
            );
        }
    }
}

/// Open files by node id.
#[derive(Default)]
pub(crate) struct OpenFiles {
    shards: [Mutex<HashMap<u64, Arc<OpenFile>>>; SHARDS],
}

impl OpenFiles {
    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Arc<OpenFile>>> {
        &self.shards[(id % SHARDS as u64) as usize]
    }

    pub(crate) fn get(&self, id: u64) -> Option<Arc<OpenFile>> {
        self.shard(id).lock().get(&id).cloned()
    }

    /// Adds it; whichever was there first stays.
    pub(crate) fn add(&self, id: u64, file: OpenFile) -> Arc<OpenFile> {
        Arc::clone(self.shard(id).lock().entry(id).or_insert_with(|| Arc::new(file)))
    }

    pub(crate) fn remove(&self, id: u64) {
        let file = self.shard(id).lock().remove(&id);
        drop(file); // closes the object's file outside of the lock
    }
}
