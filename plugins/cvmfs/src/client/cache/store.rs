//! The directory itself: finding, verifying and discarding objects, and the health of the disk under it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use volume::Sample;

use super::janitor::Bell;
use super::ledger::Ledger;
use super::object::{MemoryBudget, Object};
use super::recent::Recent;
use super::seal::{self, Seal};
use super::verified::Verified;
use super::{CacheConfig, CacheError};
use crate::client::hash::ObjectId;

/// Largest object that is verified on the thread that asks (a tenth of a millisecond).
const VERIFY_AT_ONCE_BYTES: u64 = 256 << 10;

/// What a quick look finds.
#[derive(Debug)]
pub(crate) enum Look {
    /// Open and verified.
    Here(Object),
    /// On disk, to be read and verified first.
    Unverified,
    /// Not cached.
    Absent,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    config: CacheConfig,
    objects: PathBuf,
    workshop: Mutex<Option<Arc<Workshop>>>,
    next_temporary: AtomicU64,
    verified: Verified,
    pub(super) recent: Recent,
    pub(super) ledger: Ledger,
    pub(super) disk: DiskHealth,
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) bell: Bell,
    pub(super) counters: Counters,
}

/// Events since the start of the process.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) stored: AtomicU64,
    pub(super) stored_bytes: AtomicU64,
    pub(super) uncached: AtomicU64,
    pub(super) corrupt: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) evicted_bytes: AtomicU64,
}

