//! The fetcher against real sockets: what it gets right, and how long it takes when things go wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::ProxyGroups;
use super::testserver::{BlackHole, Fault, TestServer, refusing, transferred};
use super::*;
use crate::client::cache::CacheConfig;
use crate::client::hash::Algorithm;

mod faults;
mod good;

struct Bench {
    directory: tempfile::TempDir,
    fetcher: Arc<Fetcher>,
}

/// Quick settings: nothing in these tests needs more.
fn config(servers: &str, proxies: &str) -> FetchConfig {
    let mut origin = Origin::new(servers.parse().unwrap(), proxies.parse().unwrap());
    origin.timeout = Duration::from_secs(2);
    origin.timeout_direct = Duration::from_secs(2);
    let mut config = FetchConfig::new("test.example.org", origin);
    config.deadline = Duration::from_secs(4);
    config.transfer_deadline = Duration::from_secs(8);
    config.backoff_init = Duration::from_millis(200);
    config
}

fn bench(config: FetchConfig) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(CacheConfig::new(directory.path().join("cache"), None)).unwrap();
    Bench { directory, fetcher: Fetcher::new(config, cache) }
}

fn direct(server: &TestServer) -> Bench {
    bench(config(&server.url(), "DIRECT"))
}

/// Bytes that compress to about a half.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes()[..4]);
        bytes.extend_from_slice(b"same");
    }
    bytes.truncate(length);
    bytes
}

fn read(object: &Object) -> Vec<u8> {
    object.read_all(1 << 30).unwrap()
}

fn sample(fetcher: &Fetcher, name: &str) -> f64 {
    fetcher.stats().into_iter().find(|sample| sample.name == name).unwrap().value
}
