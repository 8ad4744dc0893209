//! The newest failures of stages and publishes, for those who ask how a volume is that never came to be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use volume::Fault;

/// Volumes remembered; a node has fewer pods.
const LIMIT: usize = 512;

/// Failures by volume id.
#[derive(Default)]
pub(super) struct Failures {
    turn: AtomicU64,
    volumes: Mutex<BTreeMap<String, (u64, Fault)>>,
}

impl Failures {
    /// Remembers a failure; the oldest gives way when there are too many.
    pub(super) fn note(&self, volume_id: &str, fault: &Fault) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut volumes = self.volumes.lock();
        volumes.insert(volume_id.to_owned(), (turn, fault.clone()));
        if volumes.len() > LIMIT {
            let oldest = volumes.iter().min_by_key(|(_, (turn, _))| *turn).map(|(id, _)| id.clone());
            oldest.map(|id| volumes.remove(&id));
        }
    }

    /// The volume is there now, or wanted no more.
    pub(super) fn forget(&self, volume_id: &str) {
        self.volumes.lock().remove(volume_id);
    }

    /// Why the newest try failed.
    pub(super) fn of(&self, volume_id: &str) -> Option<Fault> {
        self.volumes.lock().get(volume_id).map(|(_, fault)| fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use volume::FaultKind;

    use super::*;

    #[test]
    fn the_oldest_failure_gives_way() {
        let failures = Failures::default();
        let fault = Fault::new(FaultKind::Unavailable, "mount", "x", "no");
        for number in 0..=LIMIT {
            failures.note(&format!("v{number}"), &fault);
        }
        assert_eq!((failures.of("v0"), failures.of("v1")), (None, Some(fault)));
        failures.forget("v1");
        assert_eq!(failures.of("v1"), None);
    }
}
