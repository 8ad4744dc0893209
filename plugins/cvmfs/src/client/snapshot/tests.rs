//! Every good repository against what the real client shows of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fixtures::Kind as Shown;

use super::*;
use crate::client::catalog::fixture_source::{self, FixtureSource};
use crate::client::catalog::{Dirent, Kind};
use crate::client::{symlink, xattr};

/// Values of the parameters that the listings were made with.
fn parameter(name: &[u8]) -> Option<Vec<u8>> {
    match name {
        b"CVMFS_TEST_VAR" => Some(b"testvalue".to_vec()),
        b"CVMFS_ARCH" => Some(b"x86_64".to_vec()),
        _ => None,
    }
}

/// What our client would show of an entry, in the listing's form.
fn shown(path: &[u8], dirent: &Dirent) -> fixtures::Entry {
    let target = match &dirent.kind {
        Kind::Symlink(target) => Some(symlink::expand(target, parameter).into_owned()),
        _ => None,
    };
    let kind = match &dirent.kind {
        Kind::Regular(_) => Shown::File,
        Kind::Directory { .. } => Shown::Dir,
        Kind::Symlink(_) => Shown::Symlink,
        Kind::Fifo => Shown::Fifo,
        Kind::Socket => Shown::Socket,
        Kind::CharDevice(_) => Shown::CharDev,
        Kind::BlockDevice(_) => Shown::BlockDev,
    };
    let rdev = match dirent.kind {
        Kind::CharDevice(number) | Kind::BlockDevice(number) => Some((number >> 8 & 0xfff, number & 0xff)),
        _ => None,
    };
    let size = match (&dirent.kind, &target) {
        (Kind::Regular(content), _) => Some(content.size),
        (_, Some(target)) => Some(target.len() as u64),
        _ => None,
    };
    let xattrs = xattr::parse(dirent.xattrs.as_deref().unwrap_or_default());
    fixtures::Entry {
        path: path.to_vec(),
        kind,
        // A symlink's permissions are always shown open.
        mode: u32::from(dirent.permissions),
        nlink: u64::from(dirent.links),
        uid: dirent.uid,
        gid: dirent.gid,
        mtime_ns: dirent.mtime.seconds * 1_000_000_000 + i64::from(dirent.mtime.nanos),
        size,
        sha256: None,
        target,
        rdev,
        xattrs: xattrs
            .into_iter()
            .map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.to_vec()))
            .collect(),
        read_error: None,
    }
}

/// Walks everything below `top`; each entry was listed, looked up, and found again by its reference alone.
pub(crate) async fn tree(snapshot: &Snapshot, top: &[u8]) -> BTreeMap<Vec<u8>, Located> {
    let catalogs = snapshot.catalogs();
    let mut found = BTreeMap::new();
    found.insert(top.to_vec(), snapshot.directory(top).await.unwrap().unwrap());
    let mut directories = vec![top.to_vec()];
    while let Some(directory) = directories.pop() {
        let at = snapshot.directory(&directory).await.unwrap().unwrap().catalog;
        let mut cookie = 0;
        loop {
            // A small number of rows, so that every listing is resumed.
            let rows = catalogs.list(&at, &directory, cookie, 7).await.unwrap();
            for row in &rows {
                assert!(row.cookie > cookie);
                cookie = row.cookie;
                let listed = row.entry.as_ref().unwrap();
                let path = [&directory, &b"/"[..], &listed.name].concat();
                let looked_up = snapshot.lookup(&path).await.unwrap().unwrap();
                assert_eq!(looked_up.dirent.name, listed.name);
                let again = catalogs.entry(&looked_up.catalog, &path).await.unwrap().unwrap();
                assert_eq!(again, looked_up.dirent);
                if matches!(listed.kind, Kind::Directory { .. }) {
                    directories.push(path.clone());
                }
                assert!(found.insert(path, looked_up).is_none(), "listed twice");
            }
            if rows.len() < 7 {
                break;
            }
        }
    }
    found
}

async fn compare(snapshot: &Snapshot, top: &[u8], listing: &str) {
    let ours = tree(snapshot, top).await;
    let mut theirs: BTreeMap<_, _> = fixtures::listing(listing)
        .unwrap()
        .into_iter()
        .map(|mut entry| {
            // Contents are not the catalog's.
            entry.sha256 = None;
            entry.read_error = None;
            (entry.path.clone(), entry)
        })
        .collect();
    for (path, located) in &ours {
        let below = &path[top.len()..];
        let want = theirs.remove(below).unwrap_or_else(|| panic!("{listing}: {path:?} is ours alone"));
        assert_eq!(shown(below, &located.dirent), want, "{listing}");
    }
    assert!(theirs.is_empty(), "{listing}: missing {theirs:?}");
}

#[tokio::test]
async fn every_repository_shows_what_the_real_client_shows() {
    for fqrn in fixtures::GOOD {
        let (_, snapshot) = fixture_source::newest(fqrn);
        compare(&snapshot, b"", fqrn).await;
    }
}

