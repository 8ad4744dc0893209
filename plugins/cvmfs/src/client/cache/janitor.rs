//! The thread that evicts, counts and cleans up, so that nobody else ever does.
//!
//! Eviction walks the whole cache twice: first a histogram of bytes by age tells how old an object must be to go, then those
//! go. That needs a few kilobytes whatever the cache holds. One process at a time does it (`janitor.lock`); the
//! others see the result in the ledger. Open objects stay readable, as their names only go.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

use super::seal;
use super::store::{Store, disk_bytes};

/// How long a sum may stay pending, and evicted files open.
const TICK: Duration = Duration::from_secs(10);
/// Pause after an eviction.
const BREATH: Duration = Duration::from_millis(20);
/// A lock file younger than this may be about to be locked.
const SETTLED: Duration = Duration::from_secs(60);
/// Age classes: 32 for each doubling of the age in milliseconds.
const CLASSES: usize = 64 * 32;

/// How others wake the janitor.
#[derive(Debug, Default)]
pub(super) struct Bell {
    wishes: Mutex<Wishes>,
    rung: Condvar,
    stopped: AtomicBool,
    /// The janitor sleeps without a tick.
    idle: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Wishes {
    space: bool,
    squeeze: bool,
    count: bool,
    any: bool,
}

impl Bell {
    /// The quota is about to be reached.
    pub(super) fn want_space(&self) {
        self.ring(|wishes| wishes.space = true);
    }

    /// The disk is full below the quota.
    pub(super) fn want_squeeze(&self) {
        self.ring(|wishes| wishes.squeeze = true);
    }

    /// Nobody knows how much is used.
    pub(super) fn want_count(&self) {
        self.ring(|wishes| wishes.count = true);
    }

    /// Something waits to be told to the ledger: makes an idle janitor look once per tick again.
    pub(super) fn pending(&self) {
        if self.idle.load(Ordering::Relaxed) {
            self.ring(|_| {});
        }
    }

    /// Ends the janitor.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.ring(|_| {});
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn ring(&self, wish: impl FnOnce(&mut Wishes)) {
        let mut wishes = self.wishes.lock();
        wish(&mut wishes);
        wishes.any = true;
        self.rung.notify_one();
    }

