//! Verified content that is open.

use std::fs::{File, FileTimes};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A use is written to the file at most this often.
const TOUCH_EVERY: Duration = Duration::from_secs(300);

/// Exact, inflated, verified content. A clone is another reference to the same open file; eviction does not touch it.
#[derive(Clone, Debug)]
pub struct Object(Arc<Open>);

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    /// Present when the file is anonymous memory.
    memory: Option<MemoryShare>,
    /// Seconds since the epoch of the last use that is known to the file; `u64::MAX`: nobody cares.
    touched: AtomicU64,
}

impl Object {
    /// An object in a file of the cache; `atime` is its last use so far.
    pub(super) fn in_cache(file: File, size: u64, atime_seconds: u64) -> Self {
        Object(Arc::new(Open { file, size, memory: None, touched: AtomicU64::new(atime_seconds) }))
    }

    /// An object in a file without a name.
    pub(super) fn unnamed(file: File, size: u64) -> Self {
        Object(Arc::new(Open { file, size, memory: None, touched: AtomicU64::new(u64::MAX) }))
    }

    /// An object in anonymous memory.
    pub(super) fn in_memory(file: File, size: u64, memory: MemoryShare) -> Self {
        Object(Arc::new(Open { file, size, memory: Some(memory), touched: AtomicU64::new(u64::MAX) }))
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Reads at `offset` until `buffer` is full or the content ends; the number of bytes read.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.0.size {
            return Ok(0);
        }
        let mut done = 0;
        while done < buffer.len() {
            match self.0.file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A cached file that shrank under us must not look like a shorter object.
        if done < buffer.len() && offset.saturating_add(done as u64) < self.0.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "cached object is truncated"));
        }
        Ok(done)
    }

    /// All of it, when it is not longer than `limit`.
    pub fn read_all(&self, limit: usize) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.0.size).ok().filter(|&size| size <= limit);
        let size =
            size.ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "object above the limit"))?;
        let mut content = vec![0; size];
        let count = self.read_at(&mut content, 0)?;
        content.truncate(count);
        Ok(content)
    }

    /// The plain content as a read-only file on disk, for passthrough; `None` when it is in anonymous memory.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.0.memory.is_none().then(|| self.0.file.as_fd())
    }

    /// The open file, on disk or in memory: for `/proc/self/fd/N`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }

    /// Whether it was evicted, or never had a name.
    pub(super) fn is_unlinked(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        self.0.file.metadata().map_or(true, |metadata| metadata.nlink() == 0)
    }

    /// Notes a use for eviction. Mostly one relaxed load.
    pub(super) fn touch(&self) {
        let touched = self.0.touched.load(Ordering::Relaxed);
        if touched == u64::MAX {
            return;
        }
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // A clock that was set back must not freeze the recency.
        if touched <= seconds && seconds - touched < TOUCH_EVERY.as_secs() {
            return;
        }
        if self.0.touched.swap(seconds, Ordering::Relaxed) == touched {
            // On a read-only disk recency does not matter.
            let _ = self.0.file.set_times(FileTimes::new().set_accessed(now));
        }
    }
}

/// The bytes of anonymous memory in use, against a limit.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    used: AtomicU64,
    limit: u64,
}

impl MemoryBudget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(MemoryBudget { used: AtomicU64::new(0), limit })
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct MemoryShare {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl MemoryShare {
    pub(super) fn empty(budget: &Arc<MemoryBudget>) -> Self {
        MemoryShare { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes `bytes` more; `false` when that is above the limit.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let limit = self.budget.limit;
        let more = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= limit);
        let granted = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if granted {
            self.bytes += bytes;
        }
        granted
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
