//! The blacklist, `/etc/cvmfs/blacklist`: certificates that were lost, and revisions that must not be used.
//!
//! Lines are fingerprints as in a whitelist, or `<fqrn N`: revisions of this repository below N are refused. Lines that are
//! neither are left alone, as the C++ client does (`catalog_mgr_client.cc`, `whitelist.cc`).

use std::collections::BTreeMap;

use super::hash::Digest;
use super::whitelist::fingerprint;

/// Parsed blacklist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blacklist {
    fingerprints: Vec<Digest>,
    minimum_revisions: BTreeMap<String, u64>,
}

impl Blacklist {
    /// Reads a text; never fails.
    pub fn parse(text: &str) -> Self {
        let mut list = Blacklist::default();
        for line in text.lines() {
            if let Some((fqrn, revision)) =
                line.strip_prefix('<').and_then(|rest| rest.split_once([' ', '\t']))
            {
                if let Ok(revision) = revision.trim().parse::<u64>() {
                    let minimum = list.minimum_revisions.entry(fqrn.to_owned()).or_default();
                    *minimum = revision.max(*minimum);
                }
            } else {
                list.fingerprints.extend(fingerprint(line));
            }
        }
        list
    }

    /// Fingerprints of certificates that may not sign.
    pub fn fingerprints(&self) -> &[Digest] {
        &self.fingerprints
    }

    /// The first revision of a repository that may be used; 0 when all may. Holds for pinned revisions too.
    pub fn minimum_revision(&self, fqrn: &str) -> u64 {
        self.minimum_revisions.get(fqrn).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_and_revisions_are_told_apart() {
        let list = Blacklist::parse(
            "# lost\n10:31:21:93:A2:59:FC:B7:20:55:19:AD:4D:09:D7:84:35:03:DC:17 # stolen\n\
             <cms.cern.ch 42\n<cms.cern.ch\t 7\n<x.cern.ch\n<y.cern.ch many\n",
        );
        assert_eq!(list.fingerprints().len(), 1);
        assert_eq!(list.minimum_revision("cms.cern.ch"), 42);
        assert_eq!(list.minimum_revision("y.cern.ch"), 0);
    }
}
