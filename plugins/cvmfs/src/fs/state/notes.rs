//! A few facts by name that the next worker must know, such as the revision that is served.

use std::io;

use super::extents::Extent;
use super::record::{self, Record};
use super::{PATH_MAX_BYTES, State};

/// A fact.
pub(super) struct Note {
    pub(super) value: Vec<u8>,
    /// Later ones replace earlier ones.
    pub(super) generation: u64,
    pub(super) extent: Extent,
}

impl State {
    /// Records a fact under a name, in place of what was there. For one caller at a time for each name.
    pub fn set_note(&self, name: &[u8], value: &[u8]) -> io::Result<()> {
        if name.len() + value.len() > PATH_MAX_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let generation = self.notes.lock().get(name).map_or(1, |note| note.generation + 1);
        let extent = self.allocate(record::note_slots(name.len() + value.len()))?;
        if let Err(error) = self.write_record(extent, &Record::Note { generation, name, value }) {
            self.free(extent)?;
            return Err(error);
        }
        let note = Note { value: value.to_vec(), generation, extent };
        let before = self.notes.lock().insert(name.to_vec(), note);
        before.map_or(Ok(()), |note| self.free(note.extent))
    }

    /// The fact recorded under a name.
    pub fn note(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.notes.lock().get(name).map(|note| note.value.clone())
    }

    /// The names of all facts.
    pub fn note_names(&self) -> Vec<Vec<u8>> {
        self.notes.lock().keys().cloned().collect()
    }
}
