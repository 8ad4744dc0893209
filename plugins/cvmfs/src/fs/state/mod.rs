//! What a worker leaves to the next one: the nodes that the kernel knows.
//!
//! The kernel names inodes by node id and counts its lookups of each. A worker that is killed takes none of this
//! with it: everything the kernel was told is in one *state file*, written with `pwrite` before the answer goes out,
//! so it is in the page cache whatever happens to the process. The file belongs to one mount and dies with it (it
//! need not survive the machine; there is no fsync). All fields are little-endian.
//!
//! ```text
//! slot 0       magic "VPNODES\n" | version u32 | bytes of a slot u32 | zero
//! slot 1..     records, each of one or more slots of 64 bytes, one after the other:
//!
//!   0  kind u8 (0 unused, 1 free, 2 catalog, 3 node, 4 directory handle, 5 note)
//!   1  zero u8
//!   2  slots u16, at least 1 (of kind 0: one slot whatever it says)
//!   4  checksum u32: BLAKE3 of (slot number, bytes 0..4, all fixed bytes from 8 on)
//!
//!   catalog            8 length u16 | bytes (fixed; the file system's own name of a catalog)
//!   node               8 node id u64
//!                     16 lookups u64 | catalog slot u32 | opens u32 | backing id u32 | I/O mode u8   (these change)
//!                     37 zero u8 | path length u16 | key [16] | path bytes                           (fixed)
//!   directory handle   8 node id u64 | catalog slot u32 | generation u32 (fixed)
//!   note               8 generation u64 | length of name u16 | length of value u16 | name | value (fixed)
//! ```
//!
//! # Why a kill at any instant does no harm
//!
//! A `pwrite` within one page is not torn by a signal: the kernel looks for a fatal signal between pages. Slots are
//! aligned to 64 bytes, so a record's head and its changing bytes never cross a page.
//! - A *new record* is written with one `pwrite` over a free extent. If only its first page got there, the checksum
//!   does not match and the extent counts as free. If the extent was longer, a head of kind "free" for what remains
//!   of it goes first, to a place that no reader looks at before the record itself is there.
//! - A *catalog* is written before the first node that points to it and freed after the last.
//! - *Counts* change by one small `pwrite`, before the answer with which the kernel counts as well. So the recorded
//!   count is never below the kernel's: at worst a node stays until unmount because its answer never went out.
//! - A *freed* record gets a head of kind "free" before its extent can be used again.
//! - A *note* that replaces another is written before that is freed; of two with one name the later generation counts.
//! - At the end of the file, a record that is cut off is the end.
//!
//! # In memory
//!
//! A map of nodes in 64 shards, each with a lock of its own that is held over the small `pwrite` into the page cache (two
//! writes of one count must not overtake each other) and over nothing else. The free list is not recorded; it is
//! what the records leave.

mod catalogs;
mod extents;
mod load;
mod notes;
mod opens;
mod record;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use self::catalogs::Catalogs;
use self::extents::{Extent, Extents};
pub use self::load::LoadError;
use self::notes::Note;
use self::opens::Handle;
use self::record::{Record, SLOT_BYTES};

/// Node ids below this one are the kernel's own: 0 is none, 1 the root.
const FIRST_NODE: u64 = 2;
const SHARDS: usize = 64;
/// Longest path and longest catalog name that can be recorded, in bytes.
pub const PATH_MAX_BYTES: usize = 32 * 1024;

/// 128 bits that stand for (repository, path, content identity); see [`identity`](super::identity).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeKey(pub [u8; 16]);

impl NodeKey {
    /// The `attempt`-th node id of this key, never 0 or 1. Attempt 0 is nearly always taken; the others are for two
    /// keys with the same first 64 bits, which an author of hostile paths can make.
    fn node_id(self, attempt: u32) -> u64 {
        let mut round = u64::from(attempt);
        loop {
            let id = if round == 0 {
                word(&self.0[..8])
            } else {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&self.0).update(&round.to_le_bytes());
                word(&hasher.finalize().as_bytes()[..8])
            };
            if id >= FIRST_NODE {
                return id;
            }
            round += 1 << 32;
        }
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(value)
}

/// How the kernel has an inode open. It refuses to mix the two for one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// Through the page cache.
    Cached,
    /// By itself from the backing file with this id.
    Passthrough(u32),
}

/// A node as it is recorded.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// What its id was made of.
    pub key: NodeKey,
    /// The catalog in which it was found, as the file system names it.
    pub catalog: Arc<[u8]>,
    /// Its path.
    pub path: Arc<[u8]>,
}

struct Node {
    key: NodeKey,
    path: Arc<[u8]>,
    lookups: u64,
    extent: Extent,
    catalog: u32,
    opens: u32,
    mode: IoMode,
}

