//! What a repository needs of the world outside, as one small trait: servers, cache, and the record of what was verified.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use volume::Fault;

use crate::client::cache::{Object, VerifiedRecord};
use crate::client::catalog::{CatalogSource, DatabaseFile, SourceError};
use crate::client::fetch::{FetchError, Fetcher};
use crate::client::hash::{Compression, Digest, Suffix};
use crate::client::trust::TrustSource;

/// Largest manifest, in bytes; real ones have less than 1 KiB.
const MANIFEST_MAX: usize = 64 << 10;
/// Largest whitelist and certificate, in bytes.
const LETTER_MAX: usize = 512 << 10;

/// Servers and cache of one repository.
#[async_trait]
pub trait Upstream: TrustSource + CatalogSource {
    /// What the repository was last verified with, by any process of this node.
    fn record(&self) -> Option<VerifiedRecord>;

    /// Keeps what it was verified with.
    fn keep(&self, record: &VerifiedRecord);

    /// Whether root catalogs are to be asked for by their alternative names (manifest line `Ayes`) when they are not found
    /// by the usual ones.
    fn use_alternative_names(&self, yes: bool);

    /// The tags database, verified and inflated.
    async fn history(&self, digest: &Digest) -> Result<Arc<dyn DatabaseFile>, Fault>;
}

/// The real one: over a [`Fetcher`] and its cache.
#[derive(Debug)]
pub struct FetchedUpstream {
    repository: String,
    fetcher: Arc<Fetcher>,
    alternative_names: AtomicBool,
}

impl FetchedUpstream {
    /// For the repository of this name.
    pub fn new(repository: &str, fetcher: Arc<Fetcher>) -> Arc<Self> {
        let alternative_names = AtomicBool::new(false);
        Arc::new(FetchedUpstream { repository: repository.to_owned(), fetcher, alternative_names })
    }

    async fn object(&self, digest: &Digest, suffix: Suffix) -> Result<Arc<dyn DatabaseFile>, FetchError> {
        let object = self.fetcher.object(&digest.with_suffix(suffix), Compression::Zlib, None).await?;
        Ok(Arc::new(object))
    }
}

#[async_trait]
impl Upstream for FetchedUpstream {
    fn record(&self) -> Option<VerifiedRecord> {
        self.fetcher.cache().load_verified(&self.repository)
    }

    fn keep(&self, record: &VerifiedRecord) {
        if let Err(error) = self.fetcher.cache().save_verified(&self.repository, record) {
            tracing::warn!(repository = self.repository, %error, "verified revision not recorded");
        }
    }

    fn use_alternative_names(&self, yes: bool) {
        self.alternative_names.store(yes, Ordering::Relaxed);
    }

    async fn history(&self, digest: &Digest) -> Result<Arc<dyn DatabaseFile>, Fault> {
        self.object(digest, Suffix::History).await.map_err(|error| error.fault("fetch tags"))
    }
}

#[async_trait]
impl TrustSource for FetchedUpstream {
    async fn published(&self, fresh: bool) -> Result<Bytes, Fault> {
        let blob = self.fetcher.small(".cvmfspublished", MANIFEST_MAX, fresh).await;
        blob.map_err(|error| error.fault("fetch manifest"))
    }

    async fn whitelist(&self, fresh: bool) -> Result<Bytes, Fault> {
        let blob = self.fetcher.small(".cvmfswhitelist", LETTER_MAX, fresh).await;
        blob.map_err(|error| error.fault("fetch whitelist"))
    }

    async fn certificate(&self, path: &str, fresh: bool) -> Result<Bytes, Fault> {
        let blob = self.fetcher.small(path, LETTER_MAX, fresh).await;
        blob.map_err(|error| error.fault("fetch certificate"))
    }

    async fn next_server(&self) -> bool {
        self.fetcher.pass_over_server()
    }
}

#[async_trait]
impl CatalogSource for FetchedUpstream {
    fn cached(&self, digest: &Digest, _size: Option<u64>) -> Option<Arc<dyn DatabaseFile>> {
        let object = self.fetcher.cached(&digest.with_suffix(Suffix::Catalog), None)?;
        Some(Arc::new(object))
    }

    /// The size in a parent catalog is a hint only (the C++ client does not compare it either), and the hash speaks for itself.
    async fn fetch(&self, digest: &Digest, _size: Option<u64>) -> Result<Arc<dyn DatabaseFile>, SourceError> {
        match self.object(digest, Suffix::Catalog).await {
            Err(FetchError::NotFound { .. } | FetchError::Status { .. })
                if self.alternative_names.load(Ordering::Relaxed) =>
            {
                let object = self.fetcher.alternative(&digest.with_suffix(Suffix::Catalog)).await;
                object.map(|object| Arc::new(object) as Arc<dyn DatabaseFile>)
            }
            found => found,
        }
        .map_err(|error| Arc::new(error) as SourceError)
    }
}

impl DatabaseFile for Object {
    fn size(&self) -> u64 {
        Object::size(self)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(buffer, offset)? == buffer.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use volume::FaultKind;

    use super::*;
    use crate::client::blacklist::Blacklist;
    use crate::client::cache::{Cache, CacheConfig};
    use crate::client::certificate::MasterKey;
    use crate::client::fetch::testserver::TestServer;
    use crate::client::fetch::{FetchConfig, Origin};
    use crate::client::manifest::Manifest;
    use crate::client::trust::{TrustPolicy, VerifiedManifest, establish};

    /// A server whose repository is this fixture.
    fn server(fqrn: &str) -> TestServer {
        let server = TestServer::start();
        let read = |path: &str| std::fs::read(fixtures::repository(fqrn).join(path)).unwrap();
        let published = read(".cvmfspublished");
        let certificate = Manifest::parse(&published).unwrap().certificate_path();
        server.put(&certificate, read(&certificate));
        server.put(".cvmfspublished", published);
        server.put(".cvmfswhitelist", read(".cvmfswhitelist"));
        server
    }

    fn established(servers: &[&TestServer]) -> Result<VerifiedManifest, Fault> {
        let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
        let origin = Origin::new(urls.join(";").parse().unwrap(), "DIRECT".parse().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(CacheConfig::new(directory.path().join("cache"), None)).unwrap();
        let pem = std::fs::read_to_string(fixtures::public_key("mini.cern.ch")).unwrap();
        let policy = TrustPolicy {
            repository: "mini.cern.ch".to_owned(),
            master_keys: vec![MasterKey::from_pem(&pem).unwrap()],
            blacklist: Blacklist::default(),
            floor: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fetcher = Fetcher::new(FetchConfig::new("mini.cern.ch", origin), cache);
            establish(&*FetchedUpstream::new("mini.cern.ch", fetcher), &policy).await
        })
    }

    #[test]
    fn a_server_that_sends_what_is_not_signed_well_is_passed_over() {
        let (bad, worse, good) =
            (server("badsig.cern.ch"), server("wrongkey.cern.ch"), server("mini.cern.ch"));
        established(&[&bad, &worse, &good]).unwrap();
        assert_eq!(bad.count(".cvmfspublished"), 2, "once more past the caches, then the next server");
        let fault = established(&[&worse, &bad]).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Untrusted);
        assert!(fault.detail.contains("none of this node's 1 master keys"), "{fault}");
    }
}
