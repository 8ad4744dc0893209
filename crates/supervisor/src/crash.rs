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

/// So many crashes within [`WINDOW`] end it.
const CRASHES: usize = 5;

/// So many brief lives within [`WINDOW`] end it: each of them may have served something, so this is patient.
const BRIEF_LIVES: usize = 60;

/// A worker that is killed sooner than this after it began to serve may have been the reason itself (a request that makes
/// it exceed the memory limit).
const BRIEF: Duration = Duration::from_millis(250);

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
    crashes: VecDeque<Instant>,
    brief: VecDeque<Instant>,
}

impl CrashRecord {
    /// Notes a death; `served` is how long the worker had served, `None` if it never did.
    pub(crate) fn note(&mut self, served: Option<Duration>, ending: Ending, now: Instant) -> Verdict {
        if ending == Ending::WithNursery {
            return Verdict::Again(Duration::ZERO);
        }
        let from_outside =
            matches!(ending, Ending::Signalled(libc::SIGKILL | libc::SIGTERM) | Ending::Unknown);
        let (deaths, limit) = match served {
            Some(served) if from_outside && served >= BRIEF => return Verdict::Again(Duration::ZERO),
            Some(_) if from_outside => (&mut self.brief, BRIEF_LIVES),
            Some(_) | None => (&mut self.crashes, CRASHES),
        };
        while deaths.front().is_some_and(|when| now.saturating_duration_since(*when) > WINDOW) {
            deaths.pop_front();
        }
        deaths.push_back(now);
        if deaths.len() >= limit {
            return Verdict::GiveUp(deaths.len());
        }
        if limit == BRIEF_LIVES {
            return Verdict::Again(Duration::ZERO);
        }
        let doublings = u32::try_from(deaths.len() - 1).unwrap_or(u32::MAX).min(8);
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
            now += Duration::from_millis(300);
            let verdict = record.note(Some(Duration::from_millis(260)), KILLED, now);
            assert_eq!(verdict, Verdict::Again(Duration::ZERO));
        }
    }

    #[test]
    fn what_dies_with_its_nursery_does_not_count() {
        let (mut record, now) = (CrashRecord::default(), Instant::now());
        let mut lost = |served| record.note(served, Ending::WithNursery, now);
        assert!((0..100).all(|_| lost(None) == Verdict::Again(Duration::ZERO)));
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