#[tokio::test]
async fn every_tag_shows_what_the_real_client_shows() {
    for (tag, root) in [
        ("base", "eeb50f50fe2f744769ec0adf8ab592c9a9e5a9ce"),
        ("v1.0", "8525f62af77aa17c07cdc582d2a72e559dc99780"),
        ("v2.0", "57e67cdb948c9a41b7d7d4c624dd431d4d6a8eab"),
        ("v3.0", "fb3d7594bc95a5a0f99265dd9e3625ecc64988d1"),
    ] {
        let snapshot = fixture_source::at(&FixtureSource::of("test.cern.ch"), root.parse().unwrap());
        compare(&snapshot, b"", &format!("test.cern.ch@{tag}")).await;
    }
}

#[tokio::test]
async fn hidden_snapshots_are_reachable_and_not_listed() {
    let (_, snapshot) = fixture_source::newest("snap.cern.ch");
    assert!(snapshot.lookup(b"/.cvmfs").await.unwrap().unwrap().dirent.hidden);
    compare(&snapshot, b"/.cvmfs/snapshots", "snap.cern.ch@.cvmfs.snapshots").await;
    // Found again by what a state file would hold, in another process.
    let path = b"/.cvmfs/snapshots/snap-2/sub/n1";
    let located = snapshot.lookup(path).await.unwrap().unwrap();
    let (_, other) = fixture_source::newest("snap.cern.ch");
    assert_eq!(other.catalogs().entry(&located.catalog, path).await.unwrap(), Some(located.dirent));
}

#[tokio::test]
async fn a_nested_catalog_is_fetched_when_something_in_it_is_asked_for() {
    let (source, snapshot) = fixture_source::newest("test.cern.ch");
    let fetches = || source.fetches.load(Ordering::Relaxed);
    assert!(matches!(snapshot.try_lookup(b"/nested/a"), Ok(Tried::NeedsCatalog(_))));
    assert_eq!(fetches(), 0);
    let mountpoint = snapshot.lookup(b"/nested/a").await.unwrap().unwrap();
    assert_eq!((fetches(), &*mountpoint.catalog), (1, snapshot.root()));
    assert_eq!(snapshot.lookup(b"/nested/a/nothing").await.unwrap(), None);
    assert_eq!(fetches(), 2);
    let Ok(Tried::Ready(Some(mountpoint))) = snapshot.try_lookup(b"/nested/a") else { panic!() };
    assert_eq!(mountpoint.catalog.mountpoint, b"/nested/a");
    assert!(matches!(snapshot.try_lookup(b"/nested/a/inner/x"), Ok(Tried::NeedsCatalog(_))));
    assert!(matches!(snapshot.try_lookup(b"/nested/ab"), Ok(Tried::Ready(None))));
}

#[tokio::test]
async fn concurrent_lookups_of_a_new_catalog_agree() {
    let (_, snapshot) = fixture_source::newest("test.cern.ch");
    let snapshot = Arc::new(snapshot);
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let snapshot = Arc::clone(&snapshot);
            tokio::spawn(async move { snapshot.directory(b"/nested/a/inner/innermost").await })
        })
        .collect();
    for task in tasks {
        let found = task.await.unwrap().unwrap().unwrap();
        assert_eq!(found.catalog.mountpoint, b"/nested/a/inner/innermost");
    }
    assert_eq!(snapshot.mounted_count(), 4);
}

#[tokio::test]
async fn what_is_no_path_is_an_error_or_nothing() {
    let (_, snapshot) = fixture_source::newest("mini.cern.ch");
    for bad in [&b"/"[..], b"/a/", b"//a", b"/a/../b", b"a", b"/./a", b"/a\0b"] {
        assert!(matches!(snapshot.lookup(bad).await, Err(CatalogError::Path(_))), "{bad:?}");
    }
    assert_eq!(snapshot.lookup(&[&b"/"[..], &[b'a'; 5000]].concat()).await.unwrap(), None);
}

#[tokio::test]
async fn chunks_of_every_chunked_file_cover_it() {
    let (_, snapshot) = fixture_source::newest("test.cern.ch");
    let mut chunked = 0;
    for (path, located) in tree(&snapshot, b"").await {
        if let Kind::Regular(content) = &located.dirent.kind
            && content.chunked
        {
            chunked += 1;
            let chunks = snapshot.catalogs().chunks(&located.catalog, &path, content).await.unwrap();
            assert_eq!(chunks.iter().map(|chunk| chunk.size).sum::<u64>(), content.size);
        }
    }
    assert!(chunked > 3, "{chunked}");
}

#[tokio::test]
async fn what_was_wiped_from_the_cache_is_fetched_again() {
    let (source, snapshot) = fixture_source::newest("test.cern.ch");
    let show = |tree: BTreeMap<Vec<u8>, Located>| -> Vec<_> {
        tree.iter().map(|(path, located)| shown(path, &located.dirent)).collect()
    };
    let before = show(tree(&snapshot, b"").await);
    let fetches = source.fetches.load(Ordering::Relaxed);
    source.forget();
    let other = fixture_source::at(&source, snapshot.root().digest);
    assert_eq!(show(tree(&other, b"").await), before);
    assert_eq!(source.fetches.load(Ordering::Relaxed), 2 * fetches);
}
