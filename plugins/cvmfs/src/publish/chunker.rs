//! Cuts a stream where its content says so.
//!
//! A rolling hash over the last 64 bytes decides: each byte shifts the hash left and adds a random number of its own, so
//! that a byte is forgotten after 64 steps. A cut is where the top bits are zero. The same bytes are cut at the same places wherever
//! they are in a file, so that what was inserted before them costs only the chunks it is in.

use super::options::Chunking;

/// 256 random numbers; the format does not prescribe them, but changing them would make every chunk of every repository a new one.
const GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state: u64 = 0x766f_6c70_6c61_6e65;
    let mut index = 0;
    while index < 256 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = state;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[index] = value ^ (value >> 31);
        index += 1;
    }
    table
}

/// Finds the cuts of one stream.
#[derive(Clone, Debug)]
pub(super) struct Chunker {
    min: u64,
    max: u64,
    /// The hash's bits that are zero at a cut.
    mask: u64,
    hash: u64,
    /// Bytes since the last cut.
    length: u64,
}

impl Chunker {
    pub(super) fn new(chunking: &Chunking) -> Self {
        // After `min` bytes without a choice, a cut comes after `average - min` more on average.
        let expected = u64::from(chunking.average.saturating_sub(chunking.min)).max(1);
        let bits = 63 - expected.leading_zeros();
        let mask = if bits == 0 { 0 } else { !0 << (64 - bits) };
        Chunker { min: chunking.min.into(), max: chunking.max.into(), mask, hash: 0, length: 0 }
    }

    /// Feeds bytes. Returns how many of them end the current chunk, or `None` when it goes on after all of them.
    pub(super) fn cut(&mut self, bytes: &[u8]) -> Option<usize> {
        // The hash only needs the 64 bytes before a possible cut.
        let skip = self.min.saturating_sub(64).saturating_sub(self.length).min(bytes.len() as u64);
        self.length += skip;
        for (index, byte) in bytes.iter().enumerate().skip(skip as usize) {
            self.hash = (self.hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            self.length += 1;
            if self.length >= self.max || (self.length >= self.min && self.hash & self.mask == 0) {
                self.length = 0;
                self.hash = 0;
                return Some(index + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Chunking = Chunking { threshold: 0, min: 1024, average: 4096, max: 16384 };

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    }

    fn chunks(bytes: &[u8], feed: usize) -> Vec<Vec<u8>> {
        let mut chunker = Chunker::new(&SMALL);
        let (mut chunks, mut current) = (Vec::new(), Vec::new());
        for mut piece in bytes.chunks(feed) {
            while let Some(end) = chunker.cut(piece) {
                current.extend_from_slice(&piece[..end]);
                chunks.push(std::mem::take(&mut current));
                piece = &piece[end..];
            }
            current.extend_from_slice(piece);
        }
        if !current.is_empty() {
            chunks.push(current);
        }
        chunks
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_arrive() {
        let bytes = noise(1, 300_000);
        let whole = chunks(&bytes, bytes.len());
        assert_eq!(whole, chunks(&bytes, 777));
        assert_eq!(whole.concat(), bytes);
        assert!(whole.len() > 40 && whole.len() < 140, "{}", whole.len());
        let (last, others) = whole.split_last().unwrap();
        assert!(others.iter().all(|chunk| (1024..=16384).contains(&chunk.len())));
        assert!(last.len() <= 16384);
    }

    #[test]
    fn an_insertion_changes_only_the_chunks_around_it() {
        let bytes = noise(2, 300_000);
        let mut edited = bytes.clone();
        edited.splice(100_000..100_000, noise(3, 10));
        let before = chunks(&bytes, 4096);
        let kept = chunks(&edited, 4096).iter().filter(|chunk| before.contains(chunk)).count();
        assert!(kept + 8 > before.len(), "{kept} of {}", before.len());
    }

    #[test]
    fn equal_bounds_cut_at_fixed_distances() {
        let fixed = Chunking { threshold: 0, min: 1000, average: 1000, max: 1000 };
        let mut chunker = Chunker::new(&fixed);
        let bytes = noise(4, 2500);
        assert_eq!(chunker.cut(&bytes), Some(1000));
        assert_eq!(chunker.cut(&bytes[1000..]), Some(1000));
        assert_eq!(chunker.cut(&bytes[2000..]), None);
    }
}
