//! Validly signed repositories that no sane writer would make, for tests only (feature `forge`).
//!
//! Signed does not mean sane: whoever holds a signing key, or a bug in their tools, can sign anything. A [`Forge`] does so on
//! purpose. [`CASES`] are the insanities that every reader must survive.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::catalogs;
use super::database::{self, CATALOG_LIMIT};
mod cases;

pub use cases::{CASES, Case};

pub use super::image::{ChunkRow, Image, NestedRow, Row, flags};
use super::options::CreateOptions;
use super::publisher::{MANIFEST, Publisher, WHITELIST};
use super::signed::{ManifestText, sign_manifest_text, sign_whitelist_text, whitelist};
use super::{PublishError, SigningKeys};
use crate::client::hash::{Compression, Digest, ObjectId, PathHash, Suffix};

/// Keys for tests, made once per process since that takes a second.
#[must_use]
pub fn test_keys() -> SigningKeys {
    static KEYS: OnceLock<SigningKeys> = OnceLock::new();
    KEYS.get_or_init(|| SigningKeys::generate("forge.example.org").expect("the system has random numbers"))
        .clone()
}

/// A repository and the keys that sign it, for any purpose.
#[derive(Debug)]
pub struct Forge {
    publisher: Publisher,
}

impl Forge {
    /// A new repository, sane so far.
    ///
    /// # Errors
    /// As [`Publisher::create`].
    pub fn create(root: &Path, fqrn: &str) -> Result<Self, PublishError> {
        Publisher::create(root, test_keys(), &CreateOptions::new(fqrn)).map(Forge::new)
    }

    /// Takes over a repository.
    #[must_use]
    pub fn new(publisher: Publisher) -> Self {
        Forge { publisher }
    }

    /// For what is sane.
    #[must_use]
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    fn manifest(&self) -> Result<ManifestText, PublishError> {
        self.publisher.manifest()
    }

