//! Content hashes, object names and path hashes of CernVM-FS.
//!
//! An object is named by the digest of its *transferred* bytes (compressed, as a rule), in one of three algorithms
//! of 160 bits each. Its text form is lower-case hex with a tag for all but SHA-1; its path on a server is
//! `data/<2 hex>/<rest><tag><suffix>`. Readers of text pick the algorithm by length alone, as the C++ client
//! does, so the length is checked here and the tag text too (an unknown tag of the right length is an error).
//! Format: CernVM-FS `crypto/hash.h`; facts of the issue, section 4.1.

use std::fmt;
use std::str::FromStr;

use md5::{Digest as _, Md5};
use ripemd::Ripemd160;
use sha1::Sha1;
use sha3::Shake128;
use sha3::digest::{ExtendableOutput, Update as _, XofReader};

/// Bytes of a digest, in every algorithm.
pub const DIGEST_BYTES: usize = 20;

/// How a digest is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    /// SHA-1, without a tag.
    Sha1,
    /// RIPEMD-160, tag `-rmd160`.
    Rmd160,
    /// SHAKE-128 squeezed to 160 bits, tag `-shake128`.
    Shake128,
}

impl Algorithm {
    /// What follows the hex digits.
    pub fn tag(self) -> &'static str {
        match self {
            Algorithm::Sha1 => "",
            Algorithm::Rmd160 => "-rmd160",
            Algorithm::Shake128 => "-shake128",
        }
    }

    /// From bits 8 to 10 of a catalog row's flags, which hold the algorithm's number minus one; `None` for the
    /// numbers that no known algorithm has.
    pub fn from_catalog_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Algorithm::Sha1),
            1 => Some(Algorithm::Rmd160),
            2 => Some(Algorithm::Shake128),
            _ => None,
        }
    }

    /// The inverse of [`from_catalog_bits`](Self::from_catalog_bits).
    pub fn catalog_bits(self) -> u32 {
        match self {
            Algorithm::Sha1 => 0,
            Algorithm::Rmd160 => 1,
            Algorithm::Shake128 => 2,
        }
    }

    /// The digest of `bytes`.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new(self);
        hasher.update(bytes);
        hasher.finish()
    }
}

/// A digest with its algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    /// How it was computed.
    pub algorithm: Algorithm,
    /// The value.
    pub bytes: [u8; DIGEST_BYTES],
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No algorithm has this length or tag.
    #[error(
        "{0:?} is no content hash: it has 40 lower-case hex digits, then nothing (SHA-1), `-rmd160` or `-shake128`"
    )]
    Form(String),
}

impl Digest {
    /// A digest of a given algorithm from raw bytes of a catalog; `None` unless there are exactly 20.
    pub fn from_bytes(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        Some(Digest { algorithm, bytes: bytes.try_into().ok()? })
    }

    /// The hex digits without the tag.
    pub fn hex(&self) -> String {
        hex(&self.bytes)
    }

    /// An object of this digest and a suffix.
    pub fn with_suffix(self, suffix: Suffix) -> ObjectId {
        ObjectId { digest: self, suffix }
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The value of one hex digit of either case.
fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.bytes {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(self.algorithm.tag())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    /// Accepts hex digits of either case, as the C++ client does, and a tag in lower case.
    fn from_str(text: &str) -> Result<Self, DigestError> {
        let error = || {
            // A hostile text is not repeated in full.
            DigestError::Form(text.chars().take(80).collect())
        };
        let raw = text.as_bytes();
        let (digits, tag) = raw.split_at_checked(2 * DIGEST_BYTES).ok_or_else(error)?;
        let algorithm = [Algorithm::Sha1, Algorithm::Rmd160, Algorithm::Shake128]
            .into_iter()
            .find(|algorithm| algorithm.tag().as_bytes() == tag)
            .ok_or_else(error)?;
        let mut bytes = [0; DIGEST_BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let high = nibble(pair[0]).ok_or_else(error)?;
            let low = nibble(pair[1]).ok_or_else(error)?;
            *byte = high << 4 | low;
        }
        Ok(Digest { algorithm, bytes })
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What kind of object a name stands for: the last letter of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suffix {
    /// A whole file.
    None,
    /// A chunk of a file, `P`.
    Partial,
    /// A catalog, `C`.
    Catalog,
    /// The tags database, `H`.
    History,
    /// An X.509 certificate, `X`.
    Certificate,
    /// Repository meta information in JSON, `M`.
    Metainfo,
}

impl Suffix {
    /// The letter, empty for a whole file.
    pub fn letter(self) -> &'static str {
        match self {
            Suffix::None => "",
            Suffix::Partial => "P",
            Suffix::Catalog => "C",
            Suffix::History => "H",
            Suffix::Certificate => "X",
            Suffix::Metainfo => "M",
        }
    }
}

/// The name of an object in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ObjectId {
    /// Digest of the transferred bytes.
    pub digest: Digest,
    /// What it is.
    pub suffix: Suffix,
}

impl ObjectId {
    /// A name.
    pub fn new(digest: Digest, suffix: Suffix) -> Self {
        ObjectId { digest, suffix }
    }

    /// Where it is, relative to a repository's URL: `data/ab/cdef…-rmd160C`.
    pub fn url_path(&self) -> String {
        let name = self.digest.to_string();
        format!("data/{}/{}{}", &name[..2], &name[2..], self.suffix.letter())
    }
}

/// `abcdef…-rmd160C`, for logs and messages.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.digest, self.suffix.letter())
    }
}

