//! Reads a repository back from its files, checking every signature and every hash on the way, and knows nothing of how it was written
//! but the tables' columns.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rsa::Pkcs1v15Sign;
use rsa::pkcs8::DecodePublicKey as _;
use sha1::{Digest as _, Sha1};

use crate::client::hash::{Algorithm, Compression, Digest, PathHash, Suffix};
use crate::publish::counters::Counters;
use crate::publish::database;
use crate::publish::forge::test_keys;
use crate::publish::image::{Image, flags};
use crate::publish::signed::ManifestText;
use crate::publish::store::Store;
use crate::publish::{certificate, history};

/// One entry as a client would see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Node {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, i64),
    pub(super) links: u64,
    pub(super) what: What,
    pub(super) xattr: Option<Vec<u8>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum What {
    Directory,
    File(blake3::Hash, u64),
    Symlink(Vec<u8>),
    Special(u64),
}

/// A whole revision.
#[derive(Debug)]
pub(super) struct Checkout {
    pub(super) manifest: ManifestText,
    pub(super) nodes: BTreeMap<Vec<u8>, Node>,
    /// Paths by catalog path.
    pub(super) catalogs: BTreeMap<Vec<u8>, Image>,
    /// Names with the same link group of the same catalog.
    pub(super) groups: BTreeMap<(Vec<u8>, i64), Vec<Vec<u8>>>,
    pub(super) tags: Vec<history::Tag>,
}

/// Text, hash line and signature of a signed file.
fn split(file: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let end = file.windows(4).position(|window| window == b"\n--\n").unwrap() + 1;
    let rest = &file[end + 3..];
    let line = rest.iter().position(|byte| *byte == b'\n').unwrap();
    (&file[..end], &rest[..line], &rest[line + 1..])
}

fn hash_line(text: &[u8], line: &[u8]) {
    let said: Digest = std::str::from_utf8(line).unwrap().parse().unwrap();
    assert_eq!(said.algorithm.digest(text), said);
}

impl Checkout {
    pub(super) fn read(repository: &Path) -> Self {
        Checkout::read_with_key(repository, &test_keys().public_key_pem())
    }

    pub(super) fn read_with_key(repository: &Path, public_key: &str) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let databases = Store::new(scratch.path());
        databases.make_directories().unwrap();

        let whitelist = fs::read(repository.join(".cvmfswhitelist")).unwrap();
        let (text, line, signature) = split(&whitelist);
        hash_line(text, line);
        let master = rsa::RsaPublicKey::from_public_key_pem(public_key).unwrap();
        master.verify(Pkcs1v15Sign::new_unprefixed(), line, signature).unwrap();
        let whitelist_text = String::from_utf8(text.to_vec()).unwrap();

        let published = fs::read(repository.join(".cvmfspublished")).unwrap();
        let (text, line, signature) = split(&published);
        hash_line(text, line);
        let manifest = ManifestText::parse(&published).unwrap();
        assert!(whitelist_text.contains(&format!("\nN{}\n", manifest.fqrn)));
        let pem = object(repository, manifest.certificate, Suffix::Certificate, Compression::Zlib);
        let (der, key) = certificate::parse(std::str::from_utf8(&pem).unwrap()).unwrap();
        key.verify(Pkcs1v15Sign::new::<Sha1>(), &Sha1::digest(line), signature).unwrap();
        let fingerprint = manifest.root.algorithm.digest(&der);
        let pairs: Vec<String> = fingerprint.bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(whitelist_text.contains(&pairs.join(":")));
        if let Some(metainfo) = manifest.metainfo {
            object(repository, metainfo, Suffix::Metainfo, Compression::Zlib);
        }
        let tags = manifest.history.map_or_else(Vec::new, |digest| {
            let bytes = object(repository, digest, Suffix::History, Compression::Zlib);
            history::History::read(&databases, &bytes).unwrap().tags
        });

        let mut checkout = Checkout {
            nodes: BTreeMap::new(),
            catalogs: BTreeMap::new(),
            groups: BTreeMap::new(),
            tags,
            manifest,
        };
        let (root, size) = (checkout.manifest.root, checkout.manifest.root_size);
        checkout.load(repository, &databases, b"", root, size as i64);
        checkout
    }

    fn load(
        &mut self,
        repository: &Path,
        databases: &Store,
        at: &[u8],
        digest: Digest,
        size: i64,
    ) -> Counters {
        let bytes = object(repository, digest, Suffix::Catalog, Compression::Zlib);
        assert_eq!(bytes.len() as i64, size, "size of the catalog at {at:?}");
        let image = database::read(databases, "catalog", &bytes).unwrap();
        assert_eq!(image.raw_property("root_prefix").unwrap_or_default(), at);
        // The first row is the catalog's root; paths are found from it down, by parent hash.
        let mut paths: BTreeMap<(i64, i64), Vec<u8>> = BTreeMap::new();
        let key = |hash: PathHash| (hash.high, hash.low);
        paths.insert(key(PathHash::of(at)), at.to_vec());
        let mut left: Vec<&_> = image.rows.iter().collect();
        while !left.is_empty() {
            let before = left.len();
            left.retain(|row| {
                let path = if row.path == PathHash::of(at) {
                    at.to_vec()
                } else {
                    let Some(parent) = paths.get(&key(row.parent)) else { return true };
                    [parent.as_slice(), b"/", &row.name].concat()
                };
                assert_eq!(row.path, PathHash::of(&path), "{path:?}");
                let mountpoint = row.flags & flags::MOUNTPOINT != 0;
                if mountpoint {
                    assert!(
                        image.nested.iter().any(|nested| nested.path == path),
                        "{path:?} is in nobody's list"
                    );
                } else {
                    paths.insert(key(row.path), path.clone());
                }
                let node = node(repository, &image, row);
                let group = row.hardlinks >> 32;
                if group != 0 {
                    self.groups.entry((at.to_vec(), group)).or_default().push(path.clone());
                }
                if let Some(twin) = self.nodes.insert(path.clone(), node.clone()) {
                    assert_eq!(twin, node, "both rows of mountpoint {path:?}");
                }
                false
            });
            assert!(left.len() < before, "rows without a parent: {left:?}");
        }
        let mut subtree = Counters::default();
        for nested in &image.nested {
            let digest = nested.digest.parse().unwrap();
            subtree.add(&self.load(repository, databases, &nested.path, digest, nested.size));
        }
        let mut own = Counters::of(&image);
        let (said_own, said_subtree) = Counters::from_table(&image.statistics);
        assert_eq!((said_own, said_subtree), (own, subtree), "statistics of {at:?}");
        own.add(&subtree);
        self.catalogs.insert(at.to_vec(), image);
        own
    }
}

