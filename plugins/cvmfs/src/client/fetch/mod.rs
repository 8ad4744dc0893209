//! Bytes from servers: the transport, its fail-over, and the way into the cache.

pub mod address;
mod config;
mod error;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use volume::Sample;

pub use config::{AddressFamily, FetchConfig, Origin};
pub use error::FetchError;

use super::cache::{Cache, Object};
use super::hash::{Compression, Digest, ObjectId};

/// Fetches what one repository names. Calls need a tokio runtime with I/O and time; [`cached`](Fetcher::cached) does not.
#[derive(Debug)]
pub struct Fetcher {
    config: FetchConfig,
    cache: Arc<Cache>,
}

impl Fetcher {
    /// A fetcher with connections of its own. No network.
    pub fn new(config: FetchConfig, cache: Arc<Cache>) -> Arc<Fetcher> {
        Arc::new(Fetcher { config, cache })
    }

    /// The cache it fills.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// A small file by its name below the repository's URL (`.cvmfspublished`), unverified and not cached. `fresh` asks proxies
    /// for a new copy.
    pub async fn small(&self, name: &str, limit: usize, fresh: bool) -> Result<Bytes, FetchError> {
        let _ = (name, limit, fresh);
        Err(FetchError::Stopped { url: self.config.repository.as_str().into() })
    }

    /// An object, verified, from the cache or a server. Concurrent calls for one object share one transfer, which ends
    /// with its last caller.
    pub async fn object(
        &self,
        id: &ObjectId,
        compression: Compression,
        expected_size: Option<u64>,
    ) -> Result<Object, FetchError> {
        let _ = (id, compression, expected_size);
        Err(FetchError::Stopped { url: self.config.repository.as_str().into() })
    }

    /// External data: the file at `path` (absolute in the repository), or the bytes `range` of it, whose transferred form has
    /// `digest`.
    pub async fn external(
        &self,
        path: &[u8],
        range: Option<Range<u64>>,
        digest: &Digest,
        compression: Compression,
        expected_size: u64,
    ) -> Result<Object, FetchError> {
        let _ = (path, range, digest, compression, expected_size);
        Err(FetchError::Stopped { url: self.config.repository.as_str().into() })
    }

    /// The object if it is at hand (see [`Cache::cached`]); for the thread that answers the kernel.
    pub fn cached(&self, id: &ObjectId, expected_size: Option<u64>) -> Option<Object> {
        self.cache.cached(id, expected_size)
    }

    /// The newest error with its time, for people.
    pub fn last_error(&self) -> Option<String> {
        None
    }

    /// What keeps the fetcher or its cache from working well, for people; `None` when nothing does.
    pub fn trouble(&self) -> Option<String> {
        self.cache.trouble()
    }

    /// Values for the metrics endpoint, the cache's too.
    pub fn stats(&self) -> Vec<Sample> {
        self.cache.samples()
    }
}
