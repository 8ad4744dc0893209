//! The bytes of the state file. The layout is drawn in [the module above](super).

use super::extents::Extent;
use super::{IoMode, NodeKey};

pub(super) const SLOT_BYTES: usize = 64;
pub(super) const COUNTS_AT: usize = 16;
const COUNTS_BYTES: usize = 21;
const NODE_FIXED: usize = 56;
const CATALOG_FIXED: usize = 10;
const NOTE_FIXED: usize = 20;
const MAGIC: &[u8; 8] = b"VPNODES\n";
const VERSION: u32 = 1;

const UNUSED: u8 = 0;
const FREE: u8 = 1;
const CATALOG: u8 = 2;
const NODE: u8 = 3;
const HANDLE: u8 = 4;
const NOTE: u8 = 5;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Catalog { name: &'a [u8] },
    Node { id: u64, lookups: u64, catalog: u32, opens: u32, mode: IoMode, key: NodeKey, path: &'a [u8] },
    Handle { node: u64, catalog: u32, generation: u32 },
    Note { generation: u64, name: &'a [u8], value: &'a [u8] },
}

/// The first eight bytes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// Free for that many slots.
    Free(u16),
    /// A record of that many slots.
    Used(u16),
    /// No record begins with this.
    Unknown,
}

pub(super) fn node_slots(path_bytes: usize) -> u16 {
    slots(NODE_FIXED + path_bytes)
}

pub(super) fn catalog_slots(name_bytes: usize) -> u16 {
    slots(CATALOG_FIXED + name_bytes)
}

pub(super) fn note_slots(bytes: usize) -> u16 {
    slots(NOTE_FIXED + bytes)
}

fn slots(bytes: usize) -> u16 {
    u16::try_from(bytes.div_ceil(SLOT_BYTES)).expect("paths are bounded by PATH_MAX_BYTES")
}

/// Slot 0.
pub(super) fn header() -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&(SLOT_BYTES as u32).to_le_bytes());
    bytes
}

/// The head of a free extent.
pub(super) fn free_head(extent: Extent) -> [u8; 8] {
    let mut bytes = [FREE, 0, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&extent.slots.to_le_bytes());
    bytes
}

/// What the first bytes of a slot say.
pub(super) fn head(slot: &[u8; SLOT_BYTES]) -> Head {
    let slots = u16::from_le_bytes([slot[2], slot[3]]);
    match slot[0] {
        UNUSED => Head::Free(1),
        FREE if slots > 0 => Head::Free(slots),
        CATALOG | NODE | HANDLE | NOTE if slots > 0 => Head::Used(slots),
        _ => Head::Unknown,
    }
}

/// The bytes of a node that change, beginning at [`COUNTS_AT`].
pub(super) fn counts(lookups: u64, catalog: u32, opens: u32, mode: IoMode) -> [u8; COUNTS_BYTES] {
    let (mode, backing) = match mode {
        IoMode::Cached => (0, 0),
        IoMode::Passthrough(id) => (1, id),
    };
    let mut bytes = [0; COUNTS_BYTES];
    bytes[..8].copy_from_slice(&lookups.to_le_bytes());
    bytes[8..12].copy_from_slice(&catalog.to_le_bytes());
    bytes[12..16].copy_from_slice(&opens.to_le_bytes());
    bytes[16..20].copy_from_slice(&backing.to_le_bytes());
    bytes[20] = mode;
    bytes
}

