//! Differences of random trees, and of the revisions of a real repository.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::client::catalog::Tried;
use crate::client::catalog::builder::{Node, Tree};
use crate::client::catalog::fixture_source::{self, FixtureSource};
use crate::client::snapshot::tests::tree;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn update(source: &Arc<FixtureSource>, old: &Tree, new: &Tree) -> Update {
    let (old, new) = (old.publish(source), new.publish(source));
    let old = Arc::new(fixture_source::at(source, old));
    let new = Snapshot::new(Arc::clone(old.catalogs()), CatalogRef::root(new, None), 2);
    Update { old, new: Arc::new(new) }
}

async fn changes(update: &Update) -> BTreeMap<Vec<u8>, What> {
    let mut found = BTreeMap::new();
    let mut sink = |change: Change| {
        let path = if change.name.is_empty() {
            change.parent
        } else {
            [change.parent, b"/".to_vec(), change.name].concat()
        };
        if let Some(before) = found.insert(path, change.what) {
            assert_eq!(before, change.what, "told twice and differently");
        }
    };
    update.changes(&[], &mut sink).await.unwrap();
    found
}

/// What differs between two trees, by looking at them.
fn difference(old: &Tree, new: &Tree) -> BTreeMap<Vec<u8>, What> {
    let paths: BTreeSet<_> = old.nodes.keys().chain(new.nodes.keys()).cloned().collect();
    let what = |path: &Vec<u8>| match (old.nodes.get(path), new.nodes.get(path)) {
        (Some(_), None) => Some(What::Removed),
        (None, Some(_)) => Some(What::Added),
        (Some((one, _)), Some((other, _))) if one != other => Some(What::Content),
        (Some((_, one)), Some((_, other))) if one != other => Some(What::Attributes),
        _ => None,
    };
    paths.into_iter().filter_map(|path| what(&path).map(|what| (path, what))).collect()
}

fn node() -> impl Strategy<Value = Node> {
    prop_oneof![
        4 => Just(Node::Directory),
        3 => (0..3_u8).prop_map(Node::File),
        1 => (0..2_u8).prop_map(Node::Link),
        1 => prop::collection::vec(1..3_u8, 1..4).prop_map(Node::Chunked),
    ]
}

