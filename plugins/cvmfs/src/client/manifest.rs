//! The manifest `.cvmfspublished`: what a repository's newest revision is.
//!
//! Lines of a letter and a value; unknown letters are left alone, of a repeated one the last counts. Format: CernVM-FS
//! `manifest.cc`. A [`Manifest`] is only parsed; [`super::trust::verify`] says whether it may be believed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::hash::{Digest, ObjectId, PathHash, Suffix};
use super::letter::{Letter, LetterError};

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// `C`: the root catalog.
    pub catalog: Digest,
    /// `B`: size of the root catalog, inflated.
    pub catalog_size: Option<u64>,
    /// `D`: how long it may be believed to be the newest.
    pub ttl: Duration,
    /// `S`.
    pub revision: u64,
    /// `N`: fully qualified name.
    pub repository: String,
    /// `X`.
    pub certificate: Digest,
    /// `H`: the tags database.
    pub history: Option<Digest>,
    /// `T`: seconds since 1970 at which it was published.
    pub published: Option<u64>,
    /// `G`: old revisions' objects may be deleted on the server.
    pub garbage_collectable: bool,
    /// `A`: root catalog and certificate are found at [`alternative paths`](Manifest::catalog_path).
    pub alternative_paths: bool,
    /// `M`: meta information in JSON.
    pub metainfo: Option<Digest>,
}

/// Why a blob is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Its outer form is broken.
    #[error(transparent)]
    Letter(#[from] LetterError),
    /// The text is no UTF-8.
    #[error("its text is not UTF-8")]
    Text,
    /// A line that must be there is not.
    #[error("line {0} is missing")]
    Missing(char),
    /// A line's value is not of its kind.
    #[error("line {0} has a malformed value")]
    Malformed(char),
    /// `R` is not the hash of the root path: this is the manifest of a part of a tree.
    #[error("line R does not stand for the root of a repository")]
    Root,
}

impl Manifest {
    /// Parses the blob, with nothing verified but its form.
    ///
    /// # Errors
    /// Anything that is not a manifest's form. Never panics.
    pub fn parse(blob: &[u8]) -> Result<Self, ManifestError> {
        Self::from_letter(&Letter::split(blob)?)
    }

    /// The same of a blob already taken apart.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn from_letter(letter: &Letter<'_>) -> Result<Self, ManifestError> {
        let text = std::str::from_utf8(letter.text).map_err(|_| ManifestError::Text)?;
        let mut lines = Lines(BTreeMap::new());
        for line in text.lines() {
            let mut letters = line.chars();
            if let Some(key) = letters.next() {
                lines.0.insert(key, letters.as_str());
            }
        }
        if lines.required('R')? != PathHash::of(b"").hex() {
            return Err(ManifestError::Root);
        }
        let ttl: u32 = lines.parsed('D')?.ok_or(ManifestError::Missing('D'))?;
        Ok(Manifest {
            catalog: lines.parsed('C')?.ok_or(ManifestError::Missing('C'))?,
            catalog_size: lines.parsed('B')?,
            ttl: Duration::from_secs(ttl.into()),
            revision: lines.parsed('S')?.ok_or(ManifestError::Missing('S'))?,
            repository: lines.required('N')?.to_owned(),
            certificate: lines.parsed('X')?.ok_or(ManifestError::Missing('X'))?,
            history: lines.parsed('H')?,
            published: lines.parsed('T')?,
            garbage_collectable: lines.switch('G')?,
            alternative_paths: lines.switch('A')?,
            metainfo: lines.parsed('M')?,
        })
    }

    /// The root catalog's name.
    pub fn catalog_id(&self) -> ObjectId {
        self.catalog.with_suffix(Suffix::Catalog)
    }

    /// The certificate's name.
    pub fn certificate_id(&self) -> ObjectId {
        self.certificate.with_suffix(Suffix::Certificate)
    }

    /// Where the root catalog is, relative to the repository's URL.
    pub fn catalog_path(&self) -> String {
        self.path_of(self.catalog_id())
    }

    /// Where the certificate is, relative to the repository's URL.
    pub fn certificate_path(&self) -> String {
        self.path_of(self.certificate_id())
    }

    fn path_of(&self, id: ObjectId) -> String {
        if self.alternative_paths { format!(".cvmfsalt-{id}") } else { id.url_path() }
    }
}