impl Record<'_> {
    /// The record in whole slots.
    pub(super) fn encode(&self, extent: Extent) -> Vec<u8> {
        let mut bytes = vec![0; usize::from(extent.slots) * SLOT_BYTES];
        bytes[2..4].copy_from_slice(&extent.slots.to_le_bytes());
        match *self {
            Record::Catalog { name } => {
                bytes[0] = CATALOG;
                bytes[8..10].copy_from_slice(&length(name));
                bytes[CATALOG_FIXED..CATALOG_FIXED + name.len()].copy_from_slice(name);
            }
            Record::Node { id, lookups, catalog, opens, mode, key, path } => {
                bytes[0] = NODE;
                bytes[8..16].copy_from_slice(&id.to_le_bytes());
                bytes[COUNTS_AT..COUNTS_AT + COUNTS_BYTES]
                    .copy_from_slice(&counts(lookups, catalog, opens, mode));
                bytes[38..40].copy_from_slice(&length(path));
                bytes[40..NODE_FIXED].copy_from_slice(&key.0);
                bytes[NODE_FIXED..NODE_FIXED + path.len()].copy_from_slice(path);
            }
            Record::Handle { node, catalog, generation } => {
                bytes[0] = HANDLE;
                bytes[8..16].copy_from_slice(&node.to_le_bytes());
                bytes[16..20].copy_from_slice(&catalog.to_le_bytes());
                bytes[20..24].copy_from_slice(&generation.to_le_bytes());
            }
            Record::Note { generation, name, value } => {
                bytes[0] = NOTE;
                bytes[8..16].copy_from_slice(&generation.to_le_bytes());
                bytes[16..18].copy_from_slice(&length(name));
                bytes[18..20].copy_from_slice(&length(value));
                let (name_end, end) = (NOTE_FIXED + name.len(), NOTE_FIXED + name.len() + value.len());
                bytes[NOTE_FIXED..name_end].copy_from_slice(name);
                bytes[name_end..end].copy_from_slice(value);
            }
        }
        let sum = checksum(extent.start, &bytes);
        bytes[4..8].copy_from_slice(&sum);
        bytes
    }
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("paths are bounded by PATH_MAX_BYTES").to_le_bytes()
}

/// Over everything that does not change, so that a torn record and a record of an earlier use of the place are told
/// from a whole one.
fn checksum(start: u32, bytes: &[u8]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&start.to_le_bytes()).update(&bytes[..4]);
    if bytes[0] == NODE {
        hasher.update(&bytes[8..COUNTS_AT]).update(&bytes[COUNTS_AT + COUNTS_BYTES..]);
    } else {
        hasher.update(&bytes[8..]);
    }
    let mut sum = [0; 4];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
    sum
}

/// Reads a record from its whole slots; `None` if it is torn.
pub(super) fn decode(start: u32, bytes: &[u8]) -> Option<Record<'_>> {
    if bytes.len() < SLOT_BYTES || bytes[4..8] != checksum(start, bytes) {
        return None;
    }
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    match bytes[0] {
        CATALOG => {
            let end = CATALOG_FIXED + usize::from(u16_at(8));
            Some(Record::Catalog { name: bytes.get(CATALOG_FIXED..end)? })
        }
        NODE => {
            let mut key = [0; 16];
            key.copy_from_slice(&bytes[40..NODE_FIXED]);
            let mode = match bytes[36] {
                0 => IoMode::Cached,
                1 => IoMode::Passthrough(u32_at(32)),
                _ => return None,
            };
            Some(Record::Node {
                id: u64_at(8),
                lookups: u64_at(16),
                catalog: u32_at(24),
                opens: u32_at(28),
                mode,
                key: NodeKey(key),
                path: bytes.get(NODE_FIXED..NODE_FIXED + usize::from(u16_at(38)))?,
            })
        }
        HANDLE => Some(Record::Handle { node: u64_at(8), catalog: u32_at(16), generation: u32_at(20) }),
        NOTE => {
            let name_end = NOTE_FIXED + usize::from(u16_at(16));
            let value_end = name_end + usize::from(u16_at(18));
            Some(Record::Note {
                generation: u64_at(8),
                name: bytes.get(NOTE_FIXED..name_end)?,
                value: bytes.get(name_end..value_end)?,
            })
        }
        _ => None,
    }
}

/// Whether slot 0 is one of ours, of this version.
pub(super) fn is_header(slot: &[u8; SLOT_BYTES]) -> bool {
    *slot == header()
}
