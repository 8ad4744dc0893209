//! Whether a manifest may be believed.
//!
//! A site's master keys say (in the whitelist) which certificates may sign a repository; the certificate signs the
//! manifest; the manifest names the root catalog by its hash; and so on down to every object. [`verify`] checks all links up
//! to the manifest, each time, from bytes alone: that a root hash equals one already known is no excuse to skip a
//! signature. It is pure (no network, the clock is passed in), so that blobs kept on disk are verified by the very
//! same code when a server is down.

pub mod chain;

use std::time::SystemTime;

use bytes::Bytes;
use volume::{Fault, FaultKind, Retry};

use super::blacklist::Blacklist;
use super::certificate::{Certificate, KeyError, MasterKey};
use super::hash::{Digest, ObjectId};
use super::letter::Letter;
use super::manifest::{Manifest, ManifestError};
use super::whitelist::{Whitelist, WhitelistError};
use crate::payload::RepositorySetup;

pub use chain::{TrustSource, establish};

/// What is believed before any byte is fetched.
#[derive(Debug, Clone)]
pub struct TrustPolicy {
    /// The repository that is wanted.
    pub repository: String,
    /// The whitelist must be signed by one of them.
    pub master_keys: Vec<MasterKey>,
    /// What the site refuses.
    pub blacklist: Blacklist,
    /// What was already seen; nothing older is taken.
    pub floor: Option<Floor>,
}

/// The newest state of a repository that was verified before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Floor {
    /// Its revision.
    pub revision: u64,
    /// Its publishing time in seconds since 1970; 0 when it had none.
    pub published: u64,
}

/// The three blobs as a server sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// `.cvmfspublished`.
    pub published: Bytes,
    /// `.cvmfswhitelist`.
    pub whitelist: Bytes,
    /// The certificate object, compressed as transferred.
    pub certificate: Bytes,
}

/// A manifest that was found good, with all that is needed to find it good again offline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedManifest {
    manifest: Manifest,
    evidence: Evidence,
}

impl VerifiedManifest {
    /// What it says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The blobs it was verified from; to be kept.
    pub fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// What nothing older is taken than.
    pub fn floor(&self) -> Floor {
        Floor { revision: self.manifest.revision, published: self.manifest.published.unwrap_or(0) }
    }
}

/// What exactly is wrong with a repository's signatures.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// `.cvmfspublished` is no manifest.
    #[error("the manifest is broken: {0}")]
    Manifest(#[from] ManifestError),
    /// `.cvmfswhitelist` is no whitelist.
    #[error("the whitelist is broken: {0}")]
    Whitelist(#[from] WhitelistError),
    /// The manifest is of another repository.
    #[error("the manifest names another repository, {found:?}")]
    ManifestName {
        /// What it names.
        found: String,
    },
    /// The whitelist is of another repository.
    #[error("the whitelist names another repository, {found:?}")]
    WhitelistName {
        /// What it names.
        found: String,
    },
    /// The manifest was altered after it was hashed.
    #[error("the manifest's text does not match its hash line")]
    ManifestHash,
    /// The whitelist was altered after it was hashed.
    #[error("the whitelist's text does not match its hash line")]
    WhitelistHash,
    /// The certificate did not sign the manifest.
    #[error("the manifest's signature is not by the repository's certificate")]
    ManifestSignature,
    /// No master key signed the whitelist.
    #[error("the whitelist's signature is by none of this node's {keys} master keys for the repository")]
    WhitelistSignature {
        /// How many were tried.
        keys: usize,
    },
    /// Its time is over.
    #[error("the whitelist expired at {0} (YYYYMMDDhhmmss UTC)")]
    Expired(String),
    /// Signed in a way that this client cannot check.
    #[error("the whitelist asks for {0}, which this client does not support")]
    Unsupported(&'static str),
    /// The bytes are not those that the manifest names.
    #[error("the certificate object does not match its hash {expected}")]
    CertificateHash {
        /// What the manifest names.
        expected: ObjectId,
    },
    /// The certificate is unusable.
    #[error("the certificate is unusable: {0}")]
    Certificate(KeyError),
    /// The certificate is on the blacklist.
    #[error("the certificate {0} is on this node's blacklist")]
    Blacklisted(Digest),
    /// The certificate is not on the whitelist.
    #[error("the certificate {0} is not on the whitelist")]
    NotListed(Digest),
    /// The blacklist refuses the revision.
    #[error("revision {revision} is refused by this node's blacklist, which asks for {minimum} or later")]
    RevisionBlacklisted {
        /// What the manifest offers.
        revision: u64,
        /// The first that may be used.
        minimum: u64,
    },
    /// A server offers something older than was seen before.
    #[error(
        "the server offers revision {offered} (published {offered_published}), but revision {seen} (published \
         {seen_published}) was already seen here"
    )]
    Outdated {
        /// What the manifest offers.
        offered: u64,
        /// Its publishing time.
        offered_published: u64,
        /// What was seen.
        seen: u64,
        /// Its publishing time.
        seen_published: u64,
    },
}

