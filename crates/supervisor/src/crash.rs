//! When to stop starting a worker again.
//!
//! A worker that was killed from outside after it had served is started again at once, however often that happens. A
//! worker that dies by itself, or before it serves, is likely to do so again: after a few of those within a minute the
//! mount is given up, so that its callers hear an error instead of waiting for ever.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::process::Ending;

/// Deaths older than this are forgotten.
const WINDOW: Duration = Duration::from_secs(60);

/// Weight of deaths within [`WINDOW`] that ends it.
const LIMIT: u32 = 60;

/// Weight of a crash: five are enough.
const CRASH: u32 = 12;

/// Weight of a kill right after the start: an admin (or a test) may well kill a few dozen in a row, the kernel's
/// out-of-memory killer does it without end.
const BRIEF_KILL: u32 = 1;

/// A worker that is killed sooner than this after it began to serve may have been the reason itself (memory limit).
const BRIEF: Duration = Duration::from_millis(150);

/// Longest pause before a new start.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What to do after a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start a new worker after this pause.
    Again(Duration),
    /// Do not; this many deaths came too close together.
    GiveUp(usize),
}

/// The recent deaths of one mount's workers that count.
#[derive(Debug, Default)]
pub(crate) struct CrashRecord {
    deaths: VecDeque<(Instant, u32)>,
}

impl CrashRecord {
    /// Notes a death; `served` is how long the worker had served, `None` if it never did.
    pub(crate) fn note(&mut self, served: Option<Duration>, ending: Ending, now: Instant) -> Verdict {
        let from_outside =
            matches!(ending, Ending::Signalled(libc::SIGKILL | libc::SIGTERM) | Ending::Unknown);
        let weight = match served {
            Some(served) if from_outside && served < BRIEF => BRIEF_KILL,
            Some(_) if from_outside => 0,
            Some(_) | None => CRASH,
        };
        while self.deaths.front().is_some_and(|(when, _)| now.saturating_duration_since(*when) > WINDOW) {
            self.deaths.pop_front();
        }
        if weight == 0 {
            return Verdict::Again(Duration::ZERO);
        }
        self.deaths.push_back((now, weight));
        let total: u32 = self.deaths.iter().map(|(_, weight)| weight).sum();
        if total >= LIMIT {
            return Verdict::GiveUp(self.deaths.len());
        }
        // Pauses grow with crashes; kills are answered as fast as they come.
        let doublings = (total / CRASH).min(8);
        Verdict::Again((Duration::from_millis(25) * 2u32.pow(doublings)).min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Ending = Ending::Signalled(libc::SIGKILL);

    #[test]
    fn kills_from_outside_never_end_a_mount() {
        let (mut record, mut now) = (CrashRecord::default(), Instant::now());
        for _ in 0..1000 {
            now += Duration::from_millis(200);
            let verdict = record.note(Some(Duration::from_millis(190)), KILLED, now);
            assert_eq!(verdict, Verdict::Again(Duration::ZERO));
        }
    }

    #[test]
    fn fifty_quick_kills_are_survived_and_a_killer_without_end_is_not() {
        let (mut record, mut now) = (CrashRecord::default(), Instant::now());
        let mut kill = || {
            now += Duration::from_millis(80);
            record.note(Some(Duration::from_millis(40)), KILLED, now)
        };
        assert!((0..50).all(|_| matches!(kill(), Verdict::Again(_))));
        assert!((0..50).any(|_| matches!(kill(), Verdict::GiveUp(_))));
    }

    #[test]
    fn five_crashes_in_a_minute_do_but_not_in_an_hour() {
        for (step, ends) in [(5, true), (600, false)] {
            let (mut record, mut now) = (CrashRecord::default(), Instant::now());
            let verdicts: Vec<Verdict> = (0..5)
                .map(|_| {
                    now += Duration::from_secs(step);
                    record.note(None, Ending::Exited(101), now)
                })
                .collect();
            assert!(verdicts[..4].iter().all(|verdict| matches!(verdict, Verdict::Again(_))));
            assert_eq!(verdicts[4] == Verdict::GiveUp(5), ends);
        }
    }
}