    /// Waits for a wish, at most `limit`.
    fn wait(&self, limit: Option<Duration>) -> Wishes {
        let mut wishes = self.wishes.lock();
        if !wishes.any {
            match limit {
                Some(limit) => {
                    self.rung.wait_for(&mut wishes, limit);
                }
                None => {
                    self.idle.store(true, Ordering::Relaxed);
                    self.rung.wait(&mut wishes);
                    self.idle.store(false, Ordering::Relaxed);
                }
            }
        }
        std::mem::take(&mut *wishes)
    }
}

/// Starts the thread. It ends when the bell says so.
pub(super) fn start(store: Arc<Store>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("cache-janitor".to_owned()).spawn(move || run(&store))
}

fn run(store: &Store) {
    let mut count = clean_leftovers(&store.directory().join("tmp"));
    let mut limit = Some(Duration::ZERO);
    while !store.bell.is_stopped() {
        let wishes = store.bell.wait(limit);
        count |= wishes.count;
        store.ledger.flush();
        if !wishes.any {
            store.recent.close_unlinked();
        }
        if store.bell.is_stopped() {
            return;
        }
        let goal = if wishes.squeeze {
            Some(Goal::Squeeze)
        } else if store.is_over_quota() {
            Some(Goal::Quota)
        } else {
            count.then_some(Goal::Count)
        };
        let mut done = true;
        if let Some(goal) = goal {
            done = with_lock(store, || evict(store, goal));
            if done {
                count = false;
            }
            // Whoever stores over the quota rings for every object.
            thread::sleep(BREATH);
        }
        // Open objects may be evicted by another process; nothing open and nothing pending needs no tick.
        let idle = done && !store.ledger.is_pending() && store.recent.len() == 0;
        limit = (!idle).then_some(TICK);
    }
}

#[derive(Debug, Clone, Copy)]
enum Goal {
    /// Down to three quarters of the quota.
    Quota,
    /// Down to three quarters of what is used, as the disk is full.
    Squeeze,
    /// Only count.
    Count,
}

/// Runs `work` unless another process is at it; whether it ran to its end.
fn with_lock(store: &Store, work: impl FnOnce() -> bool) -> bool {
    let path = store.directory().join("janitor.lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    // A full disk may not let us make the lock file: then nobody has it.
    let lock: Option<File> = match file {
        Ok(file) => match file.try_lock() {
            Ok(()) => Some(file),
            Err(_) => return false,
        },
        Err(_) => None,
    };
    let done = work();
    drop(lock);
    done
}

fn evict(store: &Store, goal: Goal) -> bool {
    let before = store.ledger.shared_now();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let mut histogram = vec![0u64; CLASSES];
    let mut total = 0u64;
    let counted = walk(store, |_, metadata| {
        let bytes = disk_bytes(metadata.len());
        total += bytes;
        histogram[age_class(now, metadata)] += bytes;
    });
    if !counted {
        return false;
    }
    store.ledger.set_counted(i64::try_from(total).unwrap_or(i64::MAX), before);
    let quota_target = store.quota().map_or(u64::MAX, |quota| quota / 4 * 3);
    let target = match goal {
        Goal::Squeeze => quota_target.min(total / 4 * 3),
        Goal::Quota | Goal::Count if store.is_over_quota() => quota_target,
        Goal::Quota | Goal::Count => return true,
    };
    let mut surplus = total.saturating_sub(target);
    if surplus == 0 {
        return true;
    }
    let needed = surplus;
    // The youngest class that must go, at least in part.
    let mut last = CLASSES;
    for class in (0..CLASSES).rev() {
        last = class;
        if histogram[class] >= surplus {
            break;
        }
        surplus -= histogram[class];
    }
    let mut of_last = surplus;
    let mut freed = 0u64;
    let mut files = 0u64;
    let done = walk(store, |path, metadata| {
        let class = age_class(now, metadata);
        let bytes = disk_bytes(metadata.len());
        let goes = class > last || (class == last && of_last > 0);
        if goes && freed < needed && fs::remove_file(path).is_ok() {
            let _ = fs::remove_file(seal::beside(path));
            if class == last {
                of_last = of_last.saturating_sub(bytes);
            }
            freed += bytes;
            files += 1;
            store.ledger.add(-(bytes as i64));
        }
    });
    store.ledger.flush();
    store.counters.evicted.fetch_add(files, Ordering::Relaxed);
    store.counters.evicted_bytes.fetch_add(freed, Ordering::Relaxed);
    store.recent.close_unlinked();
    tracing::info!(files, bytes = freed, "evicted the objects that were not used for the longest time");
    done
}

/// 0 is now; each class is 2 % older than the one before.
fn age_class(now_ms: i64, metadata: &Metadata) -> usize {
    let atime_ms = metadata.atime().saturating_mul(1000).saturating_add(metadata.atime_nsec() / 1_000_000);
    let age = now_ms.saturating_sub(atime_ms).max(0) as u64 + 1;
    let octave = age.ilog2();
    let fraction = ((u128::from(age) << 5 >> octave) - 32) as usize;
    octave as usize * 32 + fraction
}

/// Shows every object to `visit`; `false` when it was stopped before the end.
fn walk(store: &Store, mut visit: impl FnMut(&Path, &Metadata)) -> bool {
    let Ok(shards) = fs::read_dir(store.objects()) else { return true };
    for shard in shards.flatten() {
        let Ok(entries) = fs::read_dir(shard.path()) else { continue };
        for entry in entries.flatten() {
            if store.bell.is_stopped() {
                return false;
            }
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "seal") {
                continue;
            }
            // Gone meanwhile: nothing to do.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                visit(&path, &metadata);
            }
        }
    }
    true
}

/// Removes the unfinished files of processes that are no more; whether there were any.
fn clean_leftovers(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    let mut found = false;
    for entry in entries.flatten() {
        let path = entry.path();
        let settled = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age >= SETTLED));
        if !settled {
            continue;
        }
        let alive = match OpenOptions::new().write(true).open(path.join("lock")) {
            Ok(lock) => lock.try_lock().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if !alive {
            found |= fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path)).is_ok();
        }
    }
    found
}