/// The table of nodes with its file.
pub struct State {
    file: File,
    shards: Vec<Mutex<HashMap<u64, Node>>>,
    catalogs: RwLock<Catalogs>,
    handles: Mutex<HashMap<u32, Handle>>,
    next_generation: AtomicU32,
    notes: Mutex<HashMap<Vec<u8>, Note>>,
    extents: Mutex<Extents>,
    /// Ids of nodes whose first id was taken by another key; practically always empty.
    displaced: Mutex<HashMap<NodeKey, u64>>,
    displaced_count: AtomicUsize,
    open_files: AtomicUsize,
    /// Every write, so that a test can stop after any of them.
    #[cfg(test)]
    journal: Mutex<Vec<(u64, Vec<u8>)>>,
}

/// What [`State::open`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Nodes that the kernel knows.
    pub nodes: usize,
    /// Records that a kill left unfinished and that were dropped.
    pub torn: usize,
}

impl State {
    /// An empty table; what the file held is gone.
    pub fn create(file: File) -> io::Result<State> {
        file.set_len(0)?;
        file.write_all_at(&record::header(), 0)?;
        Ok(State::empty(file))
    }

    fn empty(file: File) -> State {
        State {
            file,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            catalogs: RwLock::default(),
            handles: Mutex::default(),
            next_generation: AtomicU32::new(1),
            notes: Mutex::default(),
            extents: Mutex::new(Extents::new(1)),
            displaced: Mutex::default(),
            displaced_count: AtomicUsize::new(0),
            open_files: AtomicUsize::new(0),
            #[cfg(test)]
            journal: Mutex::default(),
        }
    }

    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Node>> {
        // Ids are digests, so the low bits are as good as any.
        &self.shards[(id % SHARDS as u64) as usize]
    }

    /// Counts one lookup of the node with this key, recording it if it is new. Its id.
    ///
    /// The catalog and the path of a known node become these: the newest place where it was seen. Only a file of several
    /// names has several paths.
    pub fn remember(&self, key: NodeKey, catalog: &[u8], path: &[u8]) -> io::Result<u64> {
        let found = self.intern(catalog)?;
        let mut attempt = 0;
        loop {
            let id = match attempt {
                0 => self.id_of(key),
                _ => key.node_id(attempt),
            };
            let mut shard = self.shard(id).lock();
            if let Some(node) = shard.get_mut(&id) {
                if node.key != key {
                    drop(shard);
                    attempt += 1;
                    continue;
                }
                if *node.path != *path {
                    drop(shard);
                    match self.relocate(id, key, found, path) {
                        Ok(true) => return Ok(id),
                        // It was forgotten meanwhile: look again.
                        Ok(false) => continue,
                        Err(error) => {
                            self.release_catalog(found);
                            return Err(error);
                        }
                    }
                }
                let before = node.catalog;
                node.lookups += 1;
                node.catalog = found;
                let written = self.write_counts(node);
                if written.is_err() {
                    node.lookups -= 1;
                    node.catalog = before;
                }
                drop(shard);
                self.release_catalog(if written.is_ok() { before } else { found });
                return written.map(|()| id);
            }
            drop(shard);
            match self.insert(id, key, found, path) {
                Ok(true) => {
                    if attempt > 0 {
                        self.displaced.lock().insert(key, id);
                        self.displaced_count.fetch_add(1, Ordering::Release);
                    }
                    return Ok(id);
                }
                // Somebody else has put a node there meanwhile: look again.
                Ok(false) => continue,
                Err(error) => {
                    self.release_catalog(found);
                    return Err(error);
                }
            }
        }
    }

