//! Names of repositories.

use std::fmt;
use std::str::FromStr;

/// A fully qualified repository name, for example `cms.cern.ch`: 3 to 127 bytes of letters, digits, `-`, `_` and `.`, with at
/// least one dot, every part between dots beginning with a letter or digit. Safe as one path component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fqrn(String);

/// A text is no repository name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no repository name: it has the form cms.cern.ch, with at least one dot, of letters, digits, `-` and `_`"
)]
pub struct FqrnError(pub String);

impl Fqrn {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What follows the first dot: `cern.ch`.
    pub fn domain(&self) -> &str {
        self.0.split_once('.').map_or("", |(_, domain)| domain)
    }

    /// What stands before the first dot: `cms`.
    pub fn organisation(&self) -> &str {
        self.0.split_once('.').map_or("", |(organisation, _)| organisation)
    }

    /// Replaces `@fqrn@` and `@org@`.
    pub fn fill_template(&self, text: &str) -> String {
        text.replace("@fqrn@", &self.0).replace("@org@", self.organisation())
    }
}

impl FromStr for Fqrn {
    type Err = FqrnError;

    fn from_str(text: &str) -> Result<Self, FqrnError> {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        if (3..=127).contains(&text.len()) && text.contains('.') && text.split('.').all(part) {
            Ok(Fqrn(text.to_owned()))
        } else {
            Err(FqrnError(text.chars().take(140).collect()))
        }
    }
}

impl fmt::Display for Fqrn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Fqrn {
    type Error = FqrnError;

    fn try_from(text: String) -> Result<Self, FqrnError> {
        text.parse()
    }
}

impl From<Fqrn> for String {
    fn from(name: Fqrn) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_parts() {
        let name: Fqrn = "cvmfs-config.cern.ch".parse().unwrap();
        assert_eq!((name.organisation(), name.domain()), ("cvmfs-config", "cern.ch"));
        assert_eq!(name.fill_template("http://h/@org@/@fqrn@"), "http://h/cvmfs-config/cvmfs-config.cern.ch");
        for bad in
            ["", "cms", "cms.", ".cern.ch", "a..b", "../a.b", "a/b.c", "a b.c", "-a.b", "\u{e9}.ch", "a.b\n"]
        {
            assert!(bad.parse::<Fqrn>().is_err(), "{bad:?}");
        }
        assert!(format!("{}.ch", "a".repeat(125)).parse::<Fqrn>().is_err());
    }
}
