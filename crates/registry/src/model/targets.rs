//! What must be true of targets after every step, and when a publication may be refused.

use volume::{Fault, FaultKind, MountKey, RefId, Sharing};

use super::calls::Call;
use super::{Run, TARGETS};
use crate::fake::key;

impl Run {
    /// What a spec's key is as the site is configured now.
    pub(super) fn resolved(&self, plain: &MountKey) -> MountKey {
        key(&format!("{plain}{}", self.world.facts.lock().key_suffix))
    }

    /// Which mount an acquire led to: the one that the configuration names now, or, if kubelet repeated itself, the one
    /// that it had.
    pub(super) fn acquired_key(&self, call: Call, reference: &RefId, now: MountKey) -> MountKey {
        let Some(real) = self.real().get(reference).cloned() else { return now };
        let kept = matches!(call, Call::Publish(..)) && self.held.get(reference) == Some(&real);
        assert!(real == now || kept, "{reference} led to {real} instead of {now}");
        real
    }

    /// A publication that was refused although nothing failed has a reason.
    pub(super) fn check_refusal(&self, call: Call, fault: &Fault) {
        let Call::Publish(t, manner) = call else { return };
        let (reference, _) = call.reference().unwrap();
        let tables = self.registry.as_ref().unwrap().core().tables.lock();
        match fault.kind {
            FaultKind::AlreadyExists => {
                let other = tables.bound_to(TARGETS[t].0.as_ref()).is_some_and(|owner| *owner != reference);
                let there = self.world.facts.lock().mounts.contains_key(std::path::Path::new(TARGETS[t].0));
                assert!(other || there, "{fault}");
            }
            FaultKind::InUse => {
                let alone = |sharing| manner.single || sharing == Sharing::Single;
                let minds = |row: &crate::table::ReferenceRow| {
                    row.bind.as_ref().is_some_and(|bind| alone(bind.sharing))
                };
                assert!(tables.siblings(&reference).any(|(_, row)| minds(row)), "{fault}");
            }
            _ => {}
        }
    }

    /// No target has two uses; a use that wants to be alone is; what a use says is bound, is.
    pub(super) fn check_targets(&self) {
        let tables = self.registry.as_ref().unwrap().core().tables.lock();
        let facts = self.world.facts.lock();
        for (reference, _) in tables.references() {
            let row = &tables.reference(reference).unwrap().row;
            let Some(bind) = &row.bind else { continue };
            assert_eq!(tables.bound_to(&bind.target), Some(reference));
            if !row.settled {
                continue;
            }
            let single = |sharing| bind.sharing == Sharing::Single || sharing == Sharing::Single;
            let crowded = tables.siblings(reference).any(|(_, other)| {
                other.settled && other.bind.as_ref().is_some_and(|other| single(other.sharing))
            });
            assert!(!crowded, "{reference} is not alone");
            let there = facts.mounts.get(&bind.target).map(|mounted| mounted.device);
            assert!(there.is_none() || there == bind.device, "{reference} shows something else");
        }
    }
}
