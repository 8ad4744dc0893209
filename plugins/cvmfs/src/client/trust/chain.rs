//! Fetching what [`super::verify`] needs, in an order that lets a bad cache or server on the way be passed by.

use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use volume::Fault;

use super::{Evidence, TrustError, TrustPolicy, VerifiedManifest, verify};
use crate::client::manifest::Manifest;

/// Most servers that are tried for one verdict.
const MAX_SERVERS: usize = 16;

/// Where the blobs come from. Nothing that it gives is believed.
#[async_trait]
pub trait TrustSource: Send + Sync {
    /// `.cvmfspublished`. `fresh` asks caches on the way to pass the request on.
    async fn published(&self, fresh: bool) -> Result<Bytes, Fault>;

    /// `.cvmfswhitelist`.
    async fn whitelist(&self, fresh: bool) -> Result<Bytes, Fault>;

    /// An object at a path relative to the repository's URL, as transferred (compressed, not verified): the certificate.
    async fn certificate(&self, path: &str, fresh: bool) -> Result<Bytes, Fault>;

    /// Turns to the next server; `false` when all had their turn since `published` was first asked.
    async fn next_server(&self) -> bool {
        false
    }
}

/// Fetches and verifies. Wrong data is asked for once more past the caches on the way, then at the other servers.
///
/// # Errors
/// What the network said, or the first verdict against the data ([`volume::FaultKind::Untrusted`]).
pub async fn establish(source: &dyn TrustSource, policy: &TrustPolicy) -> Result<VerifiedManifest, Fault> {
    let mut first_verdict: Option<TrustError> = None;
    for _ in 0..MAX_SERVERS {
        for fresh in [false, true] {
            match attempt(source, policy, fresh).await {
                Ok(verified) => return Ok(verified),
                // Nobody else has another whitelist than the one its maintainers signed last, but a server may lag.
                Err(Failure::Verdict(error)) => {
                    tracing::warn!(repository = %policy.repository, fresh, %error, "repository not trusted");
                    first_verdict.get_or_insert(error);
                }
                Err(Failure::Source(fault)) => {
                    return Err(match first_verdict {
                        Some(error) => error.into_fault(&policy.repository),
                        None => fault,
                    });
                }
            }
        }
        if !source.next_server().await {
            break;
        }
    }
    let error = first_verdict.expect("the loop ends only after a verdict");
    Err(error.into_fault(&policy.repository))
}

enum Failure {
    Source(Fault),
    Verdict(TrustError),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::Source(fault)
    }
}

/// One round: manifest, then certificate and whitelist side by side.
async fn attempt(
    source: &dyn TrustSource,
    policy: &TrustPolicy,
    fresh: bool,
) -> Result<VerifiedManifest, Failure> {
    let published = source.published(fresh).await?;
    let manifest = Manifest::parse(&published).map_err(|error| Failure::Verdict(error.into()))?;
    let path = manifest.certificate_path();
    let (certificate, whitelist) = tokio::join!(source.certificate(&path, fresh), source.whitelist(fresh));
    let evidence = Evidence { published, whitelist: whitelist?, certificate: certificate? };
    verify(evidence, policy, SystemTime::now()).map_err(Failure::Verdict)
}
