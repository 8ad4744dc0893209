//! Transferred bytes become a verified object: digest over what came, inflate, seal, store.
//!
//! The hash decides first. A stream that does not inflate or has the wrong size is only called so when its bytes are the right
//! ones; otherwise they are wrong bytes, which another server may have right.

use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status};

use crate::client::cache::{Incoming, Object, StorageError};
use crate::client::hash::{Compression, Digest, Hasher};

/// Output of the inflater is written in pieces of this size.
const OUTPUT_BYTES: usize = 128 << 10;

thread_local! {
    static OUTPUT: RefCell<Vec<u8>> = RefCell::new(vec![0; OUTPUT_BYTES]);
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DecodeFault {
    WrongHash,
    WrongSize,
    BadStream,
    TooLarge,
    Storage(StorageError),
}

/// What the bytes must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expectation {
    pub(super) digest: Digest,
    pub(super) compression: Compression,
    /// Inflated size, when the catalog tells it.
    pub(super) size: Option<u64>,
    /// Most inflated bytes when it does not.
    pub(super) limit: u64,
}

impl Expectation {
    /// No right answer has more transferred bytes: zlib adds at most 5 bytes per 16 KiB block and a frame.
    pub(super) fn transfer_limit(&self) -> u64 {
        let size = self.size.unwrap_or(self.limit);
        match self.compression {
            Compression::None => size,
            Compression::Zlib => size.saturating_add(size / 1024).saturating_add(4096),
        }
    }

    fn inflated_limit(&self) -> u64 {
        self.size.unwrap_or(self.limit)
    }
}

/// Decodes one object as its bytes come.
pub(super) struct Decoder {
    expected: Expectation,
    hasher: Hasher,
    inflater: Option<Decompress>,
    ended: bool,
    /// Found already, but the hash has the first word.
    fault: Option<DecodeFault>,
    /// `None` after a fault: what was written is gone.
    incoming: Option<Incoming>,
    written: u64,
}

impl Decoder {
    pub(super) fn new(expected: Expectation, incoming: Incoming) -> Self {
        let inflater = match expected.compression {
            Compression::Zlib => Some(Decompress::new(true)),
            Compression::None => None,
        };
        let hasher = Hasher::new(expected.digest.algorithm);
        Decoder {
            expected,
            hasher,
            inflater,
            ended: false,
            fault: None,
            incoming: Some(incoming),
            written: 0,
        }
    }

    /// All bytes at once: nothing is inflated before the hash is right.
    pub(super) fn whole(
        expected: Expectation,
        incoming: Incoming,
        parts: &[Bytes],
    ) -> Result<Object, DecodeFault> {
        let mut hasher = Hasher::new(expected.digest.algorithm);
        for part in parts {
            hasher.update(part);
        }
        if hasher.finish() != expected.digest {
            return Err(DecodeFault::WrongHash);
        }
        let mut decoder = Decoder::new(expected, incoming);
        for part in parts {
            decoder.decode(part);
        }
        decoder.settle()
    }

    /// The next bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.decode(bytes);
    }

    /// The end of the bytes.
    pub(super) fn finish(mut self) -> Result<Object, DecodeFault> {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::new(self.expected.digest.algorithm));
        if hasher.finish() != self.expected.digest {
            return Err(DecodeFault::WrongHash);
        }
        self.settle()
    }

    /// A fault that no further bytes can change.
    pub(super) fn storage_fault(&self) -> Option<DecodeFault> {
        self.fault.clone().filter(|fault| matches!(fault, DecodeFault::Storage(_)))
    }

    fn decode(&mut self, bytes: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let result = match self.inflater.take() {
            None => self.write(bytes),
            Some(mut inflater) => {
                let result = OUTPUT.with_borrow_mut(|output| self.inflate(&mut inflater, bytes, output));
                self.inflater = Some(inflater);
                result
            }
        };
        if let Err(fault) = result {
            self.fault = Some(fault);
            self.incoming = None;
        }
    }

    fn inflate(
        &mut self,
        inflater: &mut Decompress,
        mut bytes: &[u8],
        output: &mut [u8],
    ) -> Result<(), DecodeFault> {
        loop {
            if self.ended {
                return if bytes.is_empty() { Ok(()) } else { Err(DecodeFault::BadStream) };
            }
            let (in_before, out_before) = (inflater.total_in(), inflater.total_out());
            let status = inflater
                .decompress(bytes, output, FlushDecompress::None)
                .map_err(|_| DecodeFault::BadStream)?;
            let consumed = (inflater.total_in() - in_before) as usize;
            let produced = (inflater.total_out() - out_before) as usize;
            bytes = &bytes[consumed..];
            self.write(&output[..produced])?;
            match status {
                Status::StreamEnd => self.ended = true,
                // No input left, and no output held back.
                Status::Ok | Status::BufError if consumed == 0 && produced == 0 => {
                    return if bytes.is_empty() { Ok(()) } else { Err(DecodeFault::BadStream) };
                }
                Status::Ok | Status::BufError => {}
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), DecodeFault> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.written += bytes.len() as u64;
        if self.written > self.expected.inflated_limit() {
            return Err(match self.expected.size {
                Some(_) => DecodeFault::WrongSize,
                None => DecodeFault::TooLarge,
            });
        }
        let incoming = self.incoming.as_mut().expect("gone only after a fault");
        incoming.write(bytes).map_err(DecodeFault::Storage)
    }

    fn settle(mut self) -> Result<Object, DecodeFault> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        if self.inflater.is_some() && !self.ended {
            return Err(DecodeFault::BadStream);
        }
        if self.expected.size.is_some_and(|size| size != self.written) {
            return Err(DecodeFault::WrongSize);
        }
        self.incoming.take().expect("gone only after a fault").commit().map_err(DecodeFault::Storage)
    }
}
