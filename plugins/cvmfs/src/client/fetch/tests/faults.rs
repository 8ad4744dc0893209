//! When something fails.

use proptest::prelude::*;

use super::*;

/// Longest a call may take with the settings of these tests: its deadline and half a second.
const LIMIT: Duration = Duration::from_millis(4500);

async fn object(bench: &Bench, id: &ObjectId, size: u64) -> Result<Object, FetchError> {
    let began = Instant::now();
    let result = bench.fetcher.object(id, Compression::Zlib, Some(size)).await;
    assert!(began.elapsed() < LIMIT, "{:?} {result:?}", began.elapsed());
    result
}

/// Every fault that one server can have, where another server is well.
fn all_faults() -> Vec<Fault> {
    vec![
        Fault::Reset,
        Fault::ResetAfter(0),
        Fault::ResetAfter(1000),
        Fault::TruncateAfter(0),
        Fault::TruncateAfter(1000),
        Fault::Drip(Duration::from_millis(20)),
        Fault::FlipBit(5000),
        Fault::Trailing(1),
        Fault::ShortLength(1),
        Fault::Hang,
        Fault::Slow(Duration::from_secs(60)),
        Fault::Status(404, vec![]),
        Fault::Status(500, vec![]),
        Fault::Status(503, vec![]),
        Fault::Status(400, vec![]),
        Fault::Status(403, vec![]),
        Fault::Status(429, vec![]),
        Fault::Status(206, vec![]),
        Fault::Redirect("http://127.0.0.1:1/x".to_owned()),
        Fault::Garbage,
        Fault::EndlessHead,
        Fault::EndlessBody,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_one_server_is_made_good_by_another() {
    let mut running = tokio::task::JoinSet::new();
    for length in [20_000, 900_000] {
        for fault in all_faults() {
            running.spawn(async move {
                let (bad, good) = (TestServer::start(), TestServer::start());
                let content = content(length, 1);
                let id = good.put_object(&content, Suffix::None, Compression::Zlib);
                bad.mirror(&good);
                bad.fail_all(fault.clone());
                let bench = bench(config(&format!("{};{}", bad.url(), good.url()), "DIRECT"));
                let object = object(&bench, &id, length as u64).await;
                let object = object.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
                assert!(read(&object) == content, "{fault:?}");
            });
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_of_the_only_server_ends_within_the_deadline() {
    let mut running = tokio::task::JoinSet::new();
    for fault in all_faults() {
        running.spawn(async move {
            let server = TestServer::start();
            let id = server.put_object(&content(200_000, 1), Suffix::None, Compression::Zlib);
            server.fail_all(fault.clone());
            let bench = direct(&server);
            let error = object(&bench, &id, 200_000).await.unwrap_err();
            assert_eq!(error.errno(), nix::errno::Errno::EIO, "{fault:?}: {error}");
            let small = Instant::now();
            let error = bench.fetcher.small(&id.url_path(), 1000, false).await;
            assert!(error.is_err() && small.elapsed() < LIMIT, "{fault:?} {error:?}");
            assert!(bench.fetcher.last_error().is_some());
            // It gets well by itself.
            server.fail_all(Fault::None);
            assert_eq!(object(&bench, &id, 200_000).await.unwrap().size(), 200_000);
            assert_eq!(bench.fetcher.trouble(), None);
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn odd_but_good_answers_are_good() {
    let server = TestServer::start();
    let bench = direct(&server);
    for (seed, fault) in
        [Fault::Chunked, Fault::UntilClose, Fault::CloseAfter, Fault::Chunked].iter().enumerate()
    {
        let content = content(400_000, seed as u64);
        let id = server.put_object(&content, Suffix::None, Compression::Zlib);
        server.fail(&id.url_path(), [fault.clone()]);
        assert!(read(&object(&bench, &id, 400_000).await.unwrap()) == content, "{fault:?}");
        assert_eq!(server.count(&id.url_path()), 1);
    }
    assert_eq!(sample(&bench.fetcher, "cvmfs_fetch_failed_attempts_total"), 0.0);
}

#[tokio::test]
async fn wrong_bytes_are_asked_for_again_past_the_caches() {
    let server = TestServer::start();
    let bench = direct(&server);
    let content = content(10_000, 1);
    let id = server.put_object(&content, Suffix::None, Compression::Zlib);
    server.fail(&id.url_path(), [Fault::FlipBit(77)]);
    assert!(read(&object(&bench, &id, 10_000).await.unwrap()) == content);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].header("cache-control"), None);
    assert_eq!(seen[1].header("cache-control"), Some("no-cache"));

    let id = server.put_object(b"other", Suffix::None, Compression::Zlib);
    server.put(&id.url_path(), "rubbish");
    let error = object(&bench, &id, 5).await.unwrap_err();
    assert!(matches!(error, FetchError::WrongHash { .. }), "{error}");
    assert_eq!(error.kind(), volume::FaultKind::Untrusted);
    assert_eq!(server.count(&id.url_path()), 2);
    assert!(bench.fetcher.cached(&id, None).is_none());
}

#[tokio::test]
async fn right_bytes_of_the_wrong_size_are_refused() {
    let server = TestServer::start();
    let bench = direct(&server);
    for length in [1000usize, 3_000_000] {
        let id = server.put_object(&content(length, 1), Suffix::None, Compression::Zlib);
        for wrong in [length as u64 - 1, length as u64 + 1] {
            let error = object(&bench, &id, wrong).await.unwrap_err();
            // A size that is much too small bounds the transfer, which then cannot be the right one.
            assert!(matches!(error, FetchError::WrongSize { .. }), "{length} {wrong} {error}");
        }
        assert_eq!(object(&bench, &id, length as u64).await.unwrap().size(), length as u64);
        let error = object(&bench, &id, 3).await.unwrap_err();
        assert!(matches!(error, FetchError::WrongSize { .. }));
        assert!(bench.fetcher.cached(&id, Some(3)).is_none());
    }
}

#[tokio::test]
async fn a_bomb_is_stopped_at_its_limit() {
    let server = TestServer::start();
    let mut config = config(&server.url(), "DIRECT");
    config.object_limit = 1 << 20;
    let bench = bench(config);
    let bomb = vec![0; 60 << 20];
    let id = server.put_object(&bomb, Suffix::Catalog, Compression::Zlib);
    let error = bench.fetcher.object(&id, Compression::Zlib, None).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge { limit: 1_048_576, .. }), "{error}");
    let error = bench.fetcher.object(&id, Compression::Zlib, Some(1 << 20)).await.unwrap_err();
    assert!(matches!(error, FetchError::WrongSize { .. }), "{error}");
    assert!(bench.fetcher.cache().usage() == 0);
}

#[tokio::test]
async fn streams_that_do_not_inflate_are_called_so() {
    let server = TestServer::start();
    let bench = direct(&server);
    let good = transferred(&content(5000, 1), Compression::Zlib);
    let trailing = [&good[..], b"x"].concat();
    for bytes in [&good[..good.len() - 1], &good[..1], b"", b"not zlib at all", &trailing] {
        let id = Algorithm::Sha1.digest(bytes).with_suffix(Suffix::None);
        server.put(&id.url_path(), bytes.to_vec());
        let error = object(&bench, &id, 5000).await.unwrap_err();
        assert!(matches!(error, FetchError::BadStream { .. }), "{error}");
        assert_eq!(server.count(&id.url_path()), 1, "no other server has better bytes");
    }
}

#[tokio::test]
async fn redirects_are_followed_only_when_allowed() {
    let server = TestServer::start();
    let id = server.put_object(b"moved", Suffix::None, Compression::Zlib);
    server.put("elsewhere", transferred(b"moved", Compression::Zlib));
    let to = |target: &str| server.fail(&id.url_path(), [Fault::Redirect(target.to_owned())]);
    to("/repo/elsewhere");
    let strict = direct(&server);
    assert!(matches!(object(&strict, &id, 5).await, Err(FetchError::Redirect { .. })));
    let mut config = config(&server.url(), "DIRECT");
    config.follow_redirects = true;
    let lenient = bench(config);
    to("/repo/elsewhere");
    assert_eq!(read(&object(&lenient, &id, 5).await.unwrap()), b"moved");
    let other = server.put_object(b"round", Suffix::None, Compression::Zlib);
    let circle = Fault::Redirect(format!("{}/{}", server.url(), other.url_path()));
    server.fail(&other.url_path(), vec![circle; 50]);
    assert!(matches!(object(&lenient, &other, 5).await, Err(FetchError::Redirect { .. })));
    assert_eq!(server.count(&other.url_path()), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_first_proxy_costs_little_and_the_policy_holds() {
    let hole = BlackHole::open();
    for dead in [hole.proxy(), refusing()] {
        let (origin, second) = (TestServer::start(), TestServer::start());
        let ids: Vec<ObjectId> =
            (0..100).map(|n| second.put_object(&content(3000, n), Suffix::None, Compression::Zlib)).collect();
        let bench = bench(config(&origin.url(), &format!("{dead};{}", second.proxy())));
        let mut times = Vec::new();
        for id in &ids {
            let began = Instant::now();
            object(&bench, id, 3000).await.unwrap();
            times.push(began.elapsed());
        }
        times.sort();
        assert!(times[99] < Duration::from_millis(400), "worst {:?}", times[99]);
        assert!(times[97] < Duration::from_millis(50), "98th percentile {:?}", times[97]);
        assert_eq!(origin.connections(), 0, "the server was asked without a proxy");
        assert!(second.seen().iter().all(|seen| seen.target.starts_with(&origin.url())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_goes_silent_under_load_costs_little() {
    let (origin, first, second) = (TestServer::start(), TestServer::start(), TestServer::start());
    let ids: Vec<ObjectId> =
        (0..400).map(|n| first.put_object(&content(3000, n), Suffix::None, Compression::Zlib)).collect();
    second.mirror(&first);
    let bench = bench(config(&origin.url(), &format!("{};{}", first.proxy(), second.proxy())));
    for id in &ids[..100] {
        object(&bench, id, 3000).await.unwrap();
    }
    assert_eq!(second.connections(), 0);
    first.fail_all(Fault::Hang);
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for id in &ids[100..] {
        let (id, fetcher) = (*id, Arc::clone(&bench.fetcher));
        running.spawn(async move { fetcher.object(&id, Compression::Zlib, Some(3000)).await.map(|_| ()) });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap().unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_proxys_own_error_is_not_the_servers() {
    let (origin, first, second) = (TestServer::start(), TestServer::start(), TestServer::start());
    let id = second.put_object(b"content", Suffix::None, Compression::Zlib);
    for header in [("X-Squid-Error", "ERR_CONNECT_FAIL 111"), ("Proxy-Status", "squid; error=dns_timeout")] {
        first.fail_all(Fault::Status(503, vec![header]));
        let proxies = format!("{};{}", first.proxy(), second.proxy());
        let bench = bench(config(&origin.url(), &proxies));
        assert_eq!(read(&object(&bench, &id, 7).await.unwrap()), b"content");
    }
    // Without the header it is the server's error, and there is no other server.
    first.fail_all(Fault::Status(503, vec![]));
    let mut config = config(&origin.url(), &format!("{};{}", first.proxy(), second.proxy()));
    config.max_retries = 0;
    let bench = bench(config);
    let error = object(&bench, &id, 7).await.unwrap_err();
    assert!(matches!(error, FetchError::Status { status: 503, .. }), "{error}");
}

#[tokio::test]
async fn a_busy_server_is_asked_again_after_a_pause() {
    let server = TestServer::start();
    let bench = direct(&server);
    let id = server.put_object(b"content", Suffix::None, Compression::Zlib);
    server.fail(&id.url_path(), [Fault::Status(429, vec![])]);
    let began = Instant::now();
    assert_eq!(read(&object(&bench, &id, 7).await.unwrap()), b"content");
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn slow_but_steady_is_waited_for_beyond_the_deadline() {
    let server = TestServer::start();
    let mut config = config(&server.url(), "DIRECT");
    config.deadline = Duration::from_millis(900);
    config.low_speed_limit = 20;
    let bench = bench(config);
    let content = content(1200, 1);
    let id = server.put_object(&content, Suffix::None, Compression::Zlib);
    server.fail(&id.url_path(), [Fault::Drip(Duration::from_millis(2))]);
    let began = Instant::now();
    let object = bench.fetcher.object(&id, Compression::Zlib, Some(1200)).await.unwrap();
    assert!(read(&object) == content);
    assert!(began.elapsed() > Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(server.count(&id.url_path()), 1);
}

#[tokio::test]
async fn what_failed_is_avoided_and_tried_again_after_its_time() {
    let (first, second) = (TestServer::start(), TestServer::start());
    let ids: Vec<ObjectId> =
        (0..20).map(|n| second.put_object(&content(100, n), Suffix::None, Compression::Zlib)).collect();
    first.mirror(&second);
    first.fail_all(Fault::Status(500, vec![]));
    let mut config = config(&format!("{};{}", first.url(), second.url()), "DIRECT");
    config.host_reset_after = Duration::from_millis(300);
    let bench = bench(config);
    for id in &ids[..10] {
        object(&bench, id, 100).await.unwrap();
    }
    assert!(first.seen().len() <= 2, "{}", first.seen().len());
    first.fail_all(Fault::None);
    tokio::time::sleep(Duration::from_millis(350)).await;
    for id in &ids[10..] {
        object(&bench, id, 100).await.unwrap();
    }
    assert!(first.seen().len() >= 10, "{}", first.seen().len());
    assert_eq!(sample(&bench.fetcher, "cvmfs_fetch_errors_total"), 0.0);
}

#[tokio::test]
async fn one_server_without_an_object_stays_in_use_when_none_has_it() {
    let (first, second) = (TestServer::start(), TestServer::start());
    let missing = Algorithm::Sha1.digest(b"nobody has it").with_suffix(Suffix::None);
    let there = first.put_object(b"content", Suffix::None, Compression::Zlib);
    second.mirror(&first);
    let bench = bench(config(&format!("{};{}", first.url(), second.url()), "DIRECT"));
    let began = Instant::now();
    let error = object(&bench, &missing, 13).await.unwrap_err();
    assert!(matches!(error, FetchError::NotFound { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(1), "all have answered; a pause helps nobody");
    object(&bench, &there, 7).await.unwrap();
    assert_eq!((first.count(&there.url_path()), second.count(&there.url_path())), (1, 0));
}

#[tokio::test]
async fn unreachable_servers_are_shown_as_trouble() {
    let bench = bench(config(&format!("{}/repo", refusing()), "DIRECT"));
    assert_eq!(bench.fetcher.trouble(), None);
    for _ in 0..2 {
        bench.fetcher.small("x", 10, false).await.unwrap_err();
    }
    let trouble = bench.fetcher.trouble().unwrap();
    assert!(trouble.starts_with("no server or proxy answers well since 20"), "{trouble}");
}

/// One fault of the ordinary and quick kinds.
fn quick_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => Just(Fault::Reset),
        1 => (0..40_000usize).prop_map(Fault::ResetAfter),
        1 => (0..40_000usize).prop_map(Fault::TruncateAfter),
        2 => any::<usize>().prop_map(Fault::FlipBit),
        1 => (1..5usize).prop_map(Fault::Trailing),
        1 => (1..50usize).prop_map(Fault::ShortLength),
        1 => Just(Fault::Hang),
        1 => (0..300u64).prop_map(|pause| Fault::Slow(Duration::from_millis(pause))),
        1 => prop_oneof![Just(400), Just(403), Just(404), Just(429), Just(500), Just(503)]
            .prop_map(|status| Fault::Status(status, vec![])),
        1 => Just(Fault::Status(502, vec![("X-Squid-Error", "ERR_READ_TIMEOUT 0")])),
        1 => Just(Fault::Chunked),
        1 => Just(Fault::UntilClose),
        1 => Just(Fault::CloseAfter),
        1 => Just(Fault::Garbage),
    ]
}

/// An object's size and what goes wrong with the requests for it, at each of two proxies.
type Story = (usize, Vec<Fault>, Vec<Fault>);

fn story() -> impl Strategy<Value = Story> {
    use proptest::collection::vec;
    (1..600_000usize, vec(quick_fault(), 0..4), vec(quick_fault(), 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 50, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_of_faults_gives_wrong_bytes_or_lasts(stories in proptest::collection::vec(story(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (origin, first, second) = (TestServer::start(), TestServer::start(), TestServer::start());
        let mut config = config(&origin.url(), &format!("{}|{}", first.proxy(), second.proxy()));
        config.origin.timeout = Duration::from_millis(500);
        config.deadline = Duration::from_secs(2);
        let bench = bench(config);
        let objects: Vec<(ObjectId, Vec<u8>)> = stories
            .iter()
            .enumerate()
            .map(|(number, (length, at_first, at_second))| {
                let content = content(*length, number as u64);
                let id = first.put_object(&content, Suffix::None, Compression::Zlib);
                first.fail(&id.url_path(), at_first.clone());
                second.fail(&id.url_path(), at_second.clone());
                (id, content)
            })
            .collect();
        second.mirror(&first);
        let results = runtime.block_on(async {
            let mut running = tokio::task::JoinSet::new();
            for (number, (id, content)) in objects.iter().enumerate() {
                let (fetcher, id, size) = (Arc::clone(&bench.fetcher), *id, content.len() as u64);
                running.spawn(async move {
                    let began = Instant::now();
                    let result = fetcher.object(&id, Compression::Zlib, Some(size)).await;
                    (number, began.elapsed(), result)
                });
            }
            running.join_all().await
        });
        for (number, took, result) in results {
            prop_assert!(took < Duration::from_millis(3500), "{took:?} {result:?}");
            if let Ok(object) = result {
                prop_assert!(read(&object) == objects[number].1);
            }
        }
        prop_assert_eq!(origin.connections(), 0);
        // When the trouble is over, everything comes.
        for (id, content) in &objects {
            for server in [&first, &second] {
                server.fail(&id.url_path(), []);
            }
            let object = runtime.block_on(bench.fetcher.object(id, Compression::Zlib, Some(content.len() as u64)));
            prop_assert!(read(&object.unwrap()) == *content);
        }
    }
}
