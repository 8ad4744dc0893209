//! Objects kept open, so that a repeated open costs no system call.
//!
//! Readers take a shared lock of one of 32 shards for one hash-map lookup. A full shard gives up an object that was not used
//! since the last time it looked (second chance).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::object::Object;
use crate::client::hash::ObjectId;

const SHARDS: usize = 32;

#[derive(Debug)]
struct Slot {
    object: Object,
    used: AtomicBool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Recent {
    key: RandomState,
    shards: Vec<RwLock<HashMap<ObjectId, Slot>>>,
    per_shard: usize,
}

impl Recent {
    /// Keeps about `capacity` objects open.
    pub(super) fn new(capacity: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Recent { key: RandomState::new(), shards, per_shard: (capacity / SHARDS).max(1) }
    }

    fn shard(&self, id: &ObjectId) -> &RwLock<HashMap<ObjectId, Slot>> {
        &self.shards[self.key.hash_one(id) as usize % SHARDS]
    }

    pub(super) fn get(&self, id: &ObjectId) -> Option<Object> {
        let shard = self.shard(id).read();
        let slot = shard.get(id)?;
        slot.used.store(true, Ordering::Relaxed);
        Some(slot.object.clone())
    }

    pub(super) fn insert(&self, id: ObjectId, object: Object) {
        // Closing a file is a system call: outside of the lock.
        let mut dropped = None;
        {
            let mut shard = self.shard(&id).write();
            if shard.len() >= self.per_shard && !shard.contains_key(&id) {
                let unused = shard
                    .iter()
                    .find(|(_, slot)| !slot.used.swap(false, Ordering::Relaxed))
                    .map(|(id, _)| *id);
                let victim = unused.or_else(|| shard.keys().next().copied());
                dropped = victim.and_then(|id| shard.remove(&id));
            }
            let old = shard.insert(id, Slot { object, used: AtomicBool::new(false) });
            dropped = dropped.or(old);
        }
        drop(dropped);
    }

    pub(super) fn remove(&self, id: &ObjectId) {
        let slot = self.shard(id).write().remove(id);
        drop(slot);
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Closes what was evicted from the disk, so that its space comes free.
    pub(super) fn close_unlinked(&self) {
        for shard in &self.shards {
            let open: Vec<(ObjectId, Object)> =
                shard.read().iter().map(|(id, slot)| (*id, slot.object.clone())).collect();
            for (id, object) in open {
                if object.file().is_some() && object.is_unlinked() {
                    self.remove(&id);
                }
            }
        }
    }
}
