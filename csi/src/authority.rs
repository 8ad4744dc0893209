//! `:authority` as Go's gRPC writes it for a socket that is dialled by its path.
//!
//! Kubelet's plugin watcher (and older sidecars) dial `/var/lib/kubelet/…/x.sock` without a scheme; their gRPC library makes
//! the path the authority of each call, percent-encoded since grpc-go 1.53 and raw before. Neither is an authority by RFC 3986,
//! and the `h2` crate resets such a stream with PROTOCOL_ERROR, so the driver would never be registered. Nothing here looks
//! at the authority, so it is mended on its way in: `%` and `/` become `-`.
//!
//! Both have the same length as `-`, as they are and in HPACK's Huffman code (6 bits, RFC 7541 appendix B). So the bytes are
//! changed in place, lengths and the peers' dynamic tables stay in step, and nothing has to be decoded or encoded again.

/// Length of the client's connection preface (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// Length of a frame's header (RFC 9113, 4.1).
const FRAME_HEADER: usize = 9;
/// Longest HEADERS frame that is looked into; the least that every peer may send, and Go sends no longer ones.
const HEADERS_MAX: usize = 16 << 10;
/// Frame type HEADERS (RFC 9113, 6.2) and its flags.
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Index of `:authority` in HPACK's static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;
/// Codes of `%`, `/` and `-` in HPACK's Huffman code, each of 6 bits.
const PERCENT_CODE: u32 = 0x15;
const SLASH_CODE: u32 = 0x18;
const DASH_CODE: u32 = 0x16;

/// What a client sends, mended as it passes.
#[derive(Debug)]
pub(crate) struct Mended {
    state: State,
    /// The begun part: a frame's header, or a HEADERS frame as a whole.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes pass as they are.
    Passing(usize),
    /// A frame's header is being collected.
    Header,
    /// A HEADERS frame of this length, with its header, is being collected.
    Headers(usize),
}

impl Mended {
    /// For a new connection.
    pub(crate) fn new() -> Self {
        Mended { state: State::Passing(PREFACE), held: Vec::new() }
    }

    /// Takes what came in, and appends to `out` what can be passed on.
    pub(crate) fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            match self.state {
                State::Passing(left) => {
                    let (now, later) = bytes.split_at(left.min(bytes.len()));
                    out.extend_from_slice(now);
                    bytes = later;
                    self.state =
                        if now.len() == left { State::Header } else { State::Passing(left - now.len()) };
                }
                State::Header => {
                    bytes = self.collect(bytes, FRAME_HEADER);
                    if self.held.len() == FRAME_HEADER {
                        self.begin_frame(out);
                    }
                }
                State::Headers(whole) => {
                    bytes = self.collect(bytes, whole);
                    if self.held.len() == whole {
                        mend_frame(&mut self.held);
                        self.release(out, State::Header);
                    }
                }
            }
        }
    }

    /// The connection has ended: what is held is passed on as it is.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn collect<'a>(&mut self, bytes: &'a [u8], whole: usize) -> &'a [u8] {
        let (now, later) = bytes.split_at((whole - self.held.len()).min(bytes.len()));
        self.held.extend_from_slice(now);
        later
    }

    fn begin_frame(&mut self, out: &mut Vec<u8>) {
        let length =
            usize::from(self.held[0]) << 16 | usize::from(self.held[1]) << 8 | usize::from(self.held[2]);
        if self.held[3] == HEADERS && (1..=HEADERS_MAX).contains(&length) {
            self.state = State::Headers(FRAME_HEADER + length);
        } else {
            let next = if length == 0 { State::Header } else { State::Passing(length) };
            self.release(out, next);
        }
    }

    fn release(&mut self, out: &mut Vec<u8>, next: State) {
        out.append(&mut self.held);
        self.state = next;
    }
}

