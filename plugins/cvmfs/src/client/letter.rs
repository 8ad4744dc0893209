//! The signed form that manifest and whitelist share: text, `--`, the text's hash, a raw signature.
//!
//! The signature is over the ASCII hash line (with its algorithm tag, without the newline), not over the text.
//! Format: CernVM-FS `crypto/signature.cc`.

use super::hash::Digest;

/// Most bytes of a manifest, whitelist or certificate; real ones have less than 10 KiB.
pub const BLOB_LIMIT: usize = 1 << 20;

/// A blob taken apart. Nothing is verified yet but that the parts are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letter<'a> {
    /// Everything before the `--` line, with the newline at its end.
    pub text: &'a [u8],
    /// What the hash line says.
    pub hash: Digest,
    /// The hash line itself: what is signed.
    pub hash_line: &'a str,
    /// To the end of the blob.
    pub signature: &'a [u8],
}

/// Why a blob is no letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LetterError {
    /// More than [`BLOB_LIMIT`].
    #[error("it has {0} bytes; {BLOB_LIMIT} is the limit")]
    TooLong(usize),
    /// No `--` line.
    #[error("the line `--` before the signature is missing")]
    NoSeparator,
    /// What follows is no hash in a line of its own.
    #[error("the hash line before the signature is missing or malformed")]
    NoHash,
    /// Nothing after the hash line.
    #[error("the signature is missing")]
    NoSignature,
}

impl<'a> Letter<'a> {
    /// Takes a blob apart.
    ///
    /// # Errors
    /// A part is missing or the blob is too long.
    pub fn split(blob: &'a [u8]) -> Result<Self, LetterError> {
        if blob.len() > BLOB_LIMIT {
            return Err(LetterError::TooLong(blob.len()));
        }
        const SEPARATOR: &[u8] = b"\n--\n";
        let at = blob
            .windows(SEPARATOR.len())
            .position(|window| window == SEPARATOR)
            .ok_or(LetterError::NoSeparator)?;
        let (text, rest) = (&blob[..=at], &blob[at + SEPARATOR.len()..]);
        let end = rest.iter().take(128).position(|byte| *byte == b'\n').ok_or(LetterError::NoHash)?;
        let hash_line = std::str::from_utf8(&rest[..end]).map_err(|_| LetterError::NoHash)?;
        let hash = hash_line.parse().map_err(|_| LetterError::NoHash)?;
        let signature = &rest[end + 1..];
        if signature.is_empty() {
            return Err(LetterError::NoSignature);
        }
        Ok(Letter { text, hash, hash_line, signature })
    }

    /// Whether the hash line is the text's hash.
    pub fn hash_fits(&self) -> bool {
        self.hash.algorithm.digest(self.text) == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::hash::Algorithm;

    #[test]
    fn parts_are_found_and_the_hash_covers_the_newline() {
        let hash = Algorithm::Rmd160.digest(b"Cx\n");
        let blob = [b"Cx\n--\n", hash.to_string().as_bytes(), b"\n\n\0sig"].concat();
        let letter = Letter::split(&blob).unwrap();
        assert_eq!((letter.text, letter.signature), (&b"Cx\n"[..], &b"\n\0sig"[..]));
        assert!(letter.hash_fits());
    }

    #[test]
    fn missing_parts_are_named() {
        assert_eq!(Letter::split(b"Cx\n"), Err(LetterError::NoSeparator));
        assert_eq!(Letter::split(b"Cx\n--\nzz"), Err(LetterError::NoHash));
        let blob = format!("Cx\n--\n{}\n", Algorithm::Sha1.digest(b""));
        assert_eq!(Letter::split(blob.as_bytes()), Err(LetterError::NoSignature));
        assert!(matches!(Letter::split(&vec![0; BLOB_LIMIT + 1]), Err(LetterError::TooLong(_))));
    }
}
