//! How fast objects come from a server on loopback into an empty cache: small files by one and by eight readers, large chunks
//! with read-ahead, and all of it again from the cache. `cargo bench -p cvmfs --features test-server`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use cvmfs::client::cache::{Cache, CacheConfig};
use cvmfs::client::fetch::address::ProxyGroups;
use cvmfs::client::fetch::testserver::TestServer;
use cvmfs::client::fetch::{FetchConfig, Fetcher, Origin};
use cvmfs::client::hash::{Compression, ObjectId, Suffix};

const SMALL_FILES: u64 = 5000;
const SMALL_BYTES: usize = 6000;
const CHUNKS: u64 = 48;
const CHUNK_BYTES: usize = 8 << 20;

/// Text-like bytes that zlib makes to about a third.
fn content(seed: u64, length: usize) -> Vec<u8> {
    const WORDS: [&[u8]; 16] = [
        b"import ", b"def ", b"self.", b"return ", b"    ", b"\n", b"(", b")", b"value", b"name", b"None",
        b" = ", b"[", b"]", b"if ", b"class ",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(WORDS[(state >> 20) as usize % WORDS.len()]);
        if state.is_multiple_of(8) {
            bytes.push((state >> 40) as u8);
        }
    }
    bytes.truncate(length);
    bytes
}

/// Processor time of this process so far (client, server and kernel), seconds.
fn processor_time() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("one may ask about oneself");
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}

struct Run<'a> {
    runtime: &'a tokio::runtime::Runtime,
    fetcher: Arc<Fetcher>,
}

impl Run<'_> {
    /// Reads all objects with so many readers, each blocking on one at a time as FUSE threads do; seconds.
    fn read(&self, ids: &[ObjectId], size: usize, readers: usize) -> f64 {
        let next = AtomicUsize::new(0);
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(|| {
                    while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let object = self.fetcher.cached(id, Some(size as u64)).unwrap_or_else(|| {
                            let object = self.fetcher.object(id, Compression::Zlib, Some(size as u64));
                            self.runtime.block_on(object).expect("the server is well")
                        });
                        let mut first = [0; 1];
                        assert_eq!(object.read_at(&mut first, 0).expect("it is open"), 1);
                    }
                });
            }
        });
        began.elapsed().as_secs_f64()
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    let server = TestServer::start();
    let put = |count: u64, size: usize, seed: u64| -> Vec<ObjectId> {
        (0..count)
            .map(|n| server.put_object(&content(seed + n, size), Suffix::None, Compression::Zlib))
            .collect()
    };
    let small = put(SMALL_FILES, SMALL_BYTES, 1);
    let large = put(CHUNKS, CHUNK_BYTES, 1 << 32);
    let fresh = |directory: &tempfile::TempDir| Run {
        runtime: &runtime,
        fetcher: Fetcher::new(
            FetchConfig::new(
                "bench.example.org",
                Origin::new(server.url().parse().expect("it is a URL"), ProxyGroups::direct()),
            ),
            Cache::open(CacheConfig::new(directory.path(), None)).expect("a temporary directory is ours"),
        ),
    };
    // Kept to the end: ext4 is slow in making files for some seconds after many were removed.
    let mut directories = Vec::new();
    for readers in [1, 8, 16] {
        let directory = tempfile::tempdir().expect("there is a temporary directory");
        let run = fresh(&directory);
        let before = processor_time();
        let cold = run.read(&small, SMALL_BYTES, readers);
        let each = (processor_time() - before) * 1e6 / SMALL_FILES as f64;
        let warm = run.read(&small, SMALL_BYTES, readers);
        drop(run);
        let new_process = fresh(&directory).read(&small, SMALL_BYTES, readers);
        let rate = |seconds: f64| SMALL_FILES as f64 / seconds;
        println!(
            "{readers:2} readers, small files/s: cold {:.0} ({each:.0} µs of processor each, with the server's), \
             cached {:.0}, cached and unverified {:.0}",
            rate(cold),
            rate(warm),
            rate(new_process)
        );
        directories.push(directory);
    }
    if std::env::args().any(|argument| argument == "small") {
        return;
    }
    for readers in [1, 4] {
        let directory = tempfile::tempdir().expect("there is a temporary directory");
        let before = processor_time();
        let seconds = fresh(&directory).read(&large, CHUNK_BYTES, readers);
        let mib = (CHUNKS as usize * CHUNK_BYTES) as f64 / f64::from(1 << 20);
        let each = (processor_time() - before) * 1e3 / mib;
        println!(
            "{readers:2} chunks at a time, inflated: cold {:.0} MiB/s ({each:.1} ms of processor per MiB)",
            mib / seconds
        );
    }
}
