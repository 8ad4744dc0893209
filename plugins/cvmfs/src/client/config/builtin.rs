//! Servers and master keys of the best-known domains, for nodes that have no files for them.
//!
//! Values and keys are those of the reference client's configuration package (github.com/cvmfs/cvmfs, directory
//! `mount`, commit ae7450ec of 2024-10-18; the keys are the same, byte for byte, in github.com/cvmfs-contrib/config-repo).

use super::{Origin, Parameters};
use crate::client::fqrn::Fqrn;
use crate::payload::KeyText;

struct Domain {
    name: &'static str,
    servers: &'static str,
    /// Used with `CVMFS_USE_CDN=yes`.
    content_network: &'static str,
    keys: &'static [&'static str],
}

const DOMAINS: &[Domain] = &[
    Domain {
        name: "cern.ch",
        servers: "http://cvmfs-stratum-one.cern.ch/cvmfs/@fqrn@;http://cernvmfs.gridpp.rl.ac.uk/cvmfs/@fqrn@;\
                  http://cvmfs-s1bnl.opensciencegrid.org/cvmfs/@fqrn@;\
                  http://cvmfs-s1fnal.opensciencegrid.org/cvmfs/@fqrn@",
        content_network: "http://s1cern-cvmfs.openhtc.io/cvmfs/@fqrn@;http://s1ral-cvmfs.openhtc.io/cvmfs/@fqrn@;\
                          http://s1bnl-cvmfs.openhtc.io/cvmfs/@fqrn@;http://s1fnal-cvmfs.openhtc.io/cvmfs/@fqrn@",
        keys: &[
            include_str!("keys/cern-it1.cern.ch.pub"),
            include_str!("keys/cern-it4.cern.ch.pub"),
            include_str!("keys/cern-it5.cern.ch.pub"),
        ],
    },
    Domain {
        name: "egi.eu",
        servers: "http://cvmfs-egi.gridpp.rl.ac.uk:8000/cvmfs/@fqrn@;http://klei.nikhef.nl:8000/cvmfs/@fqrn@;\
                  http://cvmfsrepo.lcg.triumf.ca:8000/cvmfs/@fqrn@;\
                  http://cvmfs-stratum-one.ihep.ac.cn:8000/cvmfs/@fqrn@",
        content_network: "http://s1ral-cvmfs.openhtc.io/cvmfs/@fqrn@;http://s1nikhef-cvmfs.openhtc.io/cvmfs/@fqrn@;\
                          http://s1triumf-cvmfs.openhtc.io:8080/cvmfs/@fqrn@;\
                          http://s1ihep-cvmfs.openhtc.io/cvmfs/@fqrn@",
        keys: &[include_str!("keys/egi.eu.pub")],
    },
    Domain {
        name: "opensciencegrid.org",
        servers: "http://cvmfs-egi.gridpp.rl.ac.uk:8000/cvmfs/@fqrn@;http://klei.nikhef.nl:8000/cvmfs/@fqrn@;\
                  http://cvmfs-s1bnl.opensciencegrid.org:8000/cvmfs/@fqrn@;\
                  http://cvmfs-s1fnal.opensciencegrid.org:8000/cvmfs/@fqrn@;\
                  http://cvmfs-stratum-one.ihep.ac.cn:8000/cvmfs/@fqrn@",
        content_network: "http://s1ral-cvmfs.openhtc.io/cvmfs/@fqrn@;http://s1nikhef-cvmfs.openhtc.io/cvmfs/@fqrn@;\
                          http://s1bnl-cvmfs.openhtc.io/cvmfs/@fqrn@;http://s1fnal-cvmfs.openhtc.io/cvmfs/@fqrn@;\
                          http://s1ihep-cvmfs.openhtc.io/cvmfs/@fqrn@",
        keys: &[include_str!("keys/opensciencegrid.org.pub")],
    },
];

fn domain(fqrn: &Fqrn) -> Option<&'static Domain> {
    DOMAINS.iter().find(|domain| domain.name == fqrn.domain())
}

/// Sets the servers of a known domain, when nothing else has.
pub(super) fn complete(fqrn: &Fqrn, parameters: &mut Parameters) {
    if parameters.get("CVMFS_SERVER_URL").is_some() {
        return;
    }
    let Some(domain) = domain(fqrn) else { return };
    let content_network =
        parameters.get("CVMFS_USE_CDN").is_some_and(|value| value.parse() == Ok(super::values::Switch(true)));
    let servers = if content_network { domain.content_network } else { domain.servers };
    parameters.set("CVMFS_SERVER_URL", servers, Origin::built_in());
}

/// Master keys of a known domain; empty for others.
pub(super) fn keys(fqrn: &Fqrn) -> Vec<KeyText> {
    let keys = domain(fqrn).map(|domain| domain.keys).unwrap_or_default();
    keys.iter().map(|pem| KeyText { origin: "built-in".to_owned(), pem: (*pem).to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::certificate::MasterKey;

    #[test]
    fn every_key_and_server_list_is_well_formed() {
        for domain in DOMAINS {
            assert!(!domain.keys.is_empty());
            for pem in domain.keys {
                MasterKey::from_pem(pem).unwrap();
            }
            for list in [domain.servers, domain.content_network] {
                let list = list.replace("@fqrn@", "x.cern.ch");
                assert!(list.parse::<super::super::ServerList>().unwrap().urls().len() >= 4);
            }
        }
    }
}