/// Paths of a small alphabet, so that two trees have much in common.
fn any_tree() -> impl Strategy<Value = Tree> {
    let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..5);
    let entry = (path.clone(), node(), 0..2_i64);
    (prop::collection::vec(entry, 0..24), prop::collection::vec(path, 0..6)).prop_map(|(entries, nested)| {
        let mut tree = Tree::default();
        tree.nodes.insert(Vec::new(), (Node::Directory, 0));
        let joined =
            |names: &[&str]| names.iter().flat_map(|name| ["/", name]).collect::<String>().into_bytes();
        for (names, node, mtime) in entries {
            for depth in 1..names.len() {
                let above = tree.nodes.entry(joined(&names[..depth])).or_insert((Node::Directory, 0));
                if above.0 != Node::Directory {
                    above.0 = Node::Directory;
                }
            }
            let path = joined(&names);
            let is_parent =
                tree.nodes.keys().any(|other| other.len() > path.len() && other.starts_with(&path));
            if !is_parent {
                tree.nodes.insert(path, (node, mtime));
            }
        }
        for names in nested {
            // Any directory above may hold one too.
            tree.nested.insert(joined(&names));
        }
        tree
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn with_all_loaded_the_changes_are_the_difference(old in any_tree(), new in any_tree()) {
        runtime().block_on(async {
            let source = Arc::new(FixtureSource::default());
            let update = update(&source, &old, &new);
            let walked: Vec<_> = tree(&update.old, b"").await.into_keys().collect();
            prop_assert!(walked.iter().eq(old.nodes.keys()));
            prop_assert_eq!(changes(&update).await, difference(&old, &new));
            let walked: Vec<_> = tree(&update.new, b"").await.into_keys().collect();
            prop_assert!(walked.iter().eq(new.nodes.keys()));
            Ok(())
        })?;
    }

    #[test]
    fn who_looks_at_the_new_revision_first_does_not_spoil_it(old in any_tree(), new in any_tree()) {
        runtime().block_on(async {
            let source = Arc::new(FixtureSource::default());
            let update = update(&source, &old, &new);
            tree(&update.old, b"").await;
            let mut found = BTreeSet::new();
            let mut sink = |change: Change| {
                let slash = if change.name.is_empty() { &b""[..] } else { b"/" };
                found.insert([&change.parent, slash, &change.name].concat());
            };
            update.changes(&[update.new.root().clone()], &mut sink).await.unwrap();
            prop_assert!(difference(&old, &new).keys().all(|path| found.contains(path)));
            let walked: Vec<_> = tree(&update.new, b"").await.into_keys().collect();
            prop_assert!(walked.iter().eq(new.nodes.keys()));
            Ok(())
        })?;
    }

    #[test]
    fn with_some_loaded_nothing_that_was_known_is_missed(
        old in any_tree(),
        new in any_tree(),
        visits in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        runtime().block_on(async {
            let source = Arc::new(FixtureSource::default());
            let update = update(&source, &old, &new);
            let paths: Vec<_> = old.nodes.keys().cloned().collect();
            for visit in visits {
                let path: &Vec<u8> = visit.get(&paths);
                update.old.lookup(path).await.unwrap();
            }
            let mut known = BTreeSet::new();
            for path in old.nodes.keys().chain(new.nodes.keys()) {
                if update.old.known(path).await.unwrap() != Known::Unknown {
                    known.insert(path.clone());
                }
            }
            let mounted: Vec<_> = old.nested.iter().filter(|path| update.old.mounted_at(path).is_some()).collect();
            let found = changes(&update).await;
            let all = difference(&old, &new);
            for (path, what) in &found {
                prop_assert_eq!(all.get(path), Some(what), "{:?}", path);
            }
            for (path, what) in &all {
                prop_assert!(found.get(path) == Some(what) || !known.contains(path), "{:?} missed", path);
            }
            for mountpoint in mounted {
                prop_assert!(!new.is_mountpoint(mountpoint) || update.new.mounted_at(mountpoint).is_some());
            }
            Ok(())
        })?;
    }
}

#[test]
fn revisions_of_a_real_repository_differ_as_their_listings_do() {
    runtime().block_on(async {
        let source = FixtureSource::of("test.cern.ch");
        let roots = [
            ("base", "eeb50f50fe2f744769ec0adf8ab592c9a9e5a9ce"),
            ("v1.0", "8525f62af77aa17c07cdc582d2a72e559dc99780"),
            ("v2.0", "57e67cdb948c9a41b7d7d4c624dd431d4d6a8eab"),
            ("v3.0", "fb3d7594bc95a5a0f99265dd9e3625ecc64988d1"),
        ];
        for pair in roots.windows(2) {
            let [(old_tag, old), (new_tag, new)] = pair else { panic!() };
            let old = Arc::new(fixture_source::at(&source, old.parse().unwrap()));
            let new_root = CatalogRef::root(new.parse().unwrap(), None);
            let new = Arc::new(Snapshot::new(Arc::clone(old.catalogs()), new_root, 2));
            tree(&old, b"").await;
            let found = changes(&Update { old, new }).await;
            let listing = |tag: &str| -> BTreeMap<_, _> {
                let listing = fixtures::listing(&format!("test.cern.ch@{tag}")).unwrap();
                listing.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
            };
            let (before, after) = (listing(old_tag), listing(new_tag));
            let differing = |path: &&Vec<u8>| before.get(*path) != after.get(*path);
            let want: BTreeSet<_> = before.keys().chain(after.keys()).filter(differing).collect();
            assert_eq!(found.keys().collect::<BTreeSet<_>>(), want, "{old_tag} to {new_tag}");
            for (path, what) in found {
                match what {
                    What::Removed => assert!(!after.contains_key(&path)),
                    What::Added => assert!(!before.contains_key(&path)),
                    What::Attributes => assert_eq!(before[&path].sha256, after[&path].sha256),
                    What::Content => {}
                }
            }
        }
    });
}

#[test]
fn catalogs_that_nobody_saw_are_not_fetched() {
    runtime().block_on(async {
        let source = FixtureSource::of("test.cern.ch");
        let old = fixture_source::at(&source, "eeb50f50fe2f744769ec0adf8ab592c9a9e5a9ce".parse().unwrap());
        let old = Arc::new(old);
        old.lookup(b"/README").await.unwrap();
        let root = CatalogRef::root("8525f62af77aa17c07cdc582d2a72e559dc99780".parse().unwrap(), None);
        let new = Arc::new(Snapshot::new(Arc::clone(old.catalogs()), root, 2));
        let update = Update { old, new };
        changes(&update).await;
        // The two roots, and what is mounted in the new one alone (its rows may have been rows of the old root).
        let fetches = source.fetches.load(std::sync::atomic::Ordering::Relaxed);
        assert!(fetches <= 5, "{fetches}");
        assert_eq!(update.old.mounted_count(), 1);
    });
}

#[test]
fn what_an_earlier_process_knew_is_compared() {
    runtime().block_on(async {
        let source = FixtureSource::of("test.cern.ch");
        let base = "eeb50f50fe2f744769ec0adf8ab592c9a9e5a9ce".parse().unwrap();
        let newest = CatalogRef::root("fb3d7594bc95a5a0f99265dd9e3625ecc64988d1".parse().unwrap(), None);
        let earlier = fixture_source::at(&source, base);
        let known: Vec<_> =
            tree(&earlier, b"").await.into_values().map(|found| (*found.catalog).clone()).collect();
        let run = async |old: Snapshot, known: &[CatalogRef]| {
            let old = Arc::new(old);
            let new = Arc::new(Snapshot::new(Arc::clone(old.catalogs()), newest.clone(), 2));
            let mut found = BTreeSet::new();
            Update { old, new }
                .changes(known, &mut |change| {
                    found.insert(change);
                })
                .await
                .unwrap();
            found
        };
        let complete = run(earlier, &[]).await;
        assert_eq!(run(fixture_source::at(&source, base), &known).await, complete);
    });
}

#[test]
fn what_was_compared_once_is_not_told_again() {
    runtime().block_on(async {
        let source = Arc::new(FixtureSource::default());
        let tree = |first: u8, second: u8| {
            let mut tree = Tree::default();
            tree.nodes.insert(Vec::new(), (Node::Directory, 0));
            tree.nodes.insert(b"/first".to_vec(), (Node::File(first), 0));
            tree.nodes.insert(b"/second".to_vec(), (Node::File(second), 0));
            tree
        };
        let first = update(&source, &tree(1, 1), &tree(2, 1));
        let known = [first.old.root().clone()];
        let told = async |update: &Update| {
            let mut names = Vec::new();
            update.changes(&known, &mut |change: Change| names.push(change.name)).await.unwrap();
            names
        };
        assert_eq!(told(&first).await, [b"first"]);
        let root = CatalogRef::root(tree(2, 2).publish(&source), None);
        let third = Arc::new(Snapshot::new(Arc::clone(first.old.catalogs()), root, 3));
        assert_eq!(told(&Update { old: Arc::clone(&first.new), new: Arc::clone(&third) }).await, [b"second"]);
        // Another process cannot know how far this one got.
        let old = Arc::new(Snapshot::new(Arc::clone(third.catalogs()), first.new.root().clone(), 2));
        let mut names = told(&Update { old, new: third }).await;
        names.sort();
        names.dedup();
        assert_eq!(names, [&b"first"[..], b"second"]);
    });
}

#[test]
fn a_listing_of_the_old_revision_goes_on_during_an_update() {
    runtime().block_on(async {
        let (_, snapshot) = fixture_source::newest("test.cern.ch");
        let at = snapshot.directory(b"/software").await.unwrap().unwrap().catalog;
        let Ok(Tried::Ready(rows)) = snapshot.catalogs().try_list(&at, b"/software", 0, 1) else { panic!() };
        let rest = snapshot.catalogs().list(&at, b"/software", rows[0].cookie, 1000).await.unwrap();
        let all = snapshot.catalogs().list(&at, b"/software", 0, 1000).await.unwrap();
        assert_eq!([rows, rest].concat(), all);
    });
}