impl Store {
    pub(super) fn open(config: CacheConfig) -> Result<Self, CacheError> {
        let directory = config.directory.clone();
        let disk = DiskHealth::default();
        match make_directory(&directory) {
            Ok(()) => check_owner(&directory)?,
            Err(error) => disk.failed("make the cache directory", &directory, &error),
        }
        for name in ["objects", "records", "tmp"] {
            if let Err(error) = make_directory(&directory.join(name)) {
                disk.failed("make a cache directory", &directory.join(name), &error);
            }
        }
        let (ledger, uncounted) = Ledger::open(&directory.join("usage"), config.quota);
        let bell = Bell::default();
        if uncounted {
            bell.want_count();
        }
        Ok(Store {
            objects: directory.join("objects"),
            workshop: Mutex::new(None),
            next_temporary: AtomicU64::new(0),
            verified: Verified::new(),
            recent: Recent::new(config.open_objects),
            ledger,
            disk,
            memory: MemoryBudget::new(config.memory_limit),
            bell,
            counters: Counters::default(),
            config,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.config.directory
    }

    pub(super) fn objects(&self) -> &Path {
        &self.objects
    }

    pub(super) fn quota(&self) -> Option<u64> {
        self.config.quota
    }

    /// Whether it is time to evict: a sixteenth before the quota, as eviction takes its time.
    pub(super) fn is_over_quota(&self) -> bool {
        self.config.quota.is_some_and(|quota| self.ledger.total() > quota - quota / 16)
    }

    /// Where an object is or would be.
    pub(super) fn path(&self, id: &ObjectId) -> PathBuf {
        let name = id.to_string();
        let (shard, rest) = name.split_at(2);
        let mut path = self.objects.join(shard);
        path.push(rest);
        path
    }

    /// A new path for a file under way, in the directory of this process.
    pub(super) fn temporary(&self) -> io::Result<PathBuf> {
        let workshop = {
            let mut slot = self.workshop.lock();
            match slot.as_ref() {
                Some(workshop) => Arc::clone(workshop),
                None => Arc::clone(slot.insert(Arc::new(Workshop::open(&self.directory().join("tmp"))?))),
            }
        };
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        Ok(workshop.path.join(number.to_string()))
    }

    /// Lets the next file under way make its directory anew (somebody removed it).
    pub(super) fn forget_workshop(&self) {
        *self.workshop.lock() = None;
    }

    pub(super) fn look(&self, id: &ObjectId) -> Look {
        if let Some(object) = self.recent.get(id) {
            object.touch();
            return Look::Here(object);
        }
        match self.read(id, VERIFY_AT_ONCE_BYTES) {
            Reading::Good(object) => Look::Here(object),
            Reading::TooLarge => Look::Unverified,
            Reading::Nothing => Look::Absent,
        }
    }

    pub(super) fn at_hand(&self, id: &ObjectId) -> Option<Object> {
        match self.look(id) {
            Look::Here(object) => Some(object),
            Look::Unverified | Look::Absent => None,
        }
    }

    pub(super) fn load(&self, id: &ObjectId) -> Option<Object> {
        if let Some(object) = self.recent.get(id) {
            object.touch();
            return Some(object);
        }
        match self.read(id, u64::MAX) {
            Reading::Good(object) => Some(object),
            Reading::TooLarge | Reading::Nothing => None,
        }
    }

    /// Opens a cached file; verifies it unless that was done or it is larger than `verify_up_to`.
    fn read(&self, id: &ObjectId, verify_up_to: u64) -> Reading {
        let path = self.path(id);
        let no_link = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(no_link.bits() as i32).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Reading::Nothing,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "cached object cannot be opened");
                return Reading::Nothing;
            }
        };
        let metadata = match file.metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) | Err(_) => return Reading::Nothing,
        };
        if !self.verified.contains(id, &metadata) {
            if metadata.len() > verify_up_to {
                return Reading::TooLarge;
            }
            let carried = Seal::carried_by(&file, &path);
            let good = match carried {
                Ok(Some(seal)) => Seal::of_file(&file, metadata.len(), id).is_ok_and(|actual| actual == seal),
                Ok(None) | Err(_) => false,
            };
            if !good {
                self.discard(id, &path, metadata.len());
                return Reading::Nothing;
            }
            self.verified.insert(id, &metadata);
        }
        let atime = u64::try_from(metadata.atime()).unwrap_or(0);
        Reading::Good(self.keep(*id, file, metadata.len(), atime))
    }

    /// Removes an object that is not what it should be.
    fn discard(&self, id: &ObjectId, path: &Path, size: u64) {
        tracing::warn!(object = %id, path = %path.display(), "cached object is damaged; it is fetched again");
        self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        self.recent.remove(id);
        if fs::remove_file(path).is_ok() {
            self.ledger.add(-(disk_bytes(size) as i64));
        }
        let _ = fs::remove_file(seal::beside(path));
    }

    /// Makes a file of this process, written and sealed at `temporary`, an object of the cache. Its time of last use.
    pub(super) fn adopt(&self, id: &ObjectId, temporary: &Path, file: &File, size: u64) -> io::Result<u64> {
        let target = self.path(id);
        let replaced = fs::symlink_metadata(&target).map_or(0, |old| disk_bytes(old.len()));
        let metadata = file.metadata()?;
        seal::rename_into_shard(temporary, &target)?;
        self.verified.insert(id, &metadata);
        self.counters.stored.fetch_add(1, Ordering::Relaxed);
        self.counters.stored_bytes.fetch_add(size, Ordering::Relaxed);
        self.ledger.add(disk_bytes(size) as i64 - replaced as i64);
        if self.is_over_quota() {
            self.bell.want_space();
        } else if self.ledger.is_pending() {
            self.bell.pending();
        }
        Ok(u64::try_from(metadata.atime()).unwrap_or(0))
    }

    /// An open file of the cache as an object that is at hand from now on.
    pub(super) fn keep(&self, id: ObjectId, file: File, size: u64, atime: u64) -> Object {
        let object = Object::in_cache(file, size, atime);
        object.touch();
        self.recent.insert(id, object.clone());
        object
    }

    /// Ends the use by this process.
    pub(super) fn close(&self) {
        self.ledger.flush();
        if let Some(workshop) = self.workshop.lock().take() {
            workshop.remove();
        }
    }

    pub(super) fn samples(&self) -> Vec<Sample> {
        let counters = &self.counters;
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        [
            ("cvmfs_cache_bytes", self.ledger.total() as f64),
            ("cvmfs_cache_quota_bytes", self.config.quota.map_or(f64::INFINITY, |quota| quota as f64)),
            ("cvmfs_cache_open_objects", self.recent.len() as f64),
            ("cvmfs_cache_memory_bytes", self.memory.used() as f64),
            ("cvmfs_cache_trouble", f64::from(u8::from(self.disk.trouble().is_some()))),
            ("cvmfs_cache_stored_total", total(&counters.stored)),
            ("cvmfs_cache_stored_bytes_total", total(&counters.stored_bytes)),
            ("cvmfs_cache_uncached_total", total(&counters.uncached)),
            ("cvmfs_cache_corrupt_total", total(&counters.corrupt)),
            ("cvmfs_cache_evicted_total", total(&counters.evicted)),
            ("cvmfs_cache_evicted_bytes_total", total(&counters.evicted_bytes)),
        ]
        .into_iter()
        .map(|(name, value)| Sample { name: name.to_owned(), labels: Vec::new(), value })
        .collect()
    }
}