    /// Records a new node with one lookup; `false` if the id is taken.
    fn insert(&self, id: u64, key: NodeKey, catalog: u32, path: &[u8]) -> io::Result<bool> {
        if path.len() > PATH_MAX_BYTES {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let extent = self.allocate(record::node_slots(path.len()))?;
        let mut shard = self.shard(id).lock();
        if shard.contains_key(&id) {
            drop(shard);
            self.free(extent)?;
            return Ok(false);
        }
        let record = Record::Node { id, lookups: 1, catalog, opens: 0, mode: IoMode::Cached, key, path };
        if let Err(error) = self.write_record(extent, &record) {
            drop(shard);
            self.free(extent)?;
            return Err(error);
        }
        let node =
            Node { key, path: path.into(), lookups: 1, extent, catalog, opens: 0, mode: IoMode::Cached };
        shard.insert(id, node);
        Ok(true)
    }

    /// Counts a lookup of a known node under another path; `false` if it is known no more. Both records are good: when a kill
    /// leaves the two, either may be dropped.
    fn relocate(&self, id: u64, key: NodeKey, catalog: u32, path: &[u8]) -> io::Result<bool> {
        if path.len() > PATH_MAX_BYTES {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let extent = self.allocate(record::node_slots(path.len()))?;
        let mut shard = self.shard(id).lock();
        let Some(node) = shard.get_mut(&id).filter(|node| node.key == key) else {
            drop(shard);
            self.free(extent)?;
            return Ok(false);
        };
        let (lookups, opens, mode) = (node.lookups + 1, node.opens, node.mode);
        if let Err(error) =
            self.write_record(extent, &Record::Node { id, lookups, catalog, opens, mode, key, path })
        {
            drop(shard);
            self.free(extent)?;
            return Err(error);
        }
        node.lookups = lookups;
        node.path = path.into();
        let before = std::mem::replace(&mut node.catalog, catalog);
        let left = std::mem::replace(&mut node.extent, extent);
        let freed = self.write_free(left);
        drop(shard);
        if freed.is_ok() {
            self.extents.lock().give_back(left);
        }
        self.release_catalog(before);
        Ok(true)
    }

    /// The id that the node with this key has or would get.
    pub fn id_of(&self, key: NodeKey) -> u64 {
        if self.displaced_count.load(Ordering::Acquire) > 0
            && let Some(id) = self.displaced.lock().get(&key)
        {
            return *id;
        }
        key.node_id(0)
    }

    /// The id of the node with this key, if the kernel knows it.
    pub fn known(&self, key: NodeKey) -> Option<u64> {
        let id = self.id_of(key);
        self.shard(id).lock().get(&id).filter(|node| node.key == key).map(|_| id)
    }

    /// A recorded node.
    pub fn get(&self, id: u64) -> Option<NodeView> {
        let shard = self.shard(id).lock();
        let node = shard.get(&id)?;
        let (key, path, catalog) = (node.key, Arc::clone(&node.path), node.catalog);
        // Under the shard's lock: the node holds its catalog's reference.
        let catalog = self.catalogs.read().by_slot.get(&catalog).map(|entry| Arc::clone(&entry.name))?;
        Some(NodeView { key, catalog, path })
    }

    /// The kernel dropped `count` lookups. A passthrough id that nobody uses any more comes back (an inode that the
    /// kernel forgets has no open files, whatever our count says).
    pub fn forget(&self, id: u64, count: u64) -> io::Result<Option<IoMode>> {
        let mut shard = self.shard(id).lock();
        let Some(node) = shard.get_mut(&id) else { return Ok(None) };
        if node.lookups > count {
            node.lookups -= count;
            return self.write_counts(node).map(|()| None);
        }
        let Some(node) = shard.remove(&id) else { return Ok(None) };
        let written = self.write_free(node.extent);
        drop(shard);
        if self.displaced_count.load(Ordering::Acquire) > 0
            && self.displaced.lock().remove(&node.key).is_some()
        {
            self.displaced_count.fetch_sub(1, Ordering::Release);
        }
        written?;
        self.extents.lock().give_back(node.extent);
        self.release_catalog(node.catalog);
        if node.opens > 0 {
            self.open_files.fetch_sub(1, Ordering::Relaxed);
        }
        Ok((node.opens > 0).then_some(node.mode))
    }

    /// Calls `with` for every node with its id, path and catalog, without a lock held; nodes that come or go meanwhile may be
    /// missed.
    pub fn each(&self, mut with: impl FnMut(u64, &[u8], &[u8])) {
        for shard in &self.shards {
            let ids: Vec<u64> = shard.lock().keys().copied().collect();
            for id in ids {
                if let Some(view) = self.get(id) {
                    with(id, &view.path, &view.catalog);
                }
            }
        }
    }

    /// How many nodes the kernel knows (the root not counted).
    pub fn nodes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.open_files.load(Ordering::Relaxed)
    }

    /// Takes an extent, with a head for what remains of a longer one already written.
    fn allocate(&self, slots: u16) -> io::Result<Extent> {
        let taken = self.extents.lock().take(slots).ok_or(io::ErrorKind::StorageFull)?;
        if let Some(rest) = taken.rest {
            let written = self.write_free(rest);
            let mut extents = self.extents.lock();
            if let Err(error) = written {
                // The old head still covers the whole extent.
                extents
                    .give_back(Extent { start: taken.extent.start, slots: taken.extent.slots + rest.slots });
                return Err(error);
            }
            extents.give_back(rest);
        }
        Ok(taken.extent)
    }

    fn free(&self, extent: Extent) -> io::Result<()> {
        self.write_free(extent)?;
        self.extents.lock().give_back(extent);
        Ok(())
    }

    fn write_free(&self, extent: Extent) -> io::Result<()> {
        self.write(&record::free_head(extent), offset(extent.start))
    }

    fn write_record(&self, extent: Extent, record: &Record<'_>) -> io::Result<()> {
        self.write(&record.encode(extent), offset(extent.start))
    }

    fn write_counts(&self, node: &Node) -> io::Result<()> {
        let counts = record::counts(node.lookups, node.catalog, node.opens, node.mode);
        self.write(&counts, offset(node.extent.start) + record::COUNTS_AT as u64)
    }

    fn write(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        #[cfg(test)]
        self.journal.lock().push((at, bytes.to_vec()));
        self.file.write_all_at(bytes, at)
    }
}

fn offset(slot: u32) -> u64 {
    u64::from(slot) * SLOT_BYTES as u64
}
