//! The catalogs that nodes and directory handles refer to, each recorded once.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::extents::Extent;
use super::record::{self, Record};
use super::{PATH_MAX_BYTES, State};

/// A catalog as it is recorded.
pub(super) struct Catalog {
    pub(super) name: Arc<[u8]>,
    /// Nodes and handles that refer to it; raised under the table's read lock, acted upon under its write lock.
    pub(super) refs: AtomicU32,
    pub(super) extent: Extent,
}

/// All of them. A catalog is known elsewhere by the first slot of its record.
#[derive(Default)]
pub(super) struct Catalogs {
    pub(super) by_name: HashMap<Arc<[u8]>, u32>,
    pub(super) by_slot: HashMap<u32, Catalog>,
}

impl State {
    /// The names of all catalogs that nodes or handles refer to.
    pub fn catalogs(&self) -> Vec<Arc<[u8]>> {
        self.catalogs.read().by_name.keys().cloned().collect()
    }

    /// The slot of a catalog, recorded if it is new, with one more reference.
    pub(super) fn intern(&self, name: &[u8]) -> io::Result<u32> {
        let known = |catalogs: &Catalogs| {
            let slot = *catalogs.by_name.get(name)?;
            catalogs.by_slot.get(&slot)?.refs.fetch_add(1, Ordering::Relaxed);
            Some(slot)
        };
        if let Some(slot) = known(&self.catalogs.read()) {
            return Ok(slot);
        }
        if name.len() > PATH_MAX_BYTES {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let extent = self.allocate(record::catalog_slots(name.len()))?;
        // Written before it can be found, so that no node on disk refers to a catalog that is not.
        if let Err(error) = self.write_record(extent, &Record::Catalog { name }) {
            self.free(extent)?;
            return Err(error);
        }
        let mut catalogs = self.catalogs.write();
        if let Some(slot) = known(&catalogs) {
            drop(catalogs);
            self.free(extent)?;
            return Ok(slot);
        }
        let name: Arc<[u8]> = name.into();
        catalogs.by_name.insert(Arc::clone(&name), extent.start);
        catalogs.by_slot.insert(extent.start, Catalog { name, refs: AtomicU32::new(1), extent });
        Ok(extent.start)
    }

    pub(super) fn release_catalog(&self, slot: u32) {
        let catalogs = self.catalogs.read();
        let Some(entry) = catalogs.by_slot.get(&slot) else { return };
        if entry.refs.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        drop(catalogs);
        let mut catalogs = self.catalogs.write();
        // Another reader may have taken it again between the two locks.
        if catalogs.by_slot.get(&slot).is_none_or(|entry| entry.refs.load(Ordering::Relaxed) > 0) {
            return;
        }
        let Some(entry) = catalogs.by_slot.remove(&slot) else { return };
        catalogs.by_name.remove(&entry.name);
        drop(catalogs);
        if let Err(error) = self.free(entry.extent) {
            tracing::warn!(%error, "a catalog's record could not be freed; its space is lost until unmount");
        }
    }
}