impl TrustError {
    /// What a person can do about it.
    fn remedy(&self) -> &'static str {
        match self {
            TrustError::Expired(_) => {
                "ask the repository's maintainers to renew the whitelist, and check this node's clock"
            }
            TrustError::WhitelistSignature { .. } => {
                "check CVMFS_PUBLIC_KEY and CVMFS_KEYS_DIR: the repository's own master key must be among them"
            }
            TrustError::Outdated { .. } => "try another server, or wait until this one has caught up",
            TrustError::Blacklisted(_) | TrustError::RevisionBlacklisted { .. } => {
                "this node's blacklist refuses it; ask who maintains the blacklist"
            }
            TrustError::Unsupported(_) => "use a server that offers an RSA-signed whitelist",
            TrustError::ManifestName { .. } | TrustError::WhitelistName { .. } => {
                "check CVMFS_SERVER_URL: it must lead to this very repository"
            }
            TrustError::Manifest(_)
            | TrustError::Whitelist(_)
            | TrustError::ManifestHash
            | TrustError::WhitelistHash
            | TrustError::ManifestSignature
            | TrustError::CertificateHash { .. }
            | TrustError::Certificate(_)
            | TrustError::NotListed(_) => {
                "the server or a proxy on the way sends wrong data, or the repository is badly signed; try another \
                 server, and tell the repository's maintainers"
            }
        }
    }

    /// The fault that a user sees.
    pub fn into_fault(self, repository: &str) -> Fault {
        let (kind, retry) = match self {
            TrustError::Unsupported(_) => (FaultKind::Unsupported, Retry::Never),
            TrustError::Outdated { .. } => (FaultKind::Untrusted, Retry::Later),
            _ => (FaultKind::Untrusted, Retry::Never),
        };
        Fault::new(kind, "verify repository", repository, format!("{self}; {}", self.remedy()))
            .with_retry(retry)
    }
}

impl TrustPolicy {
    /// The policy of a repository's setup, with nothing seen yet.
    ///
    /// # Errors
    /// A master key that cannot be read, named by its file.
    pub fn from_setup(setup: &RepositorySetup) -> Result<Self, Fault> {
        let mut master_keys = Vec::with_capacity(setup.master_keys.len());
        for key in &setup.master_keys {
            let parsed = MasterKey::from_pem(&key.pem).map_err(|error| {
                let detail = format!("{error}; put a PEM public key there");
                Fault::new(FaultKind::InvalidArgument, "read master key", &key.origin, detail)
            })?;
            master_keys.push(parsed);
        }
        Ok(TrustPolicy {
            repository: setup.repository.clone(),
            master_keys,
            blacklist: Blacklist::parse(&setup.blacklist),
            floor: None,
        })
    }

    /// Refuses what is older than the floor.
    fn check_floor(&self, manifest: &Manifest) -> Result<(), TrustError> {
        let offered_published = manifest.published.unwrap_or(0);
        match self.floor {
            Some(floor) if manifest.revision < floor.revision || offered_published < floor.published => {
                Err(TrustError::Outdated {
                    offered: manifest.revision,
                    offered_published,
                    seen: floor.revision,
                    seen_published: floor.published,
                })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Finds a manifest good or says what is wrong. Every link is checked, every time.
///
/// # Errors
/// The first link that does not hold.
pub fn verify(
    evidence: Evidence,
    policy: &TrustPolicy,
    now: SystemTime,
) -> Result<VerifiedManifest, TrustError> {
    let letter = Letter::split(&evidence.published).map_err(ManifestError::from)?;
    let manifest = Manifest::from_letter(&letter)?;
    let whitelist = trusted_whitelist(&evidence.whitelist, policy, now)?;
    if manifest.repository != policy.repository {
        return Err(TrustError::ManifestName { found: manifest.repository });
    }
    if !letter.hash_fits() {
        return Err(TrustError::ManifestHash);
    }
    let expected = manifest.certificate_id();
    if expected.digest.algorithm.digest(&evidence.certificate) != expected.digest {
        return Err(TrustError::CertificateHash { expected });
    }
    let certificate = Certificate::from_object(&evidence.certificate).map_err(TrustError::Certificate)?;
    let is_it = |print: &&Digest| certificate.fingerprint(print.algorithm) == **print;
    if let Some(print) = policy.blacklist.fingerprints().iter().find(is_it) {
        return Err(TrustError::Blacklisted(*print));
    }
    if !whitelist.fingerprints.iter().any(|print| is_it(&print)) {
        return Err(TrustError::NotListed(certificate.fingerprint(expected.digest.algorithm)));
    }
    if !certificate.signed(letter.hash_line, letter.signature) {
        return Err(TrustError::ManifestSignature);
    }
    let minimum = policy.blacklist.minimum_revision(&policy.repository);
    if manifest.revision < minimum {
        return Err(TrustError::RevisionBlacklisted { revision: manifest.revision, minimum });
    }
    policy.check_floor(&manifest)?;
    Ok(VerifiedManifest { manifest, evidence })
}

/// The whitelist, if it is signed by a master key, for this repository, and still good.
fn trusted_whitelist(blob: &[u8], policy: &TrustPolicy, now: SystemTime) -> Result<Whitelist, TrustError> {
    let letter = Letter::split(blob).map_err(WhitelistError::from)?;
    let whitelist = Whitelist::from_letter(&letter)?;
    if whitelist.pkcs7 {
        return Err(TrustError::Unsupported("a PKCS#7 signature"));
    }
    if whitelist.ca_chain {
        return Err(TrustError::Unsupported("a check of the certificate's issuers"));
    }
    if !letter.hash_fits() {
        return Err(TrustError::WhitelistHash);
    }
    if !policy.master_keys.iter().any(|key| key.signed(letter.hash_line, letter.signature)) {
        return Err(TrustError::WhitelistSignature { keys: policy.master_keys.len() });
    }
    if whitelist.repository != policy.repository {
        return Err(TrustError::WhitelistName { found: whitelist.repository });
    }
    if whitelist.is_expired(now) {
        return Err(TrustError::Expired(whitelist.expires));
    }
    Ok(whitelist)
}

#[cfg(test)]
mod tests;
