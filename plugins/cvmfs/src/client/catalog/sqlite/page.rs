//! Pages of a database file and the cells on them.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use super::record::varint;

/// Longest row that is read, in bytes: a catalog row's name, target and extended attributes stay far below.
pub(super) const PAYLOAD_MAX: u64 = 256 << 10;

/// An open database file. Its content never changes.
pub trait DatabaseFile: Send + Sync + fmt::Debug {
    /// Bytes in all.
    fn size(&self) -> u64;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// The file ends before, or cannot be read.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl DatabaseFile for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }
}

/// Why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqliteError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Malformed(&'static str),
}

/// A database file whose header made sense.
#[derive(Debug)]
pub(crate) struct Database {
    file: Arc<dyn DatabaseFile>,
    page_size: usize,
    /// Bytes of a page without those reserved at its end.
    usable: usize,
    pages: u32,
    /// Interior pages, which every search passes, by their number modulo the count of slots. The first of each slot stays:
    /// no lock, and a bounded size.
    interior: Box<[OnceLock<KeptPage>]>,
}

/// A page's number and bytes.
type KeptPage = (u32, Box<[u8]>);

/// Bytes of interior pages that a database keeps in memory at most.
const INTERIOR_BYTES: usize = 128 << 10;

const HEADER_BYTES: usize = 100;

impl Database {
    pub(crate) fn open(file: Arc<dyn DatabaseFile>) -> Result<Self, SqliteError> {
        let mut header = [0; HEADER_BYTES];
        if file.size() < 512 {
            return Err(SqliteError::Malformed("it is too short for an SQLite file"));
        }
        file.read_exact_at(&mut header, 0)?;
        let number =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..16] != b"SQLite format 3\0" {
            return Err(SqliteError::Malformed("it is no SQLite file"));
        }
        let page_size = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65536,
            size => usize::from(size),
        };
        let usable = page_size.saturating_sub(usize::from(header[20]));
        if !page_size.is_power_of_two() || page_size < 512 || usable < 480 {
            return Err(SqliteError::Malformed("its page size is impossible"));
        }
        if header[19] > 2 || header[21..24] != [64, 32, 32] {
            return Err(SqliteError::Malformed("its file format is unknown"));
        }
        if number(56) != 1 {
            return Err(SqliteError::Malformed("its texts are not in UTF-8"));
        }
        let pages = u32::try_from(file.size() / page_size as u64)
            .map_err(|_| SqliteError::Malformed("it is too large"))?;
        // The size in the header counts only when the last writer maintained it.
        if number(24) == number(92) && number(28) > pages {
            return Err(SqliteError::Malformed("it is cut off"));
        }
        let slots = (INTERIOR_BYTES / page_size).min(file.size() as usize / page_size / 16);
        let interior = (0..slots.max(1)).map(|_| OnceLock::new()).collect();
        Ok(Database { file, page_size, usable, pages, interior })
    }

    fn read(&self, number: u32, buffer: &mut Vec<u8>) -> Result<(), SqliteError> {
        if number == 0 || number > self.pages {
            return Err(SqliteError::Malformed("a page number is out of range"));
        }
        buffer.resize(self.page_size, 0);
        self.file.read_exact_at(buffer, u64::from(number - 1) * self.page_size as u64)?;
        Ok(())
    }

    /// Reads a page of a tree into `page`, unless that is what it holds.
    pub(super) fn load(&self, number: u32, page: &mut Page) -> Result<(), SqliteError> {
        if page.number == number {
            return Ok(());
        }
        page.number = 0;
        let slot = &self.interior[number as usize % self.interior.len()];
        let kept = slot.get().filter(|(kept, _)| *kept == number);
        match kept {
            Some((_, bytes)) => {
                page.bytes.clear();
                page.bytes.extend_from_slice(bytes);
            }
            None => self.read(number, &mut page.bytes)?,
        }
        page.parse(if number == 1 { HEADER_BYTES } else { 0 }, self.usable)?;
        page.number = number;
        if kept.is_none() && !page.is_leaf() && slot.get().is_none() {
            // Whoever is first; another page of the slot is read from the file each time.
            let _ = slot.set((number, page.bytes.as_slice().into()));
        }
        Ok(())
    }

    /// The payload that begins at the start of `cell`, after its length was read: `local` bytes on the page, the rest on a chain
    /// of overflow pages, read into `buffer`.
    pub(super) fn payload<'a>(
        &self,
        cell: &'a [u8],
        length: u64,
        largest_local: usize,
        buffer: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], SqliteError> {
        const CUT: SqliteError = SqliteError::Malformed("a row is cut off");
        if length > PAYLOAD_MAX {
            return Err(SqliteError::Malformed("a row is too long"));
        }
        let length = length as usize;
        if length <= largest_local {
            return cell.get(..length).ok_or(CUT);
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (self.usable - 4);
        let local = if fitting <= largest_local { fitting } else { least };
        buffer.clear();
        buffer.extend_from_slice(cell.get(..local).ok_or(CUT)?);
        let mut next = big_endian(cell, local).ok_or(CUT)?;
        let mut page = Vec::new();
        while buffer.len() < length {
            self.read(next, &mut page)?;
            next = big_endian(&page, 0).ok_or(CUT)?;
            let take = (length - buffer.len()).min(self.usable - 4);
            buffer.extend_from_slice(page.get(4..4 + take).ok_or(CUT)?);
        }
        Ok(buffer)
    }

    /// Most bytes of a row of a table, and of an entry of an index, that lie on the page itself.
    pub(super) fn largest_local(&self, index: bool) -> usize {
        if index { (self.usable - 12) * 64 / 255 - 23 } else { self.usable - 35 }
    }
}

