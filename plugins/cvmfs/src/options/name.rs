//! `cms.cern.ch`, `cms.cern.ch@tag`, `cms.cern.ch#hash`.

use std::str::FromStr;

use volume::Revision;

use crate::client::fqrn::{Fqrn, FqrnError};
use crate::client::hash::{Digest, DigestError};

/// A repository, perhaps with a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The repository.
    pub fqrn: Fqrn,
    /// `None` when nothing follows the name.
    pub revision: Option<Revision>,
}

/// Why a text names no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// The name of the repository.
    #[error(transparent)]
    Name(#[from] FqrnError),
    /// What follows `@`.
    #[error("{0}")]
    Tag(String),
    /// What follows `#`.
    #[error(transparent)]
    Hash(#[from] DigestError),
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        if let Some((name, rest)) = text.split_once('@') {
            let fqrn = name.parse()?;
            return Ok(Reference { fqrn, revision: Some(tag(rest).map_err(ReferenceError::Tag)?) });
        }
        if let Some((name, rest)) = text.split_once('#') {
            let fqrn = name.parse()?;
            let digest: Digest = rest.parse()?;
            return Ok(Reference { fqrn, revision: Some(Revision::Hash(digest.to_string())) });
        }
        Ok(Reference { fqrn: text.parse()?, revision: None })
    }
}

/// What a tag stands for; `trunk` is the newest revision, followed as it changes.
pub(super) fn tag(text: &str) -> Result<Revision, String> {
    check_tag(text)?;
    Ok(if text == "trunk" { Revision::Trunk } else { Revision::Tag(text.to_owned()) })
}

/// Checks that a text can be the name of a tag: 1 to 255 letters, digits and `_ . + : -`, beginning with a letter or digit, no `..`.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check_tag(text: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.+:-".contains(c);
    if (1..=255).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(allowed)
        && !text.contains("..")
    {
        return Ok(());
    }
    let short: String = text.chars().take(80).collect();
    Err(format!(
        "{short:?} is no name of a tag: use letters, digits and `_ . + : -`, begin with a letter or digit, no `..`"
    ))
}