    /// The root catalog of the newest revision.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn root(&self) -> Result<Image, PublishError> {
        self.catalog(&self.manifest()?.root)
    }

    /// Any catalog.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn catalog(&self, digest: &Digest) -> Result<Image, PublishError> {
        let id = digest.with_suffix(Suffix::Catalog);
        let bytes = self.publisher.store.get(&id, CATALOG_LIMIT)?;
        database::read(&self.publisher.store, &id.to_string(), &bytes)
    }

    /// Stores a catalog, whatever its rows say: its hash, and its bytes before compression.
    ///
    /// # Errors
    /// When SQLite refuses it, as for rows with equal path hashes.
    pub fn put_catalog(&self, image: &Image) -> Result<(Digest, u64), PublishError> {
        catalogs::put(&self.publisher.store, image, self.manifest()?.root.algorithm)
    }

    /// Stores an object under its hash.
    ///
    /// # Errors
    /// What writing gave.
    pub fn put(
        &self,
        bytes: &[u8],
        compression: Compression,
        suffix: Suffix,
    ) -> Result<Digest, PublishError> {
        self.publisher.store.put_bytes(bytes, self.manifest()?.root.algorithm, compression, suffix)
    }

    /// Stores bytes as they are under any name.
    ///
    /// # Errors
    /// What writing gave.
    pub fn put_as(&self, id: &ObjectId, stored: &[u8]) -> Result<(), PublishError> {
        self.publisher.store.replace(&id.url_path(), stored)
    }

    /// Removes an object.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, id: &ObjectId) -> Result<(), PublishError> {
        let path = self.publisher.store.object(id);
        fs::remove_file(&path).map_err(super::error::io_error("remove", &path))
    }

    /// Signs a manifest of the next revision with any root catalog. Returns the revision.
    ///
    /// # Errors
    /// What writing gave.
    pub fn sign_root(&self, root: Digest, root_size: u64) -> Result<u64, PublishError> {
        let old = self.manifest()?;
        let revision = old.revision + 1;
        let manifest = ManifestText { root, root_size, revision, ..old };
        self.publisher.store.replace(MANIFEST, &manifest.sign(&self.publisher.keys))?;
        Ok(revision)
    }

    /// Stores a catalog and signs it as root of the next revision.
    ///
    /// # Errors
    /// As [`put_catalog`](Self::put_catalog).
    pub fn sign_image(&self, image: &Image) -> Result<u64, PublishError> {
        let (root, size) = self.put_catalog(image)?;
        self.sign_root(root, size)
    }

    /// Signs bytes that need not be a catalog as root of the next revision.
    ///
    /// # Errors
    /// What writing gave.
    pub fn sign_catalog_bytes(&self, bytes: &[u8]) -> Result<u64, PublishError> {
        let root = self.put(bytes, Compression::Zlib, Suffix::Catalog)?;
        self.sign_root(root, bytes.len() as u64)
    }

    /// The text of the manifest, without hash and signature.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn manifest_text(&self) -> Result<String, PublishError> {
        Ok(self.manifest()?.text())
    }

    /// Signs any text as manifest.
    ///
    /// # Errors
    /// What writing gave.
    pub fn sign_manifest(&self, text: &str) -> Result<(), PublishError> {
        let signed = sign_manifest_text(text, self.manifest()?.root.algorithm, &self.publisher.keys);
        self.publisher.store.replace(MANIFEST, &signed)
    }

    /// Signs any text as whitelist.
    ///
    /// # Errors
    /// What writing gave.
    pub fn sign_whitelist(&self, text: &str) -> Result<(), PublishError> {
        let signed = sign_whitelist_text(text, self.manifest()?.root.algorithm, &self.publisher.keys)?;
        self.publisher.store.replace(WHITELIST, &signed)
    }

    /// A whitelist that ends at a given time, past or future.
    ///
    /// # Errors
    /// What writing gave.
    pub fn whitelist_until(&self, end: SystemTime) -> Result<(), PublishError> {
        let validity = end.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let algorithm = self.manifest()?.root.algorithm;
        let signed = whitelist(self.publisher.fqrn(), &self.publisher.keys, algorithm, UNIX_EPOCH, validity)?;
        self.publisher.store.replace(WHITELIST, &signed)
    }

    /// Stores a small file's content and returns a sane row for it, to be made insane.
    ///
    /// # Errors
    /// What writing gave.
    pub fn file_row(&self, path: &str, content: &[u8]) -> Result<Row, PublishError> {
        let digest = self.put(content, Compression::Zlib, Suffix::None)?;
        let mut row = row(path.as_bytes(), flags::FILE, 0o100_644);
        row.flags |= i64::from(digest.algorithm.catalog_bits()) << flags::ALGORITHM_SHIFT;
        row.size = content.len() as i64;
        row.hash = Some(digest.bytes.to_vec());
        Ok(row)
    }

    /// Nests `child` at `path` in `parent`: the mountpoint's row and the reference.
    ///
    /// # Errors
    /// As [`put_catalog`](Self::put_catalog).
    pub fn nest(&self, parent: &mut Image, path: &str, child: &Image) -> Result<Digest, PublishError> {
        let (digest, size) = self.put_catalog(child)?;
        parent.rows.push(row(path.as_bytes(), flags::DIRECTORY | flags::MOUNTPOINT, 0o040_755));
        let size = size as i64;
        parent.nested.push(NestedRow { path: path.into(), digest: digest.to_string(), size });
        Ok(digest)
    }
}

/// A row with a path's hashes and name, and nothing else of interest.
#[must_use]
pub fn row(path: &[u8], flags: i64, mode: i64) -> Row {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (parent, name) = match slash {
        Some(at) => (PathHash::of(&path[..at]), path[at + 1..].to_vec()),
        None => (PathHash::NONE, Vec::new()),
    };
    Row {
        path: PathHash::of(path),
        parent,
        hardlinks: 1,
        hash: None,
        size: 0,
        mode,
        mtime: 1_500_000_000,
        mtime_ns: Some(0),
        flags,
        name,
        symlink: Vec::new(),
        uid: 0,
        gid: 0,
        xattr: None,
    }
}

/// A nested catalog with nothing but its root directory.
#[must_use]
pub fn nested(path: &str) -> Image {
    let property = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec());
    Image {
        properties: vec![
            property("schema", "2.5"),
            property("schema_revision", "7"),
            property("root_prefix", path),
            property("revision", "1"),
        ],
        rows: vec![row(path.as_bytes(), flags::DIRECTORY | flags::NESTED_ROOT, 0o040_755)],
        ..Image::default()
    }
}
