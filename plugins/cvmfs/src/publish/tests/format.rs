//! Against the repositories that the reference tools wrote.

use super::checkout::object;
use super::*;
use crate::client::hash::{Compression, Suffix};
use crate::publish::counters::Counters;
use crate::publish::image::Image;
use crate::publish::signed::ManifestText;
use crate::publish::store::Store;
use crate::publish::{catalogs, database, history};

/// Published by the reference tools, with an intact root catalog of the newest schema.
const REFERENCE: [&str; 5] =
    ["test.cern.ch", "snap.cern.ch", "nocomp.cern.ch", "rmd160.cern.ch", "shake128.cern.ch"];

fn scratch() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path());
    store.make_directories().unwrap();
    (directory, store)
}

fn reference(fqrn: &str) -> (ManifestText, Vec<u8>) {
    let repository = fixtures::repository(fqrn);
    let manifest = ManifestText::parse(&std::fs::read(repository.join(".cvmfspublished")).unwrap()).unwrap();
    let root = object(&repository, manifest.root, Suffix::Catalog, Compression::Zlib);
    (manifest, root)
}

#[test]
fn tables_columns_and_indexes_are_those_of_the_reference_tools() {
    let (_directory, store) = scratch();
    for fqrn in REFERENCE {
        let (manifest, theirs) = reference(fqrn);
        let ours = database::write(&store, &Image::default()).unwrap();
        assert_eq!(database::layout(&store, &ours), database::layout(&store, &theirs), "{fqrn}");
        let repository = fixtures::repository(fqrn);
        let theirs = object(&repository, manifest.history.unwrap(), Suffix::History, Compression::Zlib);
        let ours = history::History::default().write(&store, fqrn, None).unwrap();
        assert_eq!(database::layout(&store, &ours), database::layout(&store, &theirs), "{fqrn} history");
    }
}

#[test]
fn statistics_are_counted_as_the_reference_tools_count() {
    let (_directory, store) = scratch();
    for fqrn in REFERENCE {
        let repository = fixtures::repository(fqrn);
        let (manifest, _) = reference(fqrn);
        let mut pending = vec![manifest.root];
        let mut seen = 0;
        while let Some(digest) = pending.pop() {
            let bytes = object(&repository, digest, Suffix::Catalog, Compression::Zlib);
            let image = database::read(&store, fqrn, &bytes).unwrap();
            let (own, _) = Counters::from_table(&image.statistics);
            assert_eq!(Counters::of(&image), own, "{fqrn} {digest}");
            let ours: Vec<String> =
                Counters::table(&own, &Counters::default()).into_iter().map(|(name, _)| name).collect();
            let theirs: Vec<&String> = image.statistics.iter().map(|(name, _)| name).collect();
            assert!(theirs.iter().all(|name| ours.contains(name)), "{theirs:?}");
            pending.extend(
                image
                    .nested
                    .iter()
                    .map(|nested| nested.digest.parse::<crate::client::hash::Digest>().unwrap()),
            );
            seen += 1;
        }
        assert!(seen > 1, "{fqrn}");
    }
}

#[test]
fn a_catalog_survives_being_read_and_written() {
    let (_directory, store) = scratch();
    let (_, theirs) = reference("test.cern.ch");
    let image = database::read(&store, "root", &theirs).unwrap();
    let (digest, size) = catalogs::put(&store, &image, crate::client::hash::Algorithm::Sha1).unwrap();
    let bytes = store.get(&digest.with_suffix(Suffix::Catalog), database::CATALOG_LIMIT).unwrap();
    assert_eq!(bytes.len() as u64, size);
    assert_eq!(database::read(&store, "root", &bytes).unwrap(), image);
}

#[test]
fn a_repository_of_the_reference_tools_can_be_read_back_whole() {
    // External data is not in the repository, so this one has none.
    for fqrn in ["mini.cern.ch", "nocomp.cern.ch", "rmd160.cern.ch", "shake128.cern.ch"] {
        let key = std::fs::read_to_string(fixtures::public_key(fqrn)).unwrap();
        let read = checkout::Checkout::read_with_key(&fixtures::repository(fqrn), &key);
        let listing = fixtures::listing(fqrn).unwrap();
        assert_eq!(read.nodes.len(), listing.len(), "{fqrn}");
        for entry in listing {
            let node = &read.nodes[&entry.path];
            assert_eq!(node.mode & 0o7777, entry.mode);
            assert_eq!(node.owner, (entry.uid, entry.gid));
            assert_eq!(node.links, entry.nlink);
        }
    }
}

#[test]
fn properties_are_those_of_the_reference_tools() {
    let names = |image: &Image| {
        let mut names: Vec<String> = image.properties.iter().map(|(key, _)| key.clone()).collect();
        names.sort();
        names
    };
    let (_directory, store) = scratch();
    let (_, theirs) = reference("snap.cern.ch");
    let theirs = database::read(&store, "root", &theirs).unwrap();
    let site = Site::new(&CreateOptions { volatile: true, ..CreateOptions::new("sw.example.org") });
    write(&site.tree().join("nested/.cvmfscatalog"), b"");
    site.publish(&PublishOptions::default());
    let ours = checkout::Checkout::read(&site.repository());
    assert_eq!(names(&ours.catalogs[&b""[..]]), names(&theirs));
    let nested = theirs.nested.iter().find(|nested| nested.path == b"/sub").unwrap();
    let repository = fixtures::repository("snap.cern.ch");
    let bytes = object(&repository, nested.digest.parse().unwrap(), Suffix::Catalog, Compression::Zlib);
    let theirs = database::read(&store, "nested", &bytes).unwrap();
    assert_eq!(names(&ours.catalogs[&b"/nested"[..]]), names(&theirs));
}
