//! When nothing fails.

use super::*;

#[tokio::test]
async fn objects_of_all_sizes_and_forms_arrive() {
    let server = TestServer::start();
    let bench = direct(&server);
    for length in [0, 1, 4095, 4096, 100_000, 262_144, 700_001, 5_000_000] {
        for compression in [Compression::Zlib, Compression::None] {
            let content = content(length, length as u64);
            let id = server.put_object(&content, Suffix::None, compression);
            let object = bench.fetcher.object(&id, compression, Some(length as u64)).await.unwrap();
            assert_eq!(object.size(), length as u64);
            assert!(read(&object) == content, "{length} {compression:?}");
            assert!(object.file().is_some());
            let again = bench.fetcher.cached(&id, Some(length as u64)).expect("it is open");
            assert!(read(&again) == content);
            assert_eq!(server.count(&id.url_path()), 1);
        }
    }
    assert!(server.connections() <= 2, "connections are kept: {}", server.connections());
}

#[tokio::test]
async fn other_algorithms_and_unknown_sizes_are_fetched() {
    let server = TestServer::start();
    let bench = direct(&server);
    let content = content(300_000, 1);
    for algorithm in [Algorithm::Rmd160, Algorithm::Shake128] {
        let bytes = transferred(&content, Compression::Zlib);
        let id = algorithm.digest(&bytes).with_suffix(Suffix::Catalog);
        server.put(&id.url_path(), bytes);
        let object = bench.fetcher.object(&id, Compression::Zlib, None).await.unwrap();
        assert!(read(&object) == content);
    }
}

#[tokio::test]
async fn another_process_finds_what_one_has_fetched() {
    let server = TestServer::start();
    let bench = direct(&server);
    let small = content(1000, 1);
    let large = content(2_000_000, 2);
    let small_id = server.put_object(&small, Suffix::None, Compression::Zlib);
    let large_id = server.put_object(&large, Suffix::None, Compression::Zlib);
    bench.fetcher.object(&small_id, Compression::Zlib, None).await.unwrap();
    bench.fetcher.object(&large_id, Compression::Zlib, None).await.unwrap();
    drop(server);
    let cache = Cache::open(CacheConfig::new(bench.directory.path().join("cache"), None)).unwrap();
    let offline = Fetcher::new(config(&format!("{}/repo", refusing()), "DIRECT"), cache);
    assert!(read(&offline.cached(&small_id, Some(1000)).unwrap()) == small);
    assert!(offline.cached(&large_id, None).is_none(), "too large to be verified at once");
    assert!(read(&offline.object(&large_id, Compression::Zlib, None).await.unwrap()) == large);
    assert!(offline.cached(&large_id, None).is_some());
}

#[tokio::test]
async fn one_object_wanted_by_many_is_transferred_once() {
    let server = TestServer::start();
    let bench = direct(&server);
    let id = server.put_object(&content(50_000, 3), Suffix::None, Compression::Zlib);
    server.fail(&id.url_path(), [Fault::Slow(Duration::from_millis(200))]);
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let fetcher = Arc::clone(&bench.fetcher);
            tokio::spawn(async move { fetcher.object(&id, Compression::Zlib, Some(50_000)).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().size(), 50_000);
    }
    assert_eq!(server.count(&id.url_path()), 1);
    assert_eq!(bench.fetcher.flights.count(), 0);
}

#[tokio::test]
async fn a_transfer_ends_with_its_last_caller() {
    let server = TestServer::start();
    let bench = direct(&server);
    let id = server.put_object(&content(50_000, 3), Suffix::None, Compression::Zlib);
    server.fail(&id.url_path(), [Fault::Hang]);
    let first = Box::pin(bench.fetcher.object(&id, Compression::Zlib, None));
    let second = Box::pin(bench.fetcher.object(&id, Compression::Zlib, None));
    let mut both = Box::pin(async { tokio::join!(first, second) });
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut both).await;
    assert!(waited.is_err());
    assert_eq!(bench.fetcher.flights.count(), 1);
    drop(both);
    assert_eq!(bench.fetcher.flights.count(), 0);
    // The next caller is not held up by the one before.
    let object = bench.fetcher.object(&id, Compression::Zlib, None).await.unwrap();
    assert_eq!(object.size(), 50_000);
}

#[tokio::test]
async fn small_files_are_bounded_and_can_be_asked_for_anew() {
    let server = TestServer::start();
    let bench = direct(&server);
    server.put(".cvmfspublished", "manifest");
    assert_eq!(bench.fetcher.small(".cvmfspublished", 8, false).await.unwrap(), "manifest");
    assert_eq!(bench.fetcher.small(".cvmfspublished", 8, true).await.unwrap(), "manifest");
    let seen = server.seen();
    assert_eq!(seen[0].header("cache-control"), None);
    assert_eq!(seen[1].header("cache-control"), Some("no-cache"));
    assert_eq!(seen[1].header("pragma"), Some("no-cache"));
    assert!(matches!(
        bench.fetcher.small(".cvmfspublished", 7, false).await,
        Err(FetchError::TooLarge { limit: 7, .. })
    ));
    let missing = bench.fetcher.small(".cvmfswhitelist", 100, false).await.unwrap_err();
    assert!(matches!(missing, FetchError::NotFound { .. }), "{missing}");
    assert_eq!(missing.kind(), volume::FaultKind::NotFound);
    assert!(bench.fetcher.last_error().unwrap().contains(".cvmfswhitelist"));
}

#[tokio::test]
async fn external_data_comes_whole_and_in_ranges() {
    let server = TestServer::start();
    let mut config = config(&format!("{}/repo", refusing()), "DIRECT");
    config.external = Some(Origin::new(server.url().parse().unwrap(), ProxyGroups::direct()));
    let bench = bench(config);
    let content = content(100_000, 9);
    server.put("dir/a%20b", content.clone());
    let whole = Algorithm::Sha1.digest(&content);
    let object = bench.fetcher.external(b"/dir/a b", None, &whole, Compression::None, 100_000).await.unwrap();
    assert!(read(&object) == content);
    let part = Algorithm::Sha1.digest(&content[1000..5000]);
    let object =
        bench.fetcher.external(b"/dir/a b", Some(1000..5000), &part, Compression::None, 4000).await.unwrap();
    assert!(read(&object) == content[1000..5000]);
    server.fail_all(Fault::IgnoreRange);
    let part = Algorithm::Sha1.digest(&content[1..5000]);
    let ignored = bench.fetcher.external(b"/dir/a b", Some(1..5000), &part, Compression::None, 4999).await;
    assert!(matches!(ignored, Err(FetchError::RangeIgnored { .. })), "{ignored:?}");
}

#[tokio::test]
async fn names_are_resolved() {
    let server = TestServer::start();
    server.put("x", "here");
    let bench = bench(config(&format!("http://localhost:{}/repo", server.address().port()), "DIRECT"));
    assert_eq!(bench.fetcher.small("x", 100, false).await.unwrap(), "here");
    let bench = super::bench(config("http://no-such-host.invalid/repo", "DIRECT"));
    let error = bench.fetcher.small("x", 100, false).await.unwrap_err();
    assert!(matches!(&error, FetchError::Resolve { host, .. } if host == "no-such-host.invalid"), "{error}");
}
