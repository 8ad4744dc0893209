//! Reads what the last worker left.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::catalogs::Catalog;
use super::extents::{Extent, Extents};
use super::notes::Note;
use super::opens::Handle;
use super::record::{self, Head, Record, SLOT_BYTES};
use super::{Loaded, Node, State, offset};

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Reading it failed.
    #[error("the state file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is not one, or of another version.
    #[error("the state file has another magic or version; the mount has to be made anew")]
    Foreign,
}

/// Everything that was read, before references are checked.
#[derive(Default)]
struct Found {
    nodes: Vec<(u64, Node)>,
    handles: Vec<(Extent, Handle)>,
    notes: HashMap<Vec<u8>, Note>,
    catalogs: HashMap<u32, Catalog>,
    free: Vec<Extent>,
    /// Notes that were replaced, but not freed.
    outdated: Vec<Extent>,
    torn: usize,
    end: u32,
}

impl State {
    /// Goes on with what the last worker left. An empty file is an empty table.
    pub fn open(file: File) -> Result<(State, Loaded), LoadError> {
        if file.metadata()?.len() == 0 {
            return Ok((State::create(file)?, Loaded::default()));
        }
        let found = scan(&file)?;
        let state = State::empty(file);
        let loaded = state.fill(found)?;
        Ok((state, loaded))
    }

    fn fill(&self, found: Found) -> io::Result<Loaded> {
        *self.extents.lock() = Extents::new(found.end);
        for extent in found.free {
            self.extents.lock().give_back(extent);
        }
        for extent in found.outdated {
            self.free(extent)?;
        }
        *self.notes.lock() = found.notes;
        let mut torn = found.torn;
        let mut catalogs = found.catalogs;
        let mut refer = |slot: u32| catalogs.get_mut(&slot).map(|entry| *entry.refs.get_mut() += 1).is_some();
        let mut count = 0;
        for (id, node) in found.nodes {
            let mut shard = self.shard(id).lock();
            if shard.contains_key(&id) || !refer(node.catalog) {
                drop(shard);
                torn += 1;
                self.free(node.extent)?;
                continue;
            }
            if id != node.key.node_id(0) {
                self.displaced.lock().insert(node.key, id);
                self.displaced_count.fetch_add(1, Ordering::Release);
            }
            if node.opens > 0 {
                self.open_files.fetch_add(1, Ordering::Relaxed);
            }
            shard.insert(id, node);
            count += 1;
        }
        let mut next_generation = 1;
        for (extent, handle) in found.handles {
            if !refer(handle.catalog) {
                torn += 1;
                self.free(extent)?;
                continue;
            }
            next_generation = next_generation.max(handle.generation.wrapping_add(1));
            self.handles.lock().insert(extent.start, handle);
        }
        self.next_generation.store(next_generation, Ordering::Relaxed);
        for (slot, mut entry) in catalogs {
            let mut table = self.catalogs.write();
            // One that nobody refers to: its first node was never written. Of two with one name, both stay: each
            // has its own nodes; new nodes go to whichever is found.
            if *entry.refs.get_mut() == 0 {
                drop(table);
                self.free(entry.extent)?;
                continue;
            }
            table.by_name.insert(Arc::clone(&entry.name), slot);
            table.by_slot.insert(slot, entry);
        }
        let end = self.extents.lock().trim();
        self.file.set_len(offset(end))?;
        Ok(Loaded { nodes: count, torn })
    }
}

/// Walks over all records.
fn scan(file: &File) -> Result<Found, LoadError> {
    let bytes = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    reader.seek(SeekFrom::Start(0))?;
    let mut slot = [0; SLOT_BYTES];
    if bytes < SLOT_BYTES as u64 {
        return Err(LoadError::Foreign);
    }
    reader.read_exact(&mut slot)?;
    if !record::is_header(&slot) {
        return Err(LoadError::Foreign);
    }
    let slots_in_file = u32::try_from(bytes / SLOT_BYTES as u64).map_err(|_| LoadError::Foreign)?;
    let mut found = Found::default();
    let mut at = 1;
    let mut whole = Vec::new();
    while at < slots_in_file {
        reader.read_exact(&mut slot)?;
        let (length, used) = match record::head(&slot) {
            Head::Free(length) => (length, false),
            Head::Used(length) => (length, true),
            Head::Unknown => {
                found.torn += 1;
                (1, false)
            }
        };
        let extent = Extent { start: at, slots: length };
        // A record that is cut off: this is the end.
        if u32::from(length) > slots_in_file - at {
            found.torn += usize::from(used);
            break;
        }
        if used {
            whole.clear();
            whole.extend_from_slice(&slot);
            whole.resize(usize::from(length) * SLOT_BYTES, 0);
            reader.read_exact(&mut whole[SLOT_BYTES..])?;
            found.take(extent, record::decode(at, &whole));
        } else {
            reader.seek_relative(i64::from(length - 1) * SLOT_BYTES as i64)?;
            found.free.push(extent);
        }
        at += u32::from(length);
    }
    found.end = at;
    Ok(found)
}

impl Found {
    fn take(&mut self, extent: Extent, record: Option<Record<'_>>) {
        match record {
            Some(Record::Catalog { name }) => {
                let entry = Catalog { name: name.into(), refs: AtomicU32::new(0), extent };
                self.catalogs.insert(extent.start, entry);
            }
            Some(Record::Node { id, lookups, catalog, opens, mode, key, path })
                if id >= super::FIRST_NODE =>
            {
                let path = path.into();
                self.nodes.push((id, Node { key, path, lookups, extent, catalog, opens, mode }));
            }
            Some(Record::Handle { node, catalog, generation }) => {
                self.handles.push((extent, Handle { node, catalog, generation }));
            }
            Some(Record::Note { generation, name, value }) => {
                let note = Note { value: value.to_vec(), generation, extent };
                let older = match self.notes.remove(name) {
                    Some(other) if other.generation > generation => {
                        self.notes.insert(name.to_vec(), other);
                        Some(note)
                    }
                    other => {
                        self.notes.insert(name.to_vec(), note);
                        other
                    }
                };
                self.outdated.extend(older.map(|note| note.extent));
            }
            Some(Record::Node { .. }) | None => {
                self.torn += 1;
                self.free.push(extent);
            }
        }
    }
}