/// Values by letter.
struct Lines<'a>(BTreeMap<char, &'a str>);

impl<'a> Lines<'a> {
    fn required(&self, key: char) -> Result<&'a str, ManifestError> {
        self.0.get(&key).copied().ok_or(ManifestError::Missing(key))
    }

    fn parsed<T: std::str::FromStr>(&self, key: char) -> Result<Option<T>, ManifestError> {
        let parse = |text: &&str| text.parse().map_err(|_| ManifestError::Malformed(key));
        self.0.get(&key).map(parse).transpose()
    }

    fn switch(&self, key: char) -> Result<bool, ManifestError> {
        match self.0.get(&key) {
            None | Some(&"no") => Ok(false),
            Some(&"yes") => Ok(true),
            Some(_) => Err(ManifestError::Malformed(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::hash::Algorithm;

    const CATALOG: &str = "C080224936c226bafa5a35228bf913a1efda81dd8";

    fn blob(lines: &[&str]) -> Vec<u8> {
        let text = lines.join("\n") + "\n";
        let hash = Algorithm::Sha1.digest(text.as_bytes());
        format!("{text}--\n{hash}\nsignature").into_bytes()
    }

    fn lines() -> Vec<&'static str> {
        vec![
            CATALOG,
            "B280576",
            "Rd41d8cd98f00b204e9800998ecf8427e",
            "D240",
            "S6",
            "Ntest.cern.ch",
            "Xad18092aad185a62b56503373cb8a39c97582e7d",
            "T1795247724",
        ]
    }

    #[test]
    fn real_manifests_are_read() {
        for fqrn in fixtures::GOOD {
            let blob = std::fs::read(fixtures::repository(fqrn).join(".cvmfspublished")).unwrap();
            let manifest = Manifest::parse(&blob).unwrap();
            assert_eq!(manifest.repository, fqrn);
            assert!(fixtures::repository(fqrn).join(manifest.catalog_path()).exists(), "{fqrn}");
            assert_eq!(manifest.ttl, Duration::from_secs(240));
        }
    }

    #[test]
    fn unknown_letters_are_left_alone_and_the_last_of_a_repeated_one_counts() {
        let mut all = lines();
        all.extend(["Zsomething", "?", "", "S7", "Ayes"]);
        let manifest = Manifest::parse(&blob(&all)).unwrap();
        assert_eq!(manifest.revision, 7);
        assert_eq!(manifest.catalog_path(), format!(".cvmfsalt-{}C", &CATALOG[1..]));
    }

    #[test]
    fn a_missing_or_malformed_line_is_named() {
        for key in ['C', 'R', 'D', 'S', 'N', 'X'] {
            let rest: Vec<_> = lines().into_iter().filter(|line| !line.starts_with(key)).collect();
            assert_eq!(Manifest::parse(&blob(&rest)), Err(ManifestError::Missing(key)));
        }
        for (line, key) in [("S-1", 'S'), ("D99999999999", 'D'), ("Cxyz", 'C'), ("Gmaybe", 'G')] {
            let mut all = lines();
            all.push(line);
            assert_eq!(Manifest::parse(&blob(&all)), Err(ManifestError::Malformed(key)));
        }
    }

    #[test]
    fn a_subtree_is_no_repository() {
        let mut all = lines();
        all.push("R00000000000000000000000000000000");
        assert_eq!(Manifest::parse(&blob(&all)), Err(ManifestError::Root));
    }
}
