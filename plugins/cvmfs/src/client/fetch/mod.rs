//! Bytes from servers: the transport, its fail-over, and the way into the cache.
//!
//! ```text
//! Fetcher::object ─ cache ─ flight (one per object) ─ transfer ─ call (fail-over, hedging) ─ exchange ─ peer (connections)
//!                                                        └ decode on the crew's threads ─ cache
//! ```
//!
//! - Every byte that enters the cache was compared with its name before; see `decode`.
//! - A request goes to the servers and through the proxies that the site lists, and nowhere else; see `policy`.
//! - Every call ends within [`FetchConfig::deadline`], or while its bytes keep coming within
//!   [`FetchConfig::transfer_deadline`]; see `call`.
//! - Everything a peer sends is bounded: heads, bodies, inflated sizes.

pub mod address;
mod call;
mod config;
mod crew;
mod decode;
mod dns;
mod error;
mod exchange;
mod flight;
mod peer;
mod policy;
mod race;
mod site;
mod stats;
#[cfg(any(test, feature = "test-server"))]
pub mod testserver;
mod transfer;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use volume::Sample;

pub use config::{AddressFamily, FetchConfig, Origin};
pub use error::FetchError;

use self::decode::Expectation;
use self::flight::Flights;
use self::peer::Peers;
use self::site::Site;
use self::stats::Stats;
use self::transfer::Wanted;
use super::cache::{Cache, Look, Object};
use super::hash::{Compression, Digest, ObjectId, Suffix};

/// Fetches what one repository names. Calls need a tokio runtime with I/O and time; [`cached`](Fetcher::cached) does not.
#[derive(Debug)]
pub struct Fetcher {
    config: FetchConfig,
    cache: Arc<Cache>,
    site: Arc<Site>,
    external: Option<Arc<Site>>,
    peers: Arc<Peers>,
    flights: Flights,
    stats: Arc<Stats>,
}

impl Fetcher {
    /// A fetcher with connections of its own. No network.
    pub fn new(config: FetchConfig, cache: Arc<Cache>) -> Arc<Fetcher> {
        let peers = Arc::new(Peers::new(config.connections_per_peer));
        Fetcher::with_peers(config, cache, peers)
    }

    /// A fetcher for another repository that shares this one's connections, and what it knows of its proxies and of
    /// names; for one process that serves many repositories.
    pub fn sibling(&self, config: FetchConfig) -> Arc<Fetcher> {
        Fetcher::with_peers(config, Arc::clone(&self.cache), Arc::clone(&self.peers))
    }

    fn with_peers(config: FetchConfig, cache: Arc<Cache>, peers: Arc<Peers>) -> Arc<Fetcher> {
        let stats = Arc::new(Stats::default());
        let site = Site::new(&config.origin, &config, &peers, &stats);
        let external = config.external.as_ref().map(|origin| Site::new(origin, &config, &peers, &stats));
        Arc::new(Fetcher { config, cache, site, external, peers, flights: Flights::default(), stats })
    }

    /// The cache it fills.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Its settings.
    pub fn config(&self) -> &FetchConfig {
        &self.config
    }

    /// A small file by its name below the repository's URL (`.cvmfspublished`), unverified and not cached. `fresh` asks proxies
    /// for a new copy.
    pub async fn small(&self, name: &str, limit: usize, fresh: bool) -> Result<Bytes, FetchError> {
        let began = Instant::now();
        let path = address::escape_path(name.trim_start_matches('/').as_bytes());
        let result = transfer::small(Arc::clone(&self.site), path.into(), limit, fresh).await;
        self.stats.finished(began.elapsed(), &result);
        result
    }

    /// The server that is used now sends what cannot be believed although it answers well: uses the next one from here on
    /// (until the usual reset time). `false` when there is none left that nobody has complained of.
    pub fn pass_over_server(&self) -> bool {
        self.site.policy.pass_over_server(self.site.host_reset_after)
    }

