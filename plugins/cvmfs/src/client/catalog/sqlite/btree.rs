//! Walking the trees: tables by row id, indices by integers.
//!
//! A cursor keeps the pages of its way down, one for each level, so that neighbours cost no further reads. It never
//! follows a loop: the depth is bounded, results of an iteration strictly increase, and a search that passes empty pages has a
//! budget of them.

use super::page::{Database, PAYLOAD_MAX, Page, PageKind, SqliteError};
use super::record::varint;

/// Deepest tree; SQLite's own bound.
const DEPTH_MAX: usize = 20;
/// Most pages that one search may touch. SQLite leaves no empty pages in a tree, so a search in a sane one needs one page
/// for each level and perhaps a neighbour.
const SEARCH_MAX: u32 = 64;
/// Most integers in an index entry that are compared, with the row id.
const KEY_MAX: usize = 5;

const TOO_DEEP: SqliteError = SqliteError::Malformed("a tree is too deep");
const MIXED: SqliteError = SqliteError::Malformed("a tree has pages of another kind");

/// The pages on the way down.
#[derive(Debug)]
struct Way<'a> {
    database: &'a Database,
    levels: Vec<Page>,
}

impl<'a> Way<'a> {
    fn new(database: &'a Database) -> Self {
        Way { database, levels: Vec::with_capacity(4) }
    }

    /// Loads page `number` at `level`.
    fn load(&mut self, level: usize, number: u32, index: bool) -> Result<&Page, SqliteError> {
        if level >= DEPTH_MAX {
            return Err(TOO_DEEP);
        }
        if self.levels.len() == level {
            self.levels.push(Page::empty());
        }
        let page = &mut self.levels[level];
        self.database.load(number, page)?;
        if page.is_index() == index { Ok(page) } else { Err(MIXED) }
    }
}

/// The first of `count` cells for which `reached` holds; `count` if there is none.
fn partition(
    count: usize,
    mut reached: impl FnMut(usize) -> Result<bool, SqliteError>,
) -> Result<usize, SqliteError> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = (low + high) / 2;
        if reached(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// Rows of a table.
#[derive(Debug)]
pub(crate) struct TableCursor<'a> {
    way: Way<'a>,
    root: u32,
    /// Level of the leaf that was used last.
    leaf: Option<usize>,
    overflow: Vec<u8>,
}

impl<'a> TableCursor<'a> {
    pub(crate) fn new(database: &'a Database, root: u32) -> Self {
        TableCursor { way: Way::new(database), root, leaf: None, overflow: Vec::new() }
    }

    /// The payload of the row with this id.
    pub(crate) fn row(&mut self, id: i64) -> Result<Option<&[u8]>, SqliteError> {
        Ok(self.at_or_after(id)?.filter(|(found, _)| *found == id).map(|(_, payload)| payload))
    }

    /// The first row whose id is `id` or larger.
    pub(crate) fn at_or_after(&mut self, id: i64) -> Result<Option<(i64, &[u8])>, SqliteError> {
        let mut position = self.in_last_leaf(id)?;
        if position.is_none() {
            let mut budget = SEARCH_MAX;
            position = self.find(0, self.root, id, &mut budget)?;
        }
        let Some((level, index)) = position else {
            return Ok(None);
        };
        self.leaf = Some(level);
        let page = &self.way.levels[level];
        let (found, length, cell) = page.table_cell(index)?;
        if length > PAYLOAD_MAX {
            // No row that makes sense is so long. This one fails to decode; those beside it are as good as before.
            return Ok(Some((found, &[])));
        }
        let database = self.way.database;
        let payload = database.payload(cell, length, database.largest_local(false), &mut self.overflow)?;
        Ok(Some((found, payload)))
    }

    /// The row is often on the page of the row before.
    fn in_last_leaf(&self, id: i64) -> Result<Option<(usize, usize)>, SqliteError> {
        let Some(level) = self.leaf else {
            return Ok(None);
        };
        let page = &self.way.levels[level];
        if page.kind != PageKind::LeafTable || page.cells == 0 {
            return Ok(None);
        }
        if page.table_cell(0)?.0 > id || page.table_cell(page.cells - 1)?.0 < id {
            return Ok(None);
        }
        let index = partition(page.cells, |cell| Ok(page.table_cell(cell)?.0 >= id))?;
        Ok((index < page.cells).then_some((level, index)))
    }

    fn find(
        &mut self,
        level: usize,
        number: u32,
        id: i64,
        budget: &mut u32,
    ) -> Result<Option<(usize, usize)>, SqliteError> {
        *budget = budget.checked_sub(1).ok_or(SqliteError::Malformed("a tree has loops"))?;
        // Whatever fails from here on, no later call trusts the levels.
        self.leaf = None;
        let page = self.way.load(level, number, false)?;
        let first = partition(page.cells, |cell| Ok(page.table_cell(cell)?.0 >= id))?;
        if page.is_leaf() {
            return Ok((first < page.cells).then_some((level, first)));
        }
        let cells = page.cells;
        for index in first..=cells {
            let child = self.way.load(level, number, false)?.child(index)?;
            // A separator may be larger than every row left of it, so a subtree may have nothing to offer.
            if let Some(position) = self.find(level + 1, child, id, budget)? {
                return Ok(Some(position));
            }
        }
        Ok(None)
    }
}

