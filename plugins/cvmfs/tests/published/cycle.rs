//! Tree, repository, server, mount: the tree comes out again, in every revision.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use cvmfs::client::hash::{Algorithm, Compression};
use cvmfs::publish::forge::test_keys;
use cvmfs::publish::{Chunking, CreateOptions, NewTag, PublishOptions, Publisher};
use fixtures::{View, differences};
use volume::Revision;

use crate::can_mount;
use crate::harness::{Mounted, Setup, server, wait_until};
use crate::reader::view;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const FQRN: &str = "published.example.org";

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 56) as u8
    };
    (0..length).map(|_| step(&mut state)).collect()
}

/// Something of everything.
fn sample(tree: &Path) {
    write(&tree.join("README"), b"hello");
    write(&tree.join("empty"), b"");
    write(&tree.join("data/whole"), &noise(1, 60_000));
    write(&tree.join("data/passthrough"), &noise(2, 300_000));
    write(&tree.join("data/chunked"), &noise(3, 3_000_000));
    write(&tree.join("data/zeros"), &vec![0; 2_000_000]);
    write(&tree.join("bin/tool"), b"#!/bin/sh\n");
    fs::set_permissions(tree.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("../README", tree.join("bin/readme")).unwrap();
    symlink("/nowhere/at/all", tree.join("dangling")).unwrap();
    write(&tree.join(std::ffi::OsStr::from_bytes(b"names/latin1-\xfc\xff")), b"odd");
    write(&tree.join("names/with space\n"), b"space");
    write(&tree.join("links/a"), b"linked");
    fs::hard_link(tree.join("links/a"), tree.join("links/b")).unwrap();
    fs::hard_link(tree.join("links/a"), tree.join("bin/c")).unwrap();
    nix::unistd::mkfifo(&tree.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    for version in ["1.0", "2.0"] {
        write(&tree.join(format!("software/gcc/{version}/.cvmfscatalog")), b"");
        write(&tree.join(format!("software/gcc/{version}/bin/gcc")), version.as_bytes());
    }
    write(&tree.join("software/gcc/2.0/inner/.cvmfscatalog"), b"");
    write(&tree.join("software/gcc/2.0/inner/deep/file"), b"deep");
    for number in 0..500 {
        write(&tree.join(format!("many/file-{number:03}")), format!("{number}").as_bytes());
    }
    std::os::unix::fs::chown(tree.join("data"), Some(1234), Some(567)).unwrap();
    let noted = tree.join("README");
    // Not every file system that holds temporary files has attributes.
    let _ = rustix::fs::setxattr(&noted, "user.note", b"\x00\xff", rustix::fs::XattrFlags::empty());
}

pub(crate) fn mount(url: &str, cache: &Path, keys: &Path, revision: Revision) -> Mounted {
    let parameters = vec![
        ("CVMFS_SERVER_URL".to_owned(), url.to_owned()),
        ("CVMFS_CLAIM_OWNERSHIP".to_owned(), "no".to_owned()),
        ("CVMFS_MAGIC_XATTRS_VISIBILITY".to_owned(), "never".to_owned()),
    ];
    let setup = Setup {
        repository: FQRN.to_owned(),
        revision,
        parameters,
        key: keys.to_owned(),
        cache: cache.join("cache"),
        deadline: Duration::from_secs(10),
    };
    setup.mount().unwrap()
}

/// What differs; of inode numbers only the grouping counts.
pub(crate) fn differing(seen: &View, tree: &View) -> Vec<String> {
    let mut lines = differences(tree.entries(), seen.entries());
    lines.extend(
        seen.broken.iter().map(|(path, errno)| format!("{}: errno {errno}", String::from_utf8_lossy(path))),
    );
    lines
}

fn assert_same(seen: &View, tree: &View) {
    let lines = differing(seen, tree);
    assert!(lines.is_empty(), "{} differences:\n{}", lines.len(), lines.join("\n"));
    let group = |view: &View, path: &[u8]| -> Vec<Vec<u8>> {
        let inode = view.find(path).unwrap().inode;
        view.seen.iter().filter(|seen| seen.inode == inode).map(|seen| seen.entry.path.clone()).collect()
    };
    for entry in tree.entries().filter(|entry| entry.nlink > 1 && entry.size.is_some()) {
        assert_eq!(group(seen, &entry.path), group(tree, &entry.path));
    }
}

#[test]
fn every_algorithm_and_compression_mounts_as_the_tree_it_was() {
    if !can_mount() {
        return;
    }
    for (algorithm, compression) in [
        (Algorithm::Sha1, Compression::Zlib),
        (Algorithm::Rmd160, Compression::None),
        (Algorithm::Shake128, Compression::Zlib),
    ] {
        let site = tempfile::tempdir().unwrap();
        let (tree, key) = (site.path().join("tree"), site.path().join("key.pub"));
        let repository = site.path().join("www").join(FQRN);
        fs::create_dir(&tree).unwrap();
        sample(&tree);
        fs::write(&key, test_keys().public_key_pem()).unwrap();
        let create = CreateOptions { algorithm, ..CreateOptions::new(FQRN) };
        let publisher = Publisher::create(&repository, test_keys(), &create).unwrap();
        let chunking = Chunking { threshold: 1 << 20, min: 64 << 10, average: 128 << 10, max: 256 << 10 };
        let options = PublishOptions { compression, chunking: Some(chunking), ..PublishOptions::default() };
        publisher.publish(&tree, &options, &()).unwrap();
        let server = server(&site.path().join("www"));
        let mounted = mount(&server.url(FQRN), site.path(), &key, Revision::Trunk);
        assert_same(&view(mounted.path(), PATIENCE), &view(&tree, PATIENCE));
    }
}

#[test]
fn revisions_follow_each_other_in_a_live_mount_and_stay_reachable_by_tag() {
    if !can_mount() {
        return;
    }
    let site = tempfile::tempdir().unwrap();
    let (tree, key) = (site.path().join("tree"), site.path().join("key.pub"));
    let repository = site.path().join("www").join(FQRN);
    fs::create_dir(&tree).unwrap();
    sample(&tree);
    fs::write(&key, test_keys().public_key_pem()).unwrap();
    let publisher = Publisher::create(&repository, test_keys(), &CreateOptions::new(FQRN)).unwrap();
    let publish = |name: &str| {
        let tag = NewTag { name: name.to_owned(), description: String::new() };
        let options = PublishOptions { tag: Some(tag), ..PublishOptions::default() };
        publisher.publish(&tree, &options, &()).unwrap()
    };
    publish("v1");
    let first = view(&tree, PATIENCE);
    let server = server(&site.path().join("www"));
    let mounted = mount(&server.url(FQRN), site.path(), &key, Revision::Trunk);
    assert_same(&view(mounted.path(), PATIENCE), &first);

    write(&tree.join("README"), b"changed");
    write(&tree.join("software/gcc/2.0/inner/deep/file"), b"other");
    write(&tree.join("software/gcc/3.0/new"), b"new");
    fs::remove_dir_all(tree.join("software/gcc/1.0")).unwrap();
    fs::remove_file(tree.join("data/chunked")).unwrap();
    fs::create_dir(tree.join("data/chunked")).unwrap();
    write(&tree.join("data/whole"), &noise(9, 2_000_000));
    fs::set_permissions(tree.join("bin/tool"), fs::Permissions::from_mode(0o700)).unwrap();
    publish("v2");
    mounted.serving.refresh().unwrap();
    // The kernel is told of changes after the refresh has returned.
    let second = view(&tree, PATIENCE);
    wait_until("the mount shows the new revision", || {
        differing(&view(mounted.path(), PATIENCE), &second).is_empty()
    });
    assert_same(&view(mounted.path(), PATIENCE), &second);

    let old = mount(&server.url(FQRN), site.path(), &key, Revision::Tag("v1".to_owned()));
    assert_same(&view(old.path(), PATIENCE), &first);
}