/// An object's content; the stored bytes have the hash of its name.
pub(super) fn object(repository: &Path, digest: Digest, suffix: Suffix, compression: Compression) -> Vec<u8> {
    let path = repository.join(digest.with_suffix(suffix).url_path());
    let stored = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(digest.algorithm.digest(&stored), digest);
    match compression {
        Compression::None => stored,
        Compression::Zlib => {
            let mut content = Vec::new();
            flate2::read::ZlibDecoder::new(&stored[..]).read_to_end(&mut content).unwrap();
            content
        }
    }
}

fn node(repository: &Path, image: &Image, row: &crate::publish::image::Row) -> Node {
    let bits = |shift: u32| (row.flags >> shift & 7) as u32;
    let algorithm = Algorithm::from_catalog_bits(bits(flags::ALGORITHM_SHIFT)).unwrap();
    let compression = Compression::from_catalog_bits(bits(flags::COMPRESSION_SHIFT)).unwrap();
    let digest = |hash: &[u8]| Digest::from_bytes(algorithm, hash).unwrap();
    let what = if row.flags & flags::DIRECTORY != 0 {
        What::Directory
    } else if row.flags & flags::SYMLINK != 0 {
        What::Symlink(row.symlink.clone())
    } else if row.flags & flags::SPECIAL != 0 {
        What::Special(row.size as u64)
    } else if row.flags & flags::CHUNKED != 0 {
        let mut hasher = blake3::Hasher::new();
        let mut end = 0;
        for chunk in image.chunks.iter().filter(|chunk| chunk.path == row.path) {
            assert_eq!(chunk.offset, end);
            let content = object(repository, digest(&chunk.hash), Suffix::Partial, compression);
            assert_eq!(chunk.size, content.len() as i64);
            end += chunk.size;
            hasher.update(&content);
        }
        What::File(hasher.finalize(), end as u64)
    } else {
        let content = object(repository, digest(row.hash.as_ref().unwrap()), Suffix::None, compression);
        What::File(blake3::hash(&content), content.len() as u64)
    };
    if let What::File(_, size) = what {
        assert_eq!(row.size as u64, size);
    }
    Node {
        mode: row.mode as u32,
        owner: (row.uid as u32, row.gid as u32),
        mtime: (row.mtime, row.mtime_ns.unwrap_or(0)),
        links: (row.hardlinks & 0xffff_ffff) as u64,
        what,
        xattr: row.xattr.clone(),
    }
}

/// What a client should see of a tree.
pub(super) fn expected(tree: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let file = tree.join(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(&path)));
        let metadata = fs::symlink_metadata(&file).unwrap();
        let what = if metadata.is_dir() {
            for entry in fs::read_dir(&file).unwrap() {
                pending.push([&path, &b"/"[..], entry.unwrap().file_name().as_bytes()].concat());
            }
            What::Directory
        } else if metadata.is_symlink() {
            What::Symlink(fs::read_link(&file).unwrap().as_os_str().as_bytes().to_vec())
        } else if metadata.is_file() {
            What::File(blake3::hash(&fs::read(&file).unwrap()), metadata.size())
        } else {
            What::Special(metadata.rdev())
        };
        let node = Node {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            links: metadata.nlink(),
            what,
            xattr: None,
        };
        nodes.insert(path, node);
    }
    nodes
}

/// Compares all but what the format or the source's file system decides: link counts of directories (some file systems do not count
/// subdirectories), and attributes.
pub(super) fn assert_same(read: &Checkout, expected: &BTreeMap<Vec<u8>, Node>) {
    let names = |nodes: &BTreeMap<Vec<u8>, Node>| -> Vec<String> {
        nodes.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    };
    assert_eq!(names(&read.nodes), names(expected));
    for (path, node) in expected {
        let mut seen = read.nodes[path].clone();
        let mut node = node.clone();
        seen.xattr = None;
        if node.what == What::Directory {
            seen.links = 0;
            node.links = 0;
        }
        assert_eq!(seen, node, "{}", String::from_utf8_lossy(path));
    }
}
