//! The newest revision, as the next one builds upon it: which catalogs there are, and which contents are stored.

use std::collections::HashMap;

use super::content::{Chunk, Content, StoredContent};
use super::counters::Counters;
use super::database::{self, CATALOG_LIMIT};
use super::error::PublishError;
use super::image::{ChunkRow, Image, flags};
use super::store::Store;
use crate::client::hash::{Algorithm, Compression, Digest, PathHash, Suffix};

/// A stored catalog.
#[derive(Clone, Debug)]
pub(super) struct KnownCatalog {
    pub(super) digest: Digest,
    /// Bytes before compression.
    pub(super) size: u64,
    /// Its own count of changes.
    pub(super) revision: u64,
    pub(super) fingerprint: blake3::Hash,
    pub(super) own: Counters,
    pub(super) subtree: Counters,
}

/// A stored file.
#[derive(Clone, Debug)]
pub(super) struct KnownFile {
    pub(super) size: i64,
    pub(super) mtime: (i64, i64),
    pub(super) content: StoredContent,
}

/// What the newest revision consists of.
#[derive(Debug, Default)]
pub(super) struct Previous {
    /// By path of the catalog's root.
    pub(super) catalogs: HashMap<Vec<u8>, KnownCatalog>,
    /// By path; filled on request only.
    pub(super) files: HashMap<PathHash, KnownFile>,
    /// Properties of the root catalog that later revisions inherit.
    pub(super) ttl: Option<u64>,
    pub(super) volatile: bool,
}

impl Previous {
    /// Reads all catalogs below a root catalog.
    pub(super) fn read(store: &Store, root: Digest, with_files: bool) -> Result<Self, PublishError> {
        let mut previous = Previous::default();
        let mut pending = vec![(Vec::new(), root)];
        while let Some((path, digest)) = pending.pop() {
            let id = digest.with_suffix(Suffix::Catalog);
            let bytes = store.get(&id, CATALOG_LIMIT)?;
            let image = database::read(store, &format!("catalog {id}"), &bytes)?;
            let damaged = |reason: String| PublishError::Damaged { what: format!("catalog {id}"), reason };
            for nested in &image.nested {
                let inside = nested.path.starts_with(&path) && nested.path.get(path.len()) == Some(&b'/');
                if !inside {
                    let shown = String::from_utf8_lossy(&nested.path).into_owned();
                    return Err(damaged(format!("it nests {shown}, which is not below it")));
                }
                let digest = nested.digest.parse().map_err(|error| damaged(format!("{error}")))?;
                pending.push((nested.path.clone(), digest));
            }
            if path.is_empty() {
                previous.ttl = image.property("TTL").and_then(|value| value.parse().ok());
                previous.volatile = image.property("volatile") == Some("1");
            }
            if with_files {
                previous.remember_files(&image);
            }
            let (own, subtree) = Counters::from_table(&image.statistics);
            let known = KnownCatalog {
                digest,
                size: bytes.len() as u64,
                revision: image.property("revision").and_then(|value| value.parse().ok()).unwrap_or(0),
                fingerprint: image.fingerprint(),
                own,
                subtree,
            };
            previous.catalogs.insert(path, known);
        }
        Ok(previous)
    }

    fn remember_files(&mut self, image: &Image) {
        let mut chunks: HashMap<PathHash, Vec<&ChunkRow>> = HashMap::new();
        for chunk in &image.chunks {
            chunks.entry(chunk.path).or_default().push(chunk);
        }
        const OTHER: i64 = flags::SYMLINK | flags::SPECIAL | flags::EXTERNAL;
        for row in image.rows.iter().filter(|row| row.flags & flags::FILE != 0 && row.flags & OTHER == 0) {
            let bits = |shift: u32| (row.flags >> shift & 7) as u32;
            let (Some(algorithm), Some(compression), Some(nanoseconds)) = (
                Algorithm::from_catalog_bits(bits(flags::ALGORITHM_SHIFT)),
                Compression::from_catalog_bits(bits(flags::COMPRESSION_SHIFT)),
                row.mtime_ns,
            ) else {
                continue;
            };
            let content = if row.flags & flags::CHUNKED != 0 {
                let parts = chunks.remove(&row.path).unwrap_or_default();
                let parts: Option<Vec<Chunk>> = parts
                    .into_iter()
                    .map(|chunk| {
                        let digest = Digest::from_bytes(algorithm, &chunk.hash)?;
                        Some(Chunk {
                            offset: chunk.offset.try_into().ok()?,
                            size: chunk.size.try_into().ok()?,
                            digest,
                        })
                    })
                    .collect();
                parts.map(Content::Chunks)
            } else {
                row.hash.as_deref().and_then(|hash| Digest::from_bytes(algorithm, hash)).map(Content::Whole)
            };
            if let Some(content) = content {
                let content = StoredContent { content, algorithm, compression };
                self.files
                    .insert(row.path, KnownFile { size: row.size, mtime: (row.mtime, nanoseconds), content });
            }
        }
    }
}
