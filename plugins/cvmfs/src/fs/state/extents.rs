//! Which slots of the state file are free.

use std::collections::{BTreeMap, BTreeSet};

/// 4 GiB of slots: far above what a kernel can know at once, and a bound for a damaged file.
const SLOTS_MAX: u32 = 1 << 26;
/// What the head of a free extent can say.
const LONGEST: u32 = u16::MAX as u32;

/// A run of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its first slot.
    pub(super) start: u32,
    /// Its length; at least 1.
    pub(super) slots: u16,
}

/// A run that was taken, and what remains of the longer one it was cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) extent: Extent,
    /// Not free yet: the caller writes its head and then gives it back.
    pub(super) rest: Option<Extent>,
}

/// The free extents below the end of the file, joined with their neighbours.
pub(super) struct Extents {
    by_start: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
    end: u32,
}

impl Extents {
    /// Nothing is free; the file ends before slot `end`.
    pub(super) fn new(end: u32) -> Self {
        Extents { by_start: BTreeMap::new(), by_length: BTreeSet::new(), end }
    }

    /// The shortest free extent that is long enough, else the end of the file. `None` at the size limit.
    pub(super) fn take(&mut self, slots: u16) -> Option<Taken> {
        let wanted = u32::from(slots);
        if let Some(&(length, start)) = self.by_length.range((wanted, 0)..).next() {
            self.remove(start, length);
            // Joined extents never get longer than a head can say.
            let rest = u16::try_from(length - wanted).ok().filter(|left| *left > 0);
            let rest = rest.map(|slots| Extent { start: start + wanted, slots });
            return Some(Taken { extent: Extent { start, slots }, rest });
        }
        let start = self.end;
        self.end = start.checked_add(wanted).filter(|end| *end <= SLOTS_MAX)?;
        Some(Taken { extent: Extent { start, slots }, rest: None })
    }

    /// Makes an extent free.
    pub(super) fn give_back(&mut self, extent: Extent) {
        let (mut start, mut length) = (extent.start, u32::from(extent.slots));
        if let Some((&before, &slots)) = self.by_start.range(..start).next_back()
            && before + slots == start
            && slots + length <= LONGEST
        {
            self.remove(before, slots);
            start = before;
            length += slots;
        }
        if let Some(&slots) = self.by_start.get(&(start + length))
            && slots + length <= LONGEST
        {
            self.remove(start + length, slots);
            length += slots;
        }
        self.insert(start, length);
    }

    /// The slot after the last one that is not free; only while nobody else uses the file may it be cut there.
    pub(super) fn trim(&mut self) -> u32 {
        while let Some((&start, &slots)) = self.by_start.iter().next_back()
            && start + slots == self.end
        {
            self.remove(start, slots);
            self.end = start;
        }
        self.end
    }

    fn insert(&mut self, start: u32, length: u32) {
        self.by_start.insert(start, length);
        self.by_length.insert((length, start));
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}