fn big_endian(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

/// What a page of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageKind {
    InteriorIndex,
    InteriorTable,
    LeafIndex,
    LeafTable,
}

/// A page of a tree. The buffer is kept from one page to the next.
#[derive(Debug)]
pub(super) struct Page {
    /// 0: holds nothing.
    number: u32,
    bytes: Vec<u8>,
    pub(super) kind: PageKind,
    /// How many cells there are.
    pub(super) cells: usize,
    usable: usize,
    pointers: usize,
    rightmost: u32,
}

impl Page {
    pub(super) fn empty() -> Self {
        Page {
            number: 0,
            bytes: Vec::new(),
            kind: PageKind::LeafTable,
            cells: 0,
            usable: 0,
            pointers: 0,
            rightmost: 0,
        }
    }

    fn parse(&mut self, header: usize, usable: usize) -> Result<(), SqliteError> {
        self.kind = match self.bytes[header] {
            2 => PageKind::InteriorIndex,
            5 => PageKind::InteriorTable,
            10 => PageKind::LeafIndex,
            13 => PageKind::LeafTable,
            _ => return Err(SqliteError::Malformed("a page is no page of a tree")),
        };
        self.usable = usable;
        self.cells = usize::from(u16::from_be_bytes([self.bytes[header + 3], self.bytes[header + 4]]));
        self.pointers = header + if self.is_leaf() { 8 } else { 12 };
        self.rightmost = if self.is_leaf() { 0 } else { big_endian(&self.bytes, header + 8).unwrap_or(0) };
        if self.pointers + 2 * self.cells > usable {
            return Err(SqliteError::Malformed("a page has more cells than room"));
        }
        Ok(())
    }

    pub(super) fn is_leaf(&self) -> bool {
        matches!(self.kind, PageKind::LeafIndex | PageKind::LeafTable)
    }

    pub(super) fn is_index(&self) -> bool {
        matches!(self.kind, PageKind::LeafIndex | PageKind::InteriorIndex)
    }

    /// From the start of a cell to the end of the page.
    fn cell(&self, index: usize) -> Result<&[u8], SqliteError> {
        let at = self.pointers + 2 * index;
        let start = usize::from(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]));
        self.bytes.get(start..self.usable).ok_or(SqliteError::Malformed("a cell lies outside its page"))
    }

    /// The page left of a cell of an interior page; after the last cell, the rightmost page.
    pub(super) fn child(&self, index: usize) -> Result<u32, SqliteError> {
        if index >= self.cells {
            return Ok(self.rightmost);
        }
        big_endian(self.cell(index)?, 0).ok_or(SqliteError::Malformed("a cell is cut off"))
    }

    /// The row id of a cell of a table, and what follows it with its length (nothing on an interior page).
    pub(super) fn table_cell(&self, index: usize) -> Result<(i64, u64, &[u8]), SqliteError> {
        const CUT: SqliteError = SqliteError::Malformed("a cell is cut off");
        let cell = self.cell(index)?;
        if self.kind == PageKind::LeafTable {
            let (length, first) = varint(cell).ok_or(CUT)?;
            let (key, second) = varint(&cell[first..]).ok_or(CUT)?;
            Ok((key as i64, length, &cell[first + second..]))
        } else {
            let (key, _) = varint(cell.get(4..).ok_or(CUT)?).ok_or(CUT)?;
            Ok((key as i64, 0, &[]))
        }
    }

    /// The length and the beginning of the payload of a cell of an index.
    pub(super) fn index_cell(&self, index: usize) -> Result<(u64, &[u8]), SqliteError> {
        const CUT: SqliteError = SqliteError::Malformed("a cell is cut off");
        let cell = self.cell(index)?;
        let cell = if self.is_leaf() { cell } else { cell.get(4..).ok_or(CUT)? };
        let (length, bytes) = varint(cell).ok_or(CUT)?;
        Ok((length, &cell[bytes..]))
    }
}
