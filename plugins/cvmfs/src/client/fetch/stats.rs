//! Counters of one fetcher, and its newest error.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use volume::{FaultKind, Sample};

use super::FetchError;

/// All since the start; times in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) hits: AtomicU64,
    pub(super) fetches: AtomicU64,
    pub(super) shared: AtomicU64,
    pub(super) transferred_bytes: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) failed_attempts: AtomicU64,
    pub(super) failovers: AtomicU64,
    pub(super) hedges: AtomicU64,
    pub(super) hedges_won: AtomicU64,
    pub(super) rounds: AtomicU64,
    pub(super) wrong_bytes: AtomicU64,
    pub(super) fetch_time: AtomicU64,
    last_error: Mutex<Option<(SystemTime, String)>>,
    /// Since when, and how often, nobody answered well.
    is_unreachable: AtomicBool,
    unreachable: Mutex<Option<(SystemTime, u32)>>,
}

impl Stats {
    pub(super) fn finished<T>(&self, took: Duration, result: &Result<T, FetchError>) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.fetch_time.fetch_add(nanoseconds, Ordering::Relaxed);
        let Err(error) = result else {
            if self.is_unreachable.swap(false, Ordering::Relaxed) {
                *self.unreachable.lock() = None;
            }
            return;
        };
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock() = Some((SystemTime::now(), error.to_string()));
        if matches!(error.kind(), FaultKind::Unavailable | FaultKind::DeadlineExceeded) {
            let mut unreachable = self.unreachable.lock();
            unreachable.get_or_insert_with(|| (SystemTime::now(), 0)).1 += 1;
            self.is_unreachable.store(true, Ordering::Relaxed);
        }
    }

    /// What is wrong when nobody has answered well twice in a row, with the time of the first.
    pub(super) fn trouble(&self) -> Option<String> {
        let (since, times) = (*self.unreachable.lock())?;
        let last = self.last_error.lock().as_ref().map(|(_, text)| text.clone()).unwrap_or_default();
        (times >= 2).then(|| format!("no server or proxy answers well since {}: {last}", utc(since)))
    }

    /// `2026-01-02T03:04:05Z text`.
    pub(super) fn last_error(&self) -> Option<String> {
        let last = self.last_error.lock();
        let (time, text) = last.as_ref()?;
        Some(format!("{} {text}", utc(*time)))
    }

    pub(super) fn samples(&self, connects: u64) -> Vec<Sample> {
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        [
            ("cvmfs_cache_hits_total", total(&self.hits)),
            ("cvmfs_fetches_total", total(&self.fetches)),
            ("cvmfs_fetch_shared_total", total(&self.shared)),
            ("cvmfs_fetch_bytes_total", total(&self.transferred_bytes)),
            ("cvmfs_fetch_errors_total", total(&self.errors)),
            ("cvmfs_fetch_failed_attempts_total", total(&self.failed_attempts)),
            ("cvmfs_fetch_failovers_total", total(&self.failovers)),
            ("cvmfs_fetch_hedges_total", total(&self.hedges)),
            ("cvmfs_fetch_hedges_won_total", total(&self.hedges_won)),
            ("cvmfs_fetch_retry_rounds_total", total(&self.rounds)),
            ("cvmfs_fetch_wrong_bytes_total", total(&self.wrong_bytes)),
            ("cvmfs_fetch_seconds_total", total(&self.fetch_time) / 1e9),
            ("cvmfs_fetch_connects_total", connects as f64),
        ]
        .into_iter()
        .map(|(name, value)| Sample { name: name.to_owned(), labels: Vec::new(), value })
        .collect()
    }
}

/// ISO 8601; empty for a clock that is far off.
fn utc(time: SystemTime) -> String {
    der::DateTime::from_system_time(time).map_or_else(|_| String::new(), |time| time.to_string())
}
