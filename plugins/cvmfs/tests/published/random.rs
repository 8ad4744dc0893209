//! Random trees with random histories: a live mount follows every revision, and shows every older one by its tag.

use std::fs;
use std::time::{Duration, Instant};

use cvmfs::client::hash::{Algorithm, Compression};
use cvmfs::publish::forge::test_keys;
use cvmfs::publish::{Chunking, CreateOptions, Nesting, NewTag, PublishOptions, Publisher};
use fixtures::View;
use fixtures::edits::{apply, edit};
use proptest::prelude::*;
use volume::Revision;

use crate::can_mount;
use crate::cycle::{FQRN, PATIENCE, differing, mount};
use crate::harness::server;
use crate::reader::view;

/// How long the kernel may be told of changes after a refresh.
const TOLD: Duration = Duration::from_secs(3);

/// Takes over what a catalog cannot say (names of a file in other catalogs) and what clients replace (variables in targets).
fn allow_for(expected: &View, seen: &View) -> View {
    let mut expected = expected.clone();
    for one in &mut expected.seen {
        let Some(other) = seen.find(&one.entry.path) else { continue };
        let entry = &mut one.entry;
        if entry.sha256.is_some() && other.entry.nlink <= entry.nlink {
            entry.nlink = other.entry.nlink;
        }
        if entry.target.as_ref().is_some_and(|target| target.windows(2).any(|pair| pair == b"$(")) {
            entry.target.clone_from(&other.entry.target);
            entry.size = other.entry.size;
        }
    }
    expected
}

/// Differences that count, but for grouping by inode, which depends on catalogs.
fn unlike(seen: &View, tree: &View) -> Vec<String> {
    differing(seen, &allow_for(tree, seen))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_live_mount_follows_every_revision(
        history in proptest::collection::vec(proptest::collection::vec(edit(), 5..40), 2..5),
        algorithm in prop_oneof![Just(Algorithm::Sha1), Just(Algorithm::Rmd160), Just(Algorithm::Shake128)],
        compression in prop_oneof![Just(Compression::Zlib), Just(Compression::None)],
        max_entries in prop_oneof![Just(None), (2..20_usize).prop_map(Some)],
    ) {
        if !can_mount() {
            return Ok(());
        }
        let site = tempfile::tempdir().unwrap();
        let (tree, key) = (site.path().join("tree"), site.path().join("key.pub"));
        fs::create_dir(&tree).unwrap();
        fs::write(&key, test_keys().public_key_pem()).unwrap();
        let create = CreateOptions { algorithm, ..CreateOptions::new(FQRN) };
        let repository = site.path().join("www").join(FQRN);
        let publisher = Publisher::create(&repository, test_keys(), &create).unwrap();
        let server = server(&site.path().join("www"));
        let mounted = mount(&server.url(FQRN), site.path(), &key, Revision::Trunk);
        let mut revisions = Vec::new();
        for (step, edits) in history.iter().enumerate() {
            for edit in edits {
                apply(edit, &tree);
            }
            let options = PublishOptions {
                compression,
                chunking: Some(Chunking { threshold: 8 << 10, min: 2 << 10, average: 4 << 10, max: 8 << 10 }),
                nesting: Nesting { max_entries, min_entries: 2, ..Nesting::default() },
                tag: Some(NewTag { name: format!("v{step}"), description: String::new() }),
                ..PublishOptions::default()
            };
            publisher.publish(&tree, &options, &()).unwrap();
            let now = view(&tree, PATIENCE);
            mounted.serving.refresh().unwrap();
            // The kernel is told of changes after the refresh has returned.
            let begun = Instant::now();
            loop {
                let lines = unlike(&view(mounted.path(), PATIENCE), &now);
                if lines.is_empty() {
                    break;
                }
                prop_assert!(begun.elapsed() < TOLD, "revision {} after {:?}: {}", step, TOLD, lines.join("\n"));
            }
            revisions.push(now);
        }
        drop(mounted);
        for (step, tree) in revisions.iter().enumerate() {
            let mounted = mount(&server.url(FQRN), site.path(), &key, Revision::Tag(format!("v{step}")));
            let lines = unlike(&view(mounted.path(), PATIENCE), tree);
            prop_assert!(lines.is_empty(), "v{}: {}", step, lines.join("\n"));
        }
    }
}