/// A digest under way.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha1(Sha1),
    Rmd160(Ripemd160),
    Shake128(Box<Shake128>),
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Sha1(_) => "Hasher(Sha1)",
            State::Rmd160(_) => "Hasher(Rmd160)",
            State::Shake128(_) => "Hasher(Shake128)",
        })
    }
}

impl Hasher {
    /// Begins a digest.
    pub fn new(algorithm: Algorithm) -> Self {
        Hasher(match algorithm {
            Algorithm::Sha1 => State::Sha1(Sha1::new()),
            Algorithm::Rmd160 => State::Rmd160(Ripemd160::new()),
            Algorithm::Shake128 => State::Shake128(Box::default()),
        })
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha1(state) => md5::Digest::update(state, bytes),
            State::Rmd160(state) => md5::Digest::update(state, bytes),
            State::Shake128(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha1(state) => Digest { algorithm: Algorithm::Sha1, bytes: state.finalize().into() },
            State::Rmd160(state) => Digest { algorithm: Algorithm::Rmd160, bytes: state.finalize().into() },
            State::Shake128(state) => {
                let mut bytes = [0; DIGEST_BYTES];
                state.finalize_xof().read(&mut bytes);
                Digest { algorithm: Algorithm::Shake128, bytes }
            }
        }
    }
}

/// How an object is stored and transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// One zlib stream (RFC 1950). Catalogs, history, certificates and meta information always are.
    Zlib,
    /// As it is.
    None,
}

impl Compression {
    /// From bits 11 to 13 of a catalog row's flags; `None` for unknown numbers.
    pub fn from_catalog_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Compression::Zlib),
            1 => Some(Compression::None),
            _ => None,
        }
    }

    /// The inverse of [`from_catalog_bits`](Self::from_catalog_bits).
    pub fn catalog_bits(self) -> u32 {
        match self {
            Compression::Zlib => 0,
            Compression::None => 1,
        }
    }
}

/// MD5 of a path as catalogs hold it: two signed 64-bit little-endian halves.
///
/// The path is absolute from the repository's root in raw bytes: `""` for the root, `/a/b` below, without a slash at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct PathHash {
    /// Bytes 0 to 7 (column `md5path_1`).
    pub high: i64,
    /// Bytes 8 to 15 (column `md5path_2`).
    pub low: i64,
}

impl PathHash {
    /// What the root directory has for a parent.
    pub const NONE: PathHash = PathHash { high: 0, low: 0 };

    /// The hash of a path.
    pub fn of(path: &[u8]) -> Self {
        let digest: [u8; 16] = Md5::digest(path).into();
        let (high, low) = digest.split_at(8);
        let half = |bytes: &[u8]| i64::from_le_bytes(bytes.try_into().expect("half of 16 bytes"));
        PathHash { high: half(high), low: half(low) }
    }

    /// The 16 bytes as lower-case hex: the form that manifests use for the root path.
    pub fn hex(&self) -> String {
        hex(&self.high.to_le_bytes()) + &hex(&self.low.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_the_empty_text_are_the_published_ones() {
        for (algorithm, text) in [
            (Algorithm::Sha1, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            (Algorithm::Rmd160, "9c1185a5c5e9fc54612808977ee8f548b2258d31-rmd160"),
            (Algorithm::Shake128, "7f9c2ba4e88f827d616045507605853ed73b8093-shake128"),
        ] {
            let digest = algorithm.digest(b"");
            assert_eq!(digest.to_string(), text);
            assert_eq!(text.parse::<Digest>().unwrap(), digest);
            assert_eq!(Algorithm::from_catalog_bits(algorithm.catalog_bits()), Some(algorithm));
        }
    }

    #[test]
    fn texts_that_are_no_digest_are_refused() {
        let long = "a".repeat(1 << 20);
        for bad in [
            "",
            "da39a3ee",
            "da39a3ee5e6b4b0d3255bfef95601890afd8070g",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709-md5abc",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709C",
            "ä39a3ee5e6b4b0d3255bfef95601890afd807099",
            &long,
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:.60}");
        }
    }

    #[test]
    fn suffix_follows_the_tag_in_an_url() {
        let digest: Digest = "9c1185a5c5e9fc54612808977ee8f548b2258d31-rmd160".parse().unwrap();
        assert_eq!(
            digest.with_suffix(Suffix::Catalog).url_path(),
            "data/9c/1185a5c5e9fc54612808977ee8f548b2258d31-rmd160C"
        );
    }

    #[test]
    fn root_path_hash_is_the_known_pair() {
        let root = PathHash::of(b"");
        assert_eq!(root, PathHash { high: 338_333_539_836_370_388, low: 9_098_107_892_288_553_193 });
        assert_eq!(root.hex(), "d41d8cd98f00b204e9800998ecf8427e");
    }
}
