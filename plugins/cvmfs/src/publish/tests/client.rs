//! What the client of this crate makes of a published repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

use super::checkout::{Checkout, Node, What, object};
use crate::client::blacklist::Blacklist;
use crate::client::catalog::{CatalogRef, CatalogSource, Catalogs, DatabaseFile, Kind, Located, SourceError};
use crate::client::certificate::MasterKey;
use crate::client::hash::{Compression, Digest, Suffix};
use crate::client::snapshot::Snapshot;
use crate::client::trust::{Evidence, TrustPolicy, verify};
use crate::publish::forge::test_keys;
use crate::publish::signed::ManifestText;

#[derive(Debug)]
struct Directory(PathBuf);

#[async_trait]
impl CatalogSource for Directory {
    fn cached(&self, digest: &Digest, _size: Option<u64>) -> Option<Arc<dyn DatabaseFile>> {
        let present = self.0.join(digest.with_suffix(Suffix::Catalog).url_path()).exists();
        present.then(|| Arc::new(object(&self.0, *digest, Suffix::Catalog, Compression::Zlib)) as _)
    }

    async fn fetch(&self, digest: &Digest, size: Option<u64>) -> Result<Arc<dyn DatabaseFile>, SourceError> {
        let missing = || Arc::new(std::io::Error::from(std::io::ErrorKind::NotFound)) as SourceError;
        self.cached(digest, size).ok_or_else(missing)
    }
}

/// Verifies the repository as a client does, walks all of it, and compares what is there with what was read from the tables.
pub(super) fn assert_same(repository: &Path, expected: &Checkout) {
    let read = |name: &str| fs::read(repository.join(name)).unwrap().into();
    let certificate = expected.manifest.certificate.with_suffix(Suffix::Certificate).url_path();
    let evidence = Evidence {
        published: read(".cvmfspublished"),
        whitelist: read(".cvmfswhitelist"),
        certificate: read(&certificate),
    };
    let policy = TrustPolicy {
        repository: expected.manifest.fqrn.clone(),
        master_keys: vec![MasterKey::from_pem(&test_keys().public_key_pem()).unwrap()],
        blacklist: Blacklist::default(),
        floor: None,
    };
    let verified = verify(evidence, &policy, SystemTime::now()).unwrap();
    assert_eq!(verified.manifest().revision, expected.manifest.revision);
    let snapshot = snapshot(repository, &expected.manifest);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let nodes = runtime.block_on(walk(repository, &snapshot));
    assert_eq!(nodes.keys().collect::<Vec<_>>(), expected.nodes.keys().collect::<Vec<_>>());
    assert_eq!(nodes, expected.nodes);
}

/// A revision, all of whose catalogs are at hand.
pub(super) fn snapshot(repository: &Path, manifest: &ManifestText) -> Snapshot {
    let catalogs = Catalogs::new(Arc::new(Directory(repository.to_owned())));
    let root = CatalogRef::root(manifest.root, Some(manifest.root_size));
    Snapshot::new(catalogs, root, manifest.revision)
}

async fn walk(repository: &Path, snapshot: &Snapshot) -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let located = snapshot.lookup(&path).await.unwrap().expect("what is listed can be looked up");
        nodes.insert(path.clone(), node(repository, snapshot, &path, &located).await);
        if !matches!(located.dirent.kind, Kind::Directory { .. }) {
            continue;
        }
        let directory = snapshot.directory(&path).await.unwrap().unwrap();
        let mut after = 0;
        loop {
            let rows = snapshot.catalogs().list(&directory.catalog, &path, after, 7).await.unwrap();
            for row in &rows {
                let name = &row.entry.as_ref().unwrap().name;
                pending.push([&path, &b"/"[..], name].concat());
                after = row.cookie;
            }
            if rows.len() < 7 {
                break;
            }
        }
    }
    nodes
}

async fn node(repository: &Path, snapshot: &Snapshot, path: &[u8], located: &Located) -> Node {
    let dirent = &located.dirent;
    let (kind_bits, what) = match &dirent.kind {
        Kind::Directory { .. } => (0o040_000, What::Directory),
        Kind::Symlink(target) => (0o120_000, What::Symlink(target.clone())),
        Kind::Fifo => (0o010_000, What::Special(0)),
        Kind::Socket => (0o140_000, What::Special(0)),
        Kind::CharDevice(number) => (0o020_000, What::Special((*number).into())),
        Kind::BlockDevice(number) => (0o060_000, What::Special((*number).into())),
        Kind::Regular(content) => {
            let mut hasher = blake3::Hasher::new();
            if content.chunked {
                for chunk in snapshot.catalogs().chunks(&located.catalog, path, content).await.unwrap() {
                    let bytes = object(repository, chunk.digest, Suffix::Partial, content.compression);
                    assert_eq!(bytes.len() as u64, chunk.size);
                    hasher.update(&bytes);
                }
            } else {
                let digest = content.digest.expect("a file in one object has its digest");
                hasher.update(&object(repository, digest, Suffix::None, content.compression));
            }
            (0o100_000, What::File(hasher.finalize(), content.size))
        }
    };
    Node {
        mode: kind_bits | u32::from(dirent.permissions),
        owner: (dirent.uid, dirent.gid),
        mtime: (dirent.mtime.seconds, dirent.mtime.nanos.into()),
        links: dirent.links.into(),
        what,
        xattr: dirent.xattrs.clone(),
    }
}