/// Mends a whole HEADERS frame; one that is not understood stays as it is, and `h2` says what is wrong with it.
fn mend_frame(frame: &mut [u8]) {
    let flags = frame[4];
    let mut block = &mut frame[FRAME_HEADER..];
    // A block that goes on in further frames may break off anywhere.
    if flags & END_HEADERS == 0 {
        return;
    }
    if flags & PADDED != 0 {
        let Some((padding, rest)) = block.split_first_mut() else { return };
        let Some(end) = rest.len().checked_sub(usize::from(*padding)) else { return };
        block = &mut rest[..end];
    }
    if flags & PRIORITY != 0 {
        let Some(rest) = block.get_mut(5..) else { return };
        block = rest;
    }
    // `None` is a block that breaks off.
    let _ = mend_block(block);
}

/// Goes through the field representations (RFC 7541, 6) without decoding them.
fn mend_block(block: &mut [u8]) -> Option<()> {
    let mut at = 0;
    while let Some(first) = block.get(at) {
        let prefix = match first {
            // An indexed field, a change of the table's size: a number only.
            0x80.. => {
                (_, at) = integer(block, at, 7)?;
                continue;
            }
            0x20..=0x3f => {
                (_, at) = integer(block, at, 5)?;
                continue;
            }
            0x40..=0x7f => 6,
            0x00..=0x1f => 4,
        };
        let (name, mut next) = integer(block, at, prefix)?;
        if name == 0 {
            let (_, end) = string(block, next)?;
            next = end;
        }
        let (begin, end) = string(block, next)?;
        if name == AUTHORITY {
            let huffman = block[next] & 0x80 != 0;
            let value = &mut block[begin..end];
            if huffman { mend_code(value) } else { mend_text(value) }
        }
        at = end;
    }
    Some(())
}

/// An integer whose first byte has `prefix` bits for it (RFC 7541, 5.1): its value and where it ends.
fn integer(block: &[u8], at: usize, prefix: u32) -> Option<(usize, usize)> {
    let full = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(at)?) & full;
    let mut at = at + 1;
    if value < full {
        return Some((value, at));
    }
    // Nothing in a block of this size needs more than three further bytes.
    for shift in [0, 7, 14] {
        let byte = *block.get(at)?;
        at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

/// Where the bytes of a string literal (RFC 7541, 5.2) begin and end.
fn string(block: &[u8], at: usize) -> Option<(usize, usize)> {
    let (length, begin) = integer(block, at, 7)?;
    let end = begin.checked_add(length)?;
    (end <= block.len()).then_some((begin, end))
}

fn mend_text(value: &mut [u8]) {
    value.iter_mut().filter(|byte| matches!(byte, b'%' | b'/')).for_each(|byte| *byte = b'-');
}

/// The same in Huffman code. It is a canonical one: how long a code is follows from its first bits. Codes of more than 8 bits
/// are no letters of a path; from there on nothing is changed.
fn mend_code(value: &mut [u8]) {
    let bits = value.len() * 8;
    let mut at = 0;
    // The next eight bits; what is beyond the end is padding, which is all ones.
    let peek = |value: &[u8], at: usize| {
        let byte = |index: usize| u32::from(value.get(index).copied().unwrap_or(0xff));
        ((byte(at / 8) << 8 | byte(at / 8 + 1)) >> (8 - at % 8)) & 0xff
    };
    while at < bits {
        let next = peek(value, at);
        let length = match next {
            0x00..=0x4f => 5,
            0x50..=0xb7 => 6,
            0xb8..=0xf7 => 7,
            0xf8..=0xfd => 8,
            _ => return,
        };
        let code = next >> (8 - length);
        if length == 6 && matches!(code, PERCENT_CODE | SLASH_CODE) && at + 6 <= bits {
            for bit in 0..6 {
                let (byte, mask) = ((at + bit) / 8, 0x80_u8 >> ((at + bit) % 8));
                if DASH_CODE >> (5 - bit) & 1 == 1 { value[byte] |= mask } else { value[byte] &= !mask }
            }
        }
        at += usize::try_from(length).unwrap_or(8);
    }
}

#[cfg(test)]
mod tests;
