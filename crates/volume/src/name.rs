//! Names of volumes as engines and users give them.

use std::fmt;
use std::str::FromStr;

/// The name of a defined volume: 1 to 255 bytes of printable ASCII out of `[A-Za-z0-9_.@#+:-]`, beginning
/// with a letter or digit, without `..`. It is safe as one path component.
///
/// Engines allow `[a-zA-Z0-9][a-zA-Z0-9_.-]*`; `@` and `#` carry a CVMFS tag or hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// Why a text is no volume name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("the volume name is empty; give one, for example `cms.cern.ch`")]
    Empty,
    /// More than 255 bytes.
    #[error("the volume name has {0} bytes; 255 is the limit")]
    TooLong(usize),
    /// A character or sequence outside of the allowed set.
    #[error(
        "volume name {0:?} is not allowed: use letters, digits and `_ . @ # + : -`, begin with a letter or digit, no `..`"
    )]
    Character(String),
}

impl VolumeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > 255 {
            return Err(NameError::TooLong(text.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.@#+:-".contains(c);
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !text.chars().all(allowed)
            || text.contains("..")
        {
            return Err(NameError::Character(text.to_owned()));
        }
        Ok(VolumeName(text.to_owned()))
    }
}

impl TryFrom<String> for VolumeName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> String {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_repositories_with_tag_or_hash_are_allowed() {
        for good in ["cms.cern.ch", "cms.cern.ch@v1-2_3", "cms.cern.ch#0a1b", "cvmfs", "0f3a"] {
            assert_eq!(good.parse::<VolumeName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn names_that_could_leave_a_directory_are_refused() {
        for bad in ["", "../x", "a/b", "a..b", ".hidden", "-x", "a b", "a\0b", "\u{e9}", "a\n"] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad:?}");
        }
        assert_eq!("x".repeat(256).parse::<VolumeName>(), Err(NameError::TooLong(256)));
    }
}
