//! Open files and open directories.
//!
//! A regular file needs no record of its own while it is open: its node says all, content never changes under a node
//! id. Recorded is how often it is open and in which mode, because the kernel refuses another mode until the last open
//! is closed. An open directory is a record, whose slot is the handle: it holds the catalog that is listed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::extents::Extent;
use super::record::Record;
use super::{IoMode, State};

/// An open directory.
pub(super) struct Handle {
    pub(super) node: u64,
    pub(super) catalog: u32,
    /// Tells a handle from an earlier one in the same slot.
    pub(super) generation: u32,
}

impl State {
    /// Opens a file that is open already, in the mode it has; `None` if it is not open.
    pub fn join_open(&self, id: u64) -> io::Result<Option<IoMode>> {
        let mut shard = self.shard(id).lock();
        let Some(node) = shard.get_mut(&id).filter(|node| node.opens > 0) else { return Ok(None) };
        node.opens += 1;
        let mode = node.mode;
        self.write_counts(node).map(|()| Some(mode))
    }

    /// Opens a file in this mode, or in the one it already has if somebody was faster; the mode it has now.
    pub fn open_file(&self, id: u64, mode: IoMode) -> io::Result<IoMode> {
        let mut shard = self.shard(id).lock();
        let node = shard.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        if node.opens == 0 {
            node.mode = mode;
            self.open_files.fetch_add(1, Ordering::Relaxed);
        }
        node.opens += 1;
        let mode = node.mode;
        self.write_counts(node).map(|()| mode)
    }

    /// Takes one open back; the mode the file had if that was the last.
    pub fn close_file(&self, id: u64) -> io::Result<Option<IoMode>> {
        let mut shard = self.shard(id).lock();
        let Some(node) = shard.get_mut(&id).filter(|node| node.opens > 0) else { return Ok(None) };
        node.opens -= 1;
        let last = (node.opens == 0).then_some(node.mode);
        if last.is_some() {
            node.mode = IoMode::Cached;
            self.open_files.fetch_sub(1, Ordering::Relaxed);
        }
        self.write_counts(node).map(|()| last)
    }

    /// Makes a handle for a listing of `catalog`.
    pub fn open_directory(&self, node: u64, catalog: &[u8]) -> io::Result<u64> {
        let catalog = self.intern(catalog)?;
        let generation = self.next_generation.fetch_add(1, Ordering::Relaxed);
        let extent = self.allocate(1).inspect_err(|_| self.release_catalog(catalog))?;
        if let Err(error) = self.write_record(extent, &Record::Handle { node, catalog, generation }) {
            self.free(extent)?;
            self.release_catalog(catalog);
            return Err(error);
        }
        self.handles.lock().insert(extent.start, Handle { node, catalog, generation });
        Ok(u64::from(generation) << 32 | u64::from(extent.start))
    }

    /// The catalog that a handle of this node lists.
    pub fn directory(&self, node: u64, handle: u64) -> Option<Arc<[u8]>> {
        let handles = self.handles.lock();
        let open = handles.get(&(handle as u32))?;
        if open.node != node || u64::from(open.generation) != handle >> 32 {
            return None;
        }
        let catalogs = self.catalogs.read();
        catalogs.by_slot.get(&open.catalog).map(|entry| Arc::clone(&entry.name))
    }

    /// Frees a directory handle; an unknown one is ignored.
    pub fn close_directory(&self, node: u64, handle: u64) -> io::Result<()> {
        let slot = handle as u32;
        let mut handles = self.handles.lock();
        let matches = |open: &Handle| open.node == node && u64::from(open.generation) == handle >> 32;
        if !handles.get(&slot).is_some_and(matches) {
            return Ok(());
        }
        let Some(open) = handles.remove(&slot) else { return Ok(()) };
        drop(handles);
        self.free(Extent { start: slot, slots: 1 })?;
        self.release_catalog(open.catalog);
        Ok(())
    }
}