    /// An object, verified, from the cache or a server. `expected_size` is the inflated size in the catalog. Concurrent calls
    /// for one object share one transfer, which ends with its last caller.
    pub async fn object(
        &self,
        id: &ObjectId,
        compression: Compression,
        expected_size: Option<u64>,
    ) -> Result<Object, FetchError> {
        self.get(&self.site, *id, id.url_path(), None, compression, expected_size).await
    }

    /// The root catalog of a repository whose manifest asks for alternative names (`Ayes`): `.cvmfsalt-<hash><suffix>`.
    pub async fn alternative(&self, id: &ObjectId) -> Result<Object, FetchError> {
        self.get(&self.site, *id, format!(".cvmfsalt-{id}"), None, Compression::Zlib, None).await
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
        let Some(site) = &self.external else {
            return Err(FetchError::NoExternalServer { path: String::from_utf8_lossy(path).into_owned() });
        };
        let suffix = if range.is_some() { Suffix::Partial } else { Suffix::None };
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        let path = address::escape_path(relative);
        self.get(site, digest.with_suffix(suffix), path, range, compression, Some(expected_size)).await
    }

    /// The object if it is at hand (see [`Cache::cached`]); for the thread that answers the kernel.
    pub fn cached(&self, id: &ObjectId, expected_size: Option<u64>) -> Option<Object> {
        let object = self.cache.cached(id, expected_size)?;
        self.stats.hits.fetch_add(1, Ordering::Relaxed);
        Some(object)
    }

    async fn get(
        &self,
        site: &Arc<Site>,
        id: ObjectId,
        path: String,
        range: Option<Range<u64>>,
        compression: Compression,
        expected_size: Option<u64>,
    ) -> Result<Object, FetchError> {
        if let Some(object) = self.look_up(&id).await {
            self.stats.hits.fetch_add(1, Ordering::Relaxed);
            return right_size(&path, object, expected_size);
        }
        let began = Instant::now();
        let path: Arc<str> = path.into();
        let transfer = || {
            let expected = Expectation {
                digest: id.digest,
                compression,
                size: expected_size,
                limit: self.config.object_limit,
            };
            let wanted = Wanted { path: Arc::clone(&path), range, id, expected };
            transfer::object(Arc::clone(site), Arc::clone(&self.cache), wanted)
        };
        let (flight, joined) = self.flights.join(id, transfer);
        let result = flight.landed().await;
        if joined {
            self.stats.shared.fetch_add(1, Ordering::Relaxed);
        } else {
            self.stats.finished(began.elapsed(), &result);
        }
        right_size(&path, result?, expected_size)
    }

    /// From the cache, read and verified on the crew if it is large.
    async fn look_up(&self, id: &ObjectId) -> Option<Object> {
        match self.cache.look(id) {
            Look::Here(object) => Some(object),
            Look::Absent => None,
            Look::Unverified => {
                let (cache, id) = (Arc::clone(&self.cache), *id);
                crew::submit(move || cache.load(&id)).await.ok().flatten()
            }
        }
    }

    /// The newest error with its time, for people.
    pub fn last_error(&self) -> Option<String> {
        self.stats.last_error()
    }

    /// What keeps the fetcher or its cache from working well, for people; `None` when nothing does.
    pub fn trouble(&self) -> Option<String> {
        let troubles: Vec<String> =
            [self.cache.trouble(), self.stats.trouble()].into_iter().flatten().collect();
        (!troubles.is_empty()).then(|| troubles.join("; "))
    }

    /// Values for the metrics endpoint, the cache's too.
    pub fn stats(&self) -> Vec<Sample> {
        let mut samples = self.cache.samples();
        samples.extend(self.stats.samples(self.peers.connects()));
        samples
    }
}

/// One name, two sizes: some catalog is wrong about it.
fn right_size(path: &str, object: Object, expected_size: Option<u64>) -> Result<Object, FetchError> {
    match expected_size {
        Some(expected) if expected != object.size() => {
            Err(FetchError::WrongSize { url: path.into(), expected })
        }
        Some(_) | None => Ok(object),
    }
}
