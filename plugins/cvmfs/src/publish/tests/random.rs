//! Random trees with random histories: every revision that is published is the tree as it was then.

use fixtures::edits::{apply, edit};
use proptest::prelude::*;

use super::*;
use crate::client::hash::{Algorithm, Compression};
use crate::publish::{Chunking, Detection};

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_revision_is_the_tree_as_it_was(
        history in proptest::collection::vec(proptest::collection::vec(edit(), 1..25), 1..5),
        algorithm in prop_oneof![Just(Algorithm::Sha1), Just(Algorithm::Rmd160), Just(Algorithm::Shake128)],
        compression in prop_oneof![Just(Compression::Zlib), Just(Compression::None)],
        max_entries in prop_oneof![Just(None), (2..20_usize).prop_map(Some)],
        times in any::<bool>(),
    ) {
        let site = Site::new(&CreateOptions { algorithm, ..CreateOptions::new("random.example.org") });
        let options = PublishOptions {
            compression,
            chunking: Some(Chunking { threshold: 8 << 10, min: 2 << 10, average: 4 << 10, max: 8 << 10 }),
            nesting: Nesting { max_entries, min_entries: 2, ..Nesting::default() },
            detection: if times { Detection::Times } else { Detection::Content },
            ..PublishOptions::default()
        };
        let mut revisions = Vec::new();
        for (step, edits) in history.iter().enumerate() {
            for edit in edits {
                apply(edit, &site.tree());
            }
            let tag = crate::publish::NewTag { name: format!("v{step}"), description: String::new() };
            let options = PublishOptions { tag: Some(tag), ..options.clone() };
            site.publisher.publish(&site.tree(), &options, &()).unwrap();
            let read = checkout::Checkout::read(&site.repository());
            compare(&read, &site.tree());
            client::assert_same(&site.repository(), &read);
            revisions.push(read.nodes);
        }
        // And every older one is still there.
        for (step, nodes) in revisions.iter().enumerate() {
            site.publisher.roll_back(&format!("v{step}")).unwrap();
            prop_assert_eq!(&checkout::Checkout::read(&site.repository()).nodes, nodes);
        }
    }
}

/// Link counts are those within a catalog, so they may be smaller than the tree's.
fn compare(read: &checkout::Checkout, tree: &Path) {
    let mut expected = checkout::expected(tree);
    for (path, node) in &mut expected {
        if matches!(node.what, checkout::What::File(..)) {
            let links = read.nodes.get(path).map_or(node.links, |read| read.links);
            assert!(links <= node.links);
            node.links = links;
        }
    }
    for ((catalog, group), names) in &read.groups {
        let inodes: std::collections::BTreeSet<u64> = names
            .iter()
            .map(|name| {
                use std::os::unix::ffi::OsStrExt as _;
                use std::os::unix::fs::MetadataExt as _;
                tree.join(std::ffi::OsStr::from_bytes(&name[1..])).symlink_metadata().unwrap().ino()
            })
            .collect();
        assert_eq!(inodes.len(), 1, "group {group} of {catalog:?}");
        assert!(names.iter().all(|name| read.nodes[name].links == names.len() as u64));
    }
    checkout::assert_same(read, &expected);
}
