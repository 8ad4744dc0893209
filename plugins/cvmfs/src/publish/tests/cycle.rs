//! Publishing again and again.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::Duration;

use super::*;
use crate::client::hash::{Algorithm, Compression};
use crate::publish::{Chunking, Detection, NewTag, Ownership, PublishError, SigningKeys};

const SMALL_CHUNKS: Chunking =
    Chunking { threshold: 16 << 10, min: 4 << 10, average: 8 << 10, max: 32 << 10 };

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn tag(name: &str) -> Option<NewTag> {
    Some(NewTag { name: name.to_owned(), description: format!("about {name}") })
}

/// Something of everything.
fn sample(tree: &Path) {
    write(&tree.join("README"), b"hello");
    write(&tree.join("empty"), b"");
    write(&tree.join("data/big"), &noise(1, 300_000));
    write(&tree.join("data/zeros"), &vec![0; 200_000]);
    write(&tree.join("bin/tool"), b"#!/bin/sh\n");
    fs::set_permissions(tree.join("bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    symlink("../README", tree.join("bin/readme")).unwrap();
    symlink("$(ARCH:-any)/lib", tree.join("lib")).unwrap();
    write(&tree.join(std::ffi::OsStr::from_bytes(b"names/latin1-\xfc\xff")), b"odd");
    write(&tree.join("links/a"), b"linked");
    fs::hard_link(tree.join("links/a"), tree.join("links/b")).unwrap();
    fs::hard_link(tree.join("links/a"), tree.join("bin/c")).unwrap();
    nix::unistd::mkfifo(&tree.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    write(&tree.join("software/gcc/1.0/.cvmfscatalog"), b"");
    write(&tree.join("software/gcc/1.0/bin/gcc"), b"one");
    write(&tree.join("software/gcc/2.0/.cvmfscatalog"), b"");
    write(&tree.join("software/gcc/2.0/bin/gcc"), b"two");
    write(&tree.join("software/gcc/2.0/inner/.cvmfscatalog"), b"");
    write(&tree.join("software/gcc/2.0/inner/deep/file"), b"deep");
}

#[test]
fn everything_comes_back_in_every_algorithm_and_compression() {
    for algorithm in [Algorithm::Sha1, Algorithm::Rmd160, Algorithm::Shake128] {
        for compression in [Compression::Zlib, Compression::None] {
            let site = Site::new(&CreateOptions { algorithm, ..CreateOptions::new("sw.example.org") });
            sample(&site.tree());
            let options = PublishOptions {
                compression,
                chunking: Some(SMALL_CHUNKS),
                nesting: markers_only(),
                ..Default::default()
            };
            let publication = site.publish_and_check(&options);
            assert_eq!((publication.revision, publication.changed, publication.catalogs), (2, true, 4));
            let read = checkout::Checkout::read(&site.repository());
            client::assert_same(&site.repository(), &read);
            assert_eq!(read.groups.values().map(Vec::len).collect::<Vec<_>>(), [3]);
            let chunked = read.catalogs[&b""[..]].chunks.len();
            assert!(chunked > 20, "{chunked}");
        }
    }
}

#[test]
fn publishing_again_writes_only_what_changed() {
    let site = Site::simple();
    sample(&site.tree());
    let options = PublishOptions { nesting: markers_only(), ..Default::default() };
    let first = site.publish_and_check(&options);
    let again = site.publish(&options);
    assert_eq!((again.revision, again.changed, again.objects), (first.revision, false, 0));
    // Deep in the tree: the file, its catalog, the two above it, and the history.
    write(&site.tree().join("software/gcc/2.0/inner/deep/file"), b"other");
    let deep = site.publish_and_check(&options);
    assert_eq!((deep.revision, deep.catalogs, deep.objects), (first.revision + 1, 3, 5));
    let read = checkout::Checkout::read(&site.repository());
    assert_eq!(read.catalogs[&b"/software/gcc/1.0"[..]].property("revision"), Some("1"));
    assert_eq!(read.catalogs[&b"/software/gcc/2.0/inner"[..]].property("revision"), Some("2"));
    fs::remove_dir_all(site.tree().join("software/gcc/2.0")).unwrap();
    let removed = site.publish_and_check(&options);
    assert_eq!((removed.catalogs, removed.objects), (1, 2));
}

#[test]
fn unchanged_files_are_not_read_when_times_are_trusted() {
    let site = Site::simple();
    sample(&site.tree());
    let options =
        PublishOptions { chunking: Some(SMALL_CHUNKS), detection: Detection::Times, ..Default::default() };
    site.publish_and_check(&options);
    struct Files(std::sync::atomic::AtomicU64);
    impl crate::publish::Progress for Files {
        fn total(&self, files: u64, _bytes: u64) {
            self.0.store(files, std::sync::atomic::Ordering::Relaxed);
        }
    }
    let files = Files(7.into());
    write(&site.tree().join("data/new"), b"new");
    site.publisher.publish(&site.tree(), &options, &files).unwrap();
    assert_eq!(files.0.into_inner(), 1);
    checkout::assert_same(&checkout::Checkout::read(&site.repository()), &checkout::expected(&site.tree()));
}

#[test]
fn one_time_gives_one_repository() {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let roots: Vec<_> = [1, 4]
        .into_iter()
        .map(|threads| {
            let site = Site::simple();
            sample(&site.tree());
            for path in ["", "data", "bin", "links", "names", "software"] {
                let directory = fs::File::open(site.tree().join(path)).unwrap();
                directory.set_modified(time).unwrap();
            }
            let nested =
                Nesting { patterns: vec!["/data".to_owned()], marker_files: false, ..Default::default() };
            let options = PublishOptions {
                time: Some(time),
                threads: Some(threads),
                nesting: nested,
                chunking: Some(SMALL_CHUNKS),
                ..Default::default()
            };
            site.publish_and_check(&options);
            let read = checkout::Checkout::read(&site.repository());
            read.catalogs[&b"/data"[..]].chunks.clone()
        })
        .collect();
    assert_eq!(roots[0], roots[1]);
}

#[test]
fn catalogs_are_cut_by_patterns_and_by_size() {
    let site = Site::simple();
    for package in 0..6 {
        for file in 0..40 {
            write(
                &site.tree().join(format!("pkg/p{package}/f{file}")),
                format!("{package} {file}").as_bytes(),
            );
        }
    }
    write(&site.tree().join("sw/a/1/x"), b"x");
    write(&site.tree().join("sw/a/latest/x"), b"x");
    write(&site.tree().join(".cvmfsdirtab"), b"# versions\n/sw/*/*\n!/sw/*/latest\n");
    let nesting = Nesting { max_entries: Some(100), min_entries: 10, ..Nesting::default() };
    site.publish_and_check(&PublishOptions { nesting, ..Default::default() });
    let read = checkout::Checkout::read(&site.repository());
    assert!(read.catalogs.contains_key(&b"/sw/a/1"[..]));
    assert!(!read.catalogs.contains_key(&b"/sw/a/latest"[..]));
    assert!(read.catalogs.len() > 4, "{:?}", read.catalogs.keys());
    for (path, image) in &read.catalogs {
        assert!(image.rows.len() <= 110, "{} has {} rows", String::from_utf8_lossy(path), image.rows.len());
    }
}

#[test]
fn catalogs_nested_too_deep_are_named() {
    let site = Site::simple();
    let mut path = site.tree();
    for _ in 0..61 {
        path.push("d");
        write(&path.join(".cvmfscatalog"), b"");
    }
    let error =
        site.publisher.publish(&site.tree(), &PublishOptions::default(), &()).unwrap_err().to_string();
    assert!(error.contains("more than 60 deep"), "{error}");
    fs::remove_file(path.join(".cvmfscatalog")).unwrap();
    site.publish_and_check(&PublishOptions::default());
    client::assert_same(&site.repository(), &checkout::Checkout::read(&site.repository()));
}

#[test]
fn tags_name_revisions_and_roll_back() {
    let site = Site::simple();
    write(&site.tree().join("file"), b"one");
    site.publish(&PublishOptions { tag: tag("v1"), ..Default::default() });
    let before = checkout::expected(&site.tree());
    write(&site.tree().join("file"), b"two");
    write(&site.tree().join("more"), b"more");
    site.publish(&PublishOptions { tag: tag("v2"), ..Default::default() });
    let names = || -> Vec<(String, u64)> {
        site.publisher.tags().unwrap().into_iter().map(|tag| (tag.name, tag.revision)).collect()
    };
    let expected = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
        list.iter().map(|(name, revision)| ((*name).to_owned(), *revision)).collect()
    };
    assert_eq!(names(), expected(&[("v1", 2), ("trunk-previous", 2), ("trunk", 3), ("v2", 3)]));
    let twice =
        site.publisher.publish(&site.tree(), &PublishOptions { tag: tag("v1"), ..Default::default() }, &());
    assert!(matches!(twice, Err(PublishError::Option { option: "tag", .. })));
    site.publisher
        .tag(&NewTag { name: "stable".to_owned(), description: String::new() }, Some("v1"))
        .unwrap();
    site.publisher.untag("v2").unwrap();
    assert_eq!(names(), expected(&[("v1", 2), ("trunk-previous", 2), ("trunk", 3), ("stable", 2)]));
    let rolled = site.publisher.roll_back("v1").unwrap();
    assert_eq!(rolled.revision, 4);
    let read = checkout::Checkout::read(&site.repository());
    checkout::assert_same(&read, &before);
    assert_eq!(read.tags.len(), 4);
    assert!(site.publisher.roll_back("v9").unwrap_err().to_string().contains("there is no tag v9"));
}

#[test]
fn owners_flags_and_metainfo_are_as_asked() {
    let site = Site::simple();
    write(&site.tree().join("file"), b"one");
    let options = PublishOptions {
        ownership: Ownership::Fixed { uid: 1234, gid: 99 },
        garbage_collectable: Some(false),
        ttl: Some(Duration::from_secs(61)),
        volatile: Some(true),
        metainfo: Some("{\"organisation\": \"test\"}".to_owned()),
        ..Default::default()
    };
    site.publish(&options);
    let read = checkout::Checkout::read(&site.repository());
    assert!(read.nodes.values().all(|node| node.owner == (1234, 99)));
    assert!(
        !read.manifest.garbage_collectable && read.manifest.ttl == 61 && read.manifest.metainfo.is_some()
    );
    assert_eq!(read.catalogs[&b""[..]].property("volatile"), Some("1"));
    // The next revision inherits them.
    write(&site.tree().join("file"), b"two");
    site.publish(&PublishOptions::default());
    let read = checkout::Checkout::read(&site.repository());
    assert!(
        !read.manifest.garbage_collectable && read.manifest.ttl == 61 && read.manifest.metainfo.is_some()
    );
    let bad = PublishOptions { metainfo: Some("{".to_owned()), ..Default::default() };
    assert!(site.publisher.publish(&site.tree(), &bad, &()).unwrap_err().to_string().contains("not JSON"));
}

#[test]
fn attributes_are_published_and_labels_of_this_machine_are_not() {
    let site = Site::simple();
    let file = site.tree().join("file");
    write(&file, b"one");
    let set =
        |key: &str, value: &[u8]| rustix::fs::setxattr(&file, key, value, rustix::fs::XattrFlags::empty());
    if set("user.note", b"hello").is_err() {
        eprintln!("skipped: the temporary directory's file system has no extended attributes");
        return;
    }
    let _ = set("trusted.overlay.opaque", b"y");
    site.publish(&PublishOptions::default());
    let read = checkout::Checkout::read(&site.repository());
    assert_eq!(read.nodes[&b"/file"[..]].xattr.as_deref(), Some(&b"\x01\x01\x09\x05user.notehello"[..]));
    set("user.long", &[b'x'; 300]).unwrap();
    let error =
        site.publisher.publish(&site.tree(), &PublishOptions::default(), &()).unwrap_err().to_string();
    assert!(error.contains("/file") && error.contains("user.long (300 bytes)"), "{error}");
    site.publish(&PublishOptions { xattrs: false, ..Default::default() });
    assert_eq!(checkout::Checkout::read(&site.repository()).nodes[&b"/file"[..]].xattr, None);
}

#[test]
fn what_changes_under_way_is_named_and_nothing_is_published() {
    let site = Site::simple();
    write(&site.tree().join("log"), b"one");
    let before = fs::read(site.repository().join(".cvmfspublished")).unwrap();
    struct Writer(PathBuf);
    impl crate::publish::Progress for Writer {
        fn total(&self, _files: u64, _bytes: u64) {
            fs::write(&self.0, b"one and more").unwrap();
        }
    }
    let writer = Writer(site.tree().join("log"));
    let error = site.publisher.publish(&site.tree(), &PublishOptions::default(), &writer).unwrap_err();
    assert!(matches!(&error, PublishError::Changed { path } if path.ends_with("log")), "{error}");
    struct Cancel;
    impl crate::publish::Progress for Cancel {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let error = site.publisher.publish(&site.tree(), &PublishOptions::default(), &Cancel).unwrap_err();
    assert!(matches!(error, PublishError::Cancelled), "{error}");
    assert_eq!(fs::read(site.repository().join(".cvmfspublished")).unwrap(), before);
}

#[test]
fn mistakes_are_refused_with_a_remedy() {
    let site = Site::simple();
    let refused = |source: &Path| {
        site.publisher.publish(source, &PublishOptions::default(), &()).unwrap_err().to_string()
    };
    assert!(refused(site.directory.path()).contains("keep them apart"));
    assert!(refused(&site.tree().join("missing")).contains("missing"));
    let again = Publisher::create(&site.repository(), test_keys(), &CreateOptions::new("sw.example.org"));
    assert!(matches!(again, Err(PublishError::Exists { .. })));
    assert!(matches!(Publisher::open(&site.tree(), test_keys()), Err(PublishError::NoRepository { .. })));
    let name = CreateOptions::new("../etc");
    assert!(matches!(
        Publisher::create(&site.tree(), test_keys(), &name),
        Err(PublishError::Option { option: "name", .. })
    ));
    write(&site.tree().join("socket-dir/file"), b"");
    nix::unistd::mkfifo(&site.tree().join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let strict = PublishOptions { special_files: false, ..Default::default() };
    let error = site.publisher.publish(&site.tree(), &strict, &()).unwrap_err().to_string();
    assert!(error.contains("/fifo"), "{error}");
}

#[test]
fn a_whitelist_that_ends_soon_is_renewed_by_the_way() {
    let day = Duration::from_secs(86_400);
    let site =
        Site::new(&CreateOptions { whitelist_validity: 10 * day, ..CreateOptions::new("sw.example.org") });
    let left =
        || site.publisher.whitelist_expiry().unwrap().duration_since(std::time::SystemTime::now()).unwrap();
    assert!(left() < 10 * day && left() > 9 * day);
    site.publish(&PublishOptions { whitelist_validity: None, ..Default::default() });
    site.publish(&PublishOptions { whitelist_validity: Some(19 * day), ..Default::default() });
    assert!(left() < 10 * day, "more than half is left");
    site.publish_and_check(&PublishOptions::default());
    assert!(left() > 29 * day);
}

#[test]
fn keys_are_files_for_their_owner_only() {
    let site = Site::simple();
    let directory = site.directory.path().join("keys");
    let keys = test_keys();
    keys.store(&directory, "sw.example.org").unwrap();
    assert!(keys.store(&directory, "sw.example.org").is_err(), "nothing is overwritten");
    for (extension, mode) in [("masterkey", 0o600), ("key", 0o600), ("pub", 0o644), ("crt", 0o644)] {
        let metadata = fs::metadata(directory.join(format!("sw.example.org.{extension}"))).unwrap();
        assert_eq!(metadata.mode() & 0o777, mode);
    }
    assert_eq!(format!("{keys:?}"), "SigningKeys { .. }");
    // Without the master key one can publish but not renew the whitelist.
    fs::remove_file(directory.join("sw.example.org.masterkey")).unwrap();
    let publisher =
        Publisher::open(&site.repository(), SigningKeys::load(&directory, "sw.example.org").unwrap())
            .unwrap();
    write(&site.tree().join("file"), b"one");
    publisher.publish(&site.tree(), &PublishOptions::default(), &()).unwrap();
    let error = publisher.resign_whitelist(Duration::from_secs(86_400)).unwrap_err().to_string();
    assert!(error.contains("master key"), "{error}");
    site.publisher.resign_whitelist(Duration::from_secs(86_400)).unwrap();
    checkout::Checkout::read(&site.repository());
    fs::set_permissions(directory.join("sw.example.org.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = SigningKeys::load(&directory, "sw.example.org").unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    // Other keys are not on the whitelist.
    let stranger = SigningKeys::generate("sw.example.org").unwrap();
    let publisher = Publisher::open(&site.repository(), stranger).unwrap();
    write(&site.tree().join("file"), b"two");
    let error = publisher.publish(&site.tree(), &PublishOptions::default(), &()).unwrap_err().to_string();
    assert!(error.contains("renew the whitelist first"), "{error}");
}

#[test]
fn a_repository_of_the_reference_tools_is_taken_over() {
    let site = Site::simple();
    let taken = site.directory.path().join("taken");
    fixtures::copy("shake128.cern.ch", &taken).unwrap();
    let publisher = Publisher::open(&taken, test_keys()).unwrap();
    write(&site.tree().join("file"), b"ours");
    let error = publisher.publish(&site.tree(), &PublishOptions::default(), &()).unwrap_err().to_string();
    assert!(error.contains("renew the whitelist first"), "{error}");
    publisher.resign_whitelist(Duration::from_secs(86_400)).unwrap();
    let publication = publisher.publish(&site.tree(), &PublishOptions::default(), &()).unwrap();
    assert_eq!(publication.revision, 4);
    let read = checkout::Checkout::read(&taken);
    checkout::assert_same(&read, &checkout::expected(&site.tree()));
    assert!(read.tags.iter().any(|tag| tag.name == "base" && tag.revision == 2), "{:?}", read.tags);
    assert_eq!(publisher.roll_back("v1.0").unwrap().revision, 5);
    let theirs = checkout::Checkout::read(&taken);
    assert_eq!(theirs.nodes.len(), fixtures::listing("shake128.cern.ch").unwrap().len());
}