/// An entry of an index over integers: the indexed columns, then the row id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    values: [i64; KEY_MAX],
    count: usize,
}

impl IndexEntry {
    /// The indexed columns and the row id.
    pub(crate) fn values(&self) -> &[i64] {
        &self.values[..self.count]
    }

    /// The row that this entry stands for.
    pub(crate) fn row(&self) -> i64 {
        self.values[self.count - 1]
    }

    /// Decodes an entry; anything but integers makes it malformed, except NULL, which sorts first.
    fn decode(payload: &[u8]) -> Option<Self> {
        let (header, mut at) = varint(payload)?;
        let header = usize::try_from(header).ok().filter(|header| *header <= payload.len())?;
        let mut body = header;
        let mut entry = IndexEntry { values: [0; KEY_MAX], count: 0 };
        while at < header {
            let (serial_type, length) = varint(&payload[at..header])?;
            at += length;
            let size = match serial_type {
                1..=4 => serial_type as usize,
                5 => 6,
                6 => 8,
                0 | 8 | 9 => 0,
                _ => return None,
            };
            let bytes = payload.get(body..body + size)?;
            body += size;
            let number = match serial_type {
                0 => i64::MIN,
                8 => 0,
                9 => 1,
                _ => {
                    let start = if bytes[0] & 0x80 == 0 { 0 } else { -1 };
                    bytes.iter().fold(start, |number, byte| number << 8 | i64::from(*byte))
                }
            };
            *entry.values.get_mut(entry.count)? = number;
            entry.count += 1;
        }
        (entry.count > 0).then_some(entry)
    }
}

/// Entries of an index.
#[derive(Debug)]
pub(crate) struct IndexCursor<'a> {
    way: Way<'a>,
    root: u32,
    /// Indexed columns and the row id: so many integers has each entry.
    fields: usize,
    /// Where the last entry was, if it was on a leaf.
    position: Option<(usize, usize)>,
    last: Option<IndexEntry>,
}

const BAD_ENTRY: SqliteError = SqliteError::Malformed("an index has entries of another form");

impl<'a> IndexCursor<'a> {
    /// `columns` is how many columns are indexed. An entry with another number is malformed: what is taken for its row id
    /// would be something else.
    pub(crate) fn new(database: &'a Database, root: u32, columns: usize) -> Self {
        IndexCursor { way: Way::new(database), root, fields: columns + 1, position: None, last: None }
    }

    /// The first entry whose beginning is `target` or larger.
    pub(crate) fn at_or_after(&mut self, target: &[i64]) -> Result<Option<IndexEntry>, SqliteError> {
        self.seek(target, false)
    }

    /// The entry after the one that was found last; the first one at the beginning.
    pub(crate) fn next(&mut self) -> Result<Option<IndexEntry>, SqliteError> {
        let Some(last) = self.last else {
            return self.seek(&[], false);
        };
        if let Some((level, index)) = self.position
            && index + 1 < self.way.levels[level].cells
        {
            let entry = self.entry_at(level, index + 1)?;
            if entry.values() <= last.values() {
                return Err(SqliteError::Malformed("an index is not in order"));
            }
            self.position = Some((level, index + 1));
            self.last = Some(entry);
            return Ok(Some(entry));
        }
        self.seek(last.values(), true)
    }

    fn seek(&mut self, target: &[i64], after: bool) -> Result<Option<IndexEntry>, SqliteError> {
        self.position = None;
        let found = self.find(0, self.root, target, after)?;
        if found.is_some() {
            self.last = found;
        }
        Ok(found)
    }

    fn find(
        &mut self,
        level: usize,
        number: u32,
        target: &[i64],
        after: bool,
    ) -> Result<Option<IndexEntry>, SqliteError> {
        let page = self.way.load(level, number, true)?;
        let (cells, leaf) = (page.cells, page.is_leaf());
        let index = partition(cells, |cell| {
            let entry = self.entry_at(level, cell)?;
            let beginning = &entry.values()[..target.len().min(entry.count)];
            Ok(if after { beginning > target } else { beginning >= target })
        })?;
        if !leaf {
            let child = self.way.levels[level].child(index)?;
            if let Some(found) = self.find(level + 1, child, target, after)? {
                return Ok(Some(found));
            }
        }
        if index == cells {
            return Ok(None);
        }
        if leaf {
            self.position = Some((level, index));
        }
        self.entry_at(level, index).map(Some)
    }

    fn entry_at(&self, level: usize, index: usize) -> Result<IndexEntry, SqliteError> {
        let database = self.way.database;
        let (length, cell) = self.way.levels[level].index_cell(index)?;
        let mut overflow = Vec::new();
        let payload = database.payload(cell, length, database.largest_local(true), &mut overflow)?;
        IndexEntry::decode(payload).filter(|entry| entry.count == self.fields).ok_or(BAD_ENTRY)
    }
}