enum Reading {
    Good(Object),
    TooLarge,
    Nothing,
}

/// What a file of `size` bytes takes on disk, about.
pub(super) fn disk_bytes(size: u64) -> u64 {
    size.div_ceil(4096) * 4096
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Cached content is as trustworthy as the directory it lies in.
fn check_owner(path: &Path) -> Result<(), CacheError> {
    let uid = nix::unistd::geteuid().as_raw();
    let not_safe = |detail: String| CacheError::Unsafe { path: path.to_owned(), detail, uid };
    let metadata = fs::symlink_metadata(path).map_err(|error| not_safe(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(not_safe("is no directory".to_owned()));
    }
    if metadata.uid() != uid {
        return Err(not_safe(format!("belongs to user {}", metadata.uid())));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(not_safe(format!("others may write to it (mode {:04o})", metadata.mode() & 0o7777)));
    }
    Ok(())
}

/// The directory of this process's files under way. Its lock file is held under `flock` while the process lives.
#[derive(Debug)]
struct Workshop {
    path: PathBuf,
    _lock: File,
}

impl Workshop {
    fn open(parent: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        make_directory(parent)?;
        // Process ids repeat in containers that share a cache; a leftover of that name may still be locked.
        for _ in 0..1000 {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            let lock = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path.join("lock"))?;
            lock.try_lock().map_err(io::Error::from)?;
            return Ok(Workshop { path, _lock: lock });
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether the disk takes data.
#[derive(Debug, Default)]
pub(super) struct DiskHealth {
    ill: AtomicBool,
    state: Mutex<Option<Illness>>,
}

#[derive(Debug)]
struct Illness {
    text: String,
    retry_at: Instant,
}

/// How often an ill disk is tried.
const RETRY_EVERY: Duration = Duration::from_secs(1);

impl DiskHealth {
    /// Whether to try the disk now: always while it is healthy, once in a while when not.
    pub(super) fn try_now(&self) -> bool {
        if !self.ill.load(Ordering::Relaxed) {
            return true;
        }
        let mut state = self.state.lock();
        let Some(illness) = state.as_mut() else { return true };
        let now = Instant::now();
        let due = illness.retry_at <= now;
        if due {
            illness.retry_at = now + RETRY_EVERY;
        }
        due
    }

    /// Notes a failure; logs the first one.
    pub(super) fn failed(&self, what: &str, path: &Path, error: &io::Error) {
        let text = format!("{what} {}: {error}", path.display());
        let new = {
            let mut state = self.state.lock();
            let new = state.is_none();
            *state = Some(Illness { text: text.clone(), retry_at: Instant::now() + RETRY_EVERY });
            self.ill.store(true, Ordering::Relaxed);
            new
        };
        if new {
            tracing::warn!(
                "the cache takes no data, content is served without caching until it does: {text}"
            );
        }
    }

    /// Notes that data was taken.
    pub(super) fn recovered(&self) {
        if self.ill.load(Ordering::Relaxed) && self.state.lock().take().is_some() {
            self.ill.store(false, Ordering::Relaxed);
            tracing::info!("the cache takes data again");
        }
    }

    /// What is wrong, if anything.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        state
            .as_ref()
            .map(|illness| format!("served without caching, free or repair the cache disk: {}", illness.text))
    }
}
