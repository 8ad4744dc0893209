//! How many bytes the cache uses, told among processes without waiting for one another.
//!
//! The file `usage` holds 16 bytes: magic `VPUSAGE1` and a little-endian i64. Each process adds up what it stored and removed
//! and moves the sum into the file under `flock` once it is large enough. A lock that is taken is not waited for: the
//! sum stays pending. A killed process takes its pending sum with it; the janitor's count puts that right.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

const MAGIC: &[u8; 8] = b"VPUSAGE1";

/// See the module.
#[derive(Debug)]
pub(super) struct Ledger {
    /// `None` where it cannot be written.
    file: Mutex<Option<File>>,
    pending: AtomicI64,
    /// The file's value when it was last seen.
    shared: AtomicI64,
    flush_at: i64,
}

impl Ledger {
    /// Opens the ledger; the flag tells that it has no valid value and somebody must count.
    pub(super) fn open(path: &Path, quota: Option<u64>) -> (Self, bool) {
        let flush_at = quota.map_or(1 << 20, |quota| (quota / 64).clamp(1, 1 << 20)) as i64;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let mut ledger = Ledger {
            file: Mutex::new(None),
            pending: AtomicI64::new(0),
            shared: AtomicI64::new(0),
            flush_at,
        };
        let Ok(file) = file else { return (ledger, false) };
        let value = read(&file);
        ledger.shared = AtomicI64::new(value.unwrap_or(0));
        ledger.file = Mutex::new(Some(file));
        (ledger, value.is_none())
    }

    /// Bytes in use as far as this process knows.
    pub(super) fn total(&self) -> u64 {
        let total = self.shared.load(Ordering::Relaxed).saturating_add(self.pending.load(Ordering::Relaxed));
        u64::try_from(total).unwrap_or(0)
    }

    /// Notes bytes stored (positive) or removed. Returns whether the sum was moved to the file just now.
    pub(super) fn add(&self, bytes: i64) -> bool {
        let pending = self.pending.fetch_add(bytes, Ordering::Relaxed) + bytes;
        pending.abs() >= self.flush_at && self.flush()
    }

    /// Whether something is pending.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed) != 0
    }

    /// Moves the pending sum to the file, if nobody else is at it. Returns whether it was moved.
    pub(super) fn flush(&self) -> bool {
        self.update(|shared, pending| shared.saturating_add(pending))
    }

    /// Sets what a count found: `counted` bytes by a walk that began when the file held `before`.
    pub(super) fn set_counted(&self, counted: i64, before: i64) -> bool {
        self.update(|shared, pending| {
            counted.saturating_add(shared.saturating_sub(before)).saturating_add(pending)
        })
    }

    /// The value in the file now.
    pub(super) fn shared_now(&self) -> i64 {
        self.flush();
        self.shared.load(Ordering::Relaxed)
    }

    fn update(&self, next: impl FnOnce(i64, i64) -> i64) -> bool {
        let Some(slot) = self.file.try_lock() else { return false };
        let Some(file) = slot.as_ref() else { return false };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return false,
        }
        let pending = self.pending.swap(0, Ordering::Relaxed);
        let value = next(read(file).unwrap_or(0), pending).max(0);
        let written = write(file, value);
        let _ = file.unlock();
        match written {
            Ok(()) => self.shared.store(value, Ordering::Relaxed),
            Err(_) => {
                self.pending.fetch_add(pending, Ordering::Relaxed);
            }
        }
        written.is_ok()
    }
}

fn read(file: &File) -> Option<i64> {
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (magic, value) = bytes.split_at(8);
    (magic == MAGIC).then(|| i64::from_le_bytes(value.try_into().expect("half of 16 bytes")))
}

fn write(file: &File, value: i64) -> io::Result<()> {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..].copy_from_slice(&value.to_le_bytes());
    file.write_all_at(&bytes, 0)
}
