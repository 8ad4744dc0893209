//! Random trees with random histories: every revision that is published is the tree as it was then.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;
use crate::client::hash::{Algorithm, Compression};
use crate::publish::{Chunking, Detection};

/// One thing that people do to a tree. Numbers pick among what is there.
#[derive(Clone, Debug)]
enum Edit {
    Write(usize, u8, Vec<u8>),
    Directory(usize, u8),
    Symlink(usize, u8, String),
    Link(usize, usize, u8),
    Remove(usize),
    Mode(usize, u32),
    Time(usize, u32, u32),
    Nest(usize),
    Rename(usize, usize, u8),
}

fn edit() -> impl Strategy<Value = Edit> {
    let pick = || 0..1000_usize;
    let name = || 0..12_u8;
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 1_000..40_000_usize).prop_map(|(seed, length)| {
            let mut bytes = vec![0; length];
            blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
            bytes
        }),
        (1..60_000_usize).prop_map(|length| vec![b'a'; length]),
    ];
    prop_oneof![
        6 => (pick(), name(), content).prop_map(|(d, n, c)| Edit::Write(d, n, c)),
        4 => (pick(), name()).prop_map(|(d, n)| Edit::Directory(d, n)),
        1 => (pick(), name(), "[a-z/.$()]{1,40}").prop_map(|(d, n, t)| Edit::Symlink(d, n, t)),
        2 => (pick(), pick(), name()).prop_map(|(f, d, n)| Edit::Link(f, d, n)),
        2 => pick().prop_map(Edit::Remove),
        1 => (pick(), 0..0o10000_u32).prop_map(|(f, m)| Edit::Mode(f, m)),
        1 => (pick(), any::<u32>(), 0..1_000_000_000_u32).prop_map(|(f, s, n)| Edit::Time(f, s, n)),
        2 => pick().prop_map(Edit::Nest),
        1 => (pick(), pick(), name()).prop_map(|(f, d, n)| Edit::Rename(f, d, n)),
    ]
}

/// Names that sort, hash and decode in awkward ways.
fn named(number: u8) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt as _;
    let names: [&[u8]; 12] = [
        b"a",
        b"b",
        b"lib",
        b"-dash",
        b".hidden",
        b"with space",
        b"\xff\xfe",
        b"new\nline",
        b"%2e%2e",
        b"A",
        "\u{e9}t\u{e9}".as_bytes(),
        b"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
    ];
    std::ffi::OsString::from_vec(names[usize::from(number)].to_vec())
}

fn walk(tree: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut directories, mut others) = (vec![tree.to_owned()], Vec::new());
    let mut at = 0;
    while at < directories.len() {
        let mut names: Vec<PathBuf> =
            fs::read_dir(&directories[at]).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        for path in names {
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                directories.push(path);
            } else {
                others.push(path);
            }
        }
        at += 1;
    }
    (directories, others)
}

/// Does it if it can be done.
fn apply(tree: &Path, edit: &Edit) {
    let (directories, others) = walk(tree);
    let directory = |pick: usize| directories[pick % directories.len()].clone();
    let other = |pick: usize| (!others.is_empty()).then(|| others[pick % others.len()].clone());
    let everything = |pick: usize| {
        let all: Vec<&PathBuf> = directories[1..].iter().chain(&others).collect();
        (!all.is_empty()).then(|| all[pick % all.len()].clone())
    };
    match edit {
        Edit::Write(to, name, content) => {
            let path = directory(*to).join(named(*name));
            if !path.is_dir() {
                let _ = fs::remove_file(&path);
                fs::write(path, content).unwrap();
            }
        }
        Edit::Directory(to, name) => {
            let _ = fs::create_dir(directory(*to).join(named(*name)));
        }
        Edit::Symlink(to, name, target) => {
            let _ = std::os::unix::fs::symlink(target, directory(*to).join(named(*name)));
        }
        Edit::Link(from, to, name) => {
            if let Some(file) = other(*from).filter(|file| file.symlink_metadata().unwrap().is_file()) {
                let _ = fs::hard_link(file, directory(*to).join(named(*name)));
            }
        }
        Edit::Remove(what) => {
            if let Some(path) = everything(*what) {
                if path.symlink_metadata().unwrap().is_dir() {
                    fs::remove_dir_all(path).unwrap();
                } else {
                    fs::remove_file(path).unwrap();
                }
            }
        }
        Edit::Mode(what, mode) => {
            if let Some(path) = everything(*what).filter(|path| !path.is_symlink()) {
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
        Edit::Time(what, seconds, nanoseconds) => {
            if let Some(path) = everything(*what).filter(|path| !path.is_symlink()) {
                let time = std::time::UNIX_EPOCH + std::time::Duration::new((*seconds).into(), *nanoseconds);
                fs::File::open(path).unwrap().set_modified(time).unwrap();
            }
        }
        Edit::Nest(what) => {
            let marker = directory(*what).join(".cvmfscatalog");
            if fs::remove_file(&marker).is_err() {
                fs::write(marker, b"").unwrap();
            }
        }
        Edit::Rename(what, to, name) => {
            if let Some(path) = everything(*what) {
                let _ = fs::rename(path, directory(*to).join(named(*name)));
            }
        }
    }
}

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
                apply(&site.tree(), edit);
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
