//! Which cached files this process has read and found good.
//!
//! A file is known by (device, inode, size, mtime) and its object's name, folded into 64 bits with a key that nobody outside
//! this process knows. Two generations bound the memory: when the young one is full it becomes the old one.

use std::collections::HashSet;
use std::fs::Metadata;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;

use parking_lot::Mutex;

use crate::client::hash::ObjectId;

const SHARDS: usize = 16;
/// Files remembered per shard and generation: 16 × 2 × 8192 in all, about 4 MiB.
const PER_SHARD: usize = 8192;

#[derive(Default, Debug)]
struct Generations {
    young: HashSet<u64>,
    old: HashSet<u64>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Verified {
    key: RandomState,
    shards: [Mutex<Generations>; SHARDS],
}

impl Verified {
    pub(super) fn new() -> Self {
        Verified { key: RandomState::new(), shards: Default::default() }
    }

    fn mark(&self, id: &ObjectId, file: &Metadata) -> u64 {
        self.key.hash_one((id, file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
    }

    fn shard(&self, mark: u64) -> &Mutex<Generations> {
        &self.shards[(mark >> 60) as usize % SHARDS]
    }

    /// Whether this very file was verified as this object.
    pub(super) fn contains(&self, id: &ObjectId, file: &Metadata) -> bool {
        let mark = self.mark(id, file);
        let shard = self.shard(mark).lock();
        shard.young.contains(&mark) || shard.old.contains(&mark)
    }

    /// Notes that it was.
    pub(super) fn insert(&self, id: &ObjectId, file: &Metadata) {
        let mark = self.mark(id, file);
        let mut shard = self.shard(mark).lock();
        if shard.young.len() >= PER_SHARD {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(mark);
    }
}
