//! `CVMFS_UID_MAP` and `CVMFS_GID_MAP`: files of lines `FROM TO`, where `*` stands for all others.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Most rules in one map.
const MAX_RULES: usize = 100_000;

/// What user or group ids of a catalog become.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    rules: BTreeMap<u32, u32>,
    others: Option<u32>,
}

/// A line of a map is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdMapError {
    /// Not `FROM TO`.
    #[error("line {line}: {text:?} is no rule; write `FROM TO` with numbers, FROM may be `*` for all others")]
    Rule {
        /// From 1.
        line: usize,
        /// At most 80 characters of it.
        text: String,
    },
    /// More than 100,000 rules.
    #[error("more than {MAX_RULES} rules")]
    TooMany,
}

impl IdMap {
    /// What an id becomes; itself when no rule fits.
    pub fn map(&self, id: u32) -> u32 {
        self.rules.get(&id).copied().or(self.others).unwrap_or(id)
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.others.is_none()
    }
}

impl FromStr for IdMap {
    type Err = IdMapError;

    fn from_str(text: &str) -> Result<Self, IdMapError> {
        let mut map = IdMap::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let error = || IdMapError::Rule { line: number + 1, text: line.chars().take(80).collect() };
            let mut words = line.split_whitespace();
            let (Some(from), Some(to), None) = (words.next(), words.next(), words.next()) else {
                return Err(error());
            };
            let to = to.parse().map_err(|_| error())?;
            if from == "*" {
                map.others = Some(to);
            } else {
                map.rules.insert(from.parse().map_err(|_| error())?, to);
            }
            if map.rules.len() > MAX_RULES {
                return Err(IdMapError::TooMany);
            }
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_win_over_the_star() {
        let map: IdMap = "# site\n1000 2000\n\n* 65534\n".parse().unwrap();
        assert_eq!((map.map(1000), map.map(5)), (2000, 65534));
        assert_eq!(IdMap::default().map(7), 7);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = "1 2\n3 x\n".parse::<IdMap>().unwrap_err();
        assert!(error.to_string().starts_with("line 2:"), "{error}");
        assert!("1 2 3".parse::<IdMap>().is_err());
        assert!("-1 2".parse::<IdMap>().is_err());
    }
}
