//! A repository that the test publishes itself, behind a server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cvmfs::publish::serve::ServingFiles;
use cvmfs::publish::{Chunking, CreateOptions, PublishOptions, Publisher, SigningKeys};
use tempfile::TempDir;
use volume::Revision;

use crate::harness::{Setup, server};

pub(crate) const NAME: &str = "own.example.org";

pub(crate) struct Published {
    pub(crate) publisher: Publisher,
    pub(crate) server: Option<ServingFiles>,
    pub(crate) directory: TempDir,
}

impl Published {
    pub(crate) fn new() -> Published {
        let directory = tempfile::tempdir().unwrap();
        let keys = SigningKeys::generate(NAME).unwrap();
        std::fs::write(directory.path().join("key.pub"), keys.public_key_pem()).unwrap();
        std::fs::create_dir_all(directory.path().join("tree")).unwrap();
        let options = CreateOptions { ttl: Duration::from_secs(3600), ..CreateOptions::new(NAME) };
        let root = directory.path().join("www/cvmfs").join(NAME);
        let publisher = Publisher::create(&root, keys, &options).unwrap();
        let server = Some(server(&directory.path().join("www")));
        Published { publisher, server, directory }
    }

    /// What is published next.
    pub(crate) fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.tree().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub(crate) fn publish(&self) -> u64 {
        let chunking = Chunking { threshold: 1 << 20, min: 64 << 10, average: 128 << 10, max: 256 << 10 };
        let options = PublishOptions { chunking: Some(chunking), ..PublishOptions::default() };
        self.publisher.publish(&self.tree(), &options, &()).unwrap().revision
    }

    pub(crate) fn setup(&self) -> Setup {
        let url = self.server.as_ref().unwrap().url(&format!("cvmfs/{NAME}"));
        Setup {
            repository: NAME.to_owned(),
            revision: Revision::Trunk,
            parameters: vec![("CVMFS_SERVER_URL".into(), url)],
            key: self.directory.path().join("key.pub"),
            cache: self.directory.path().join("cache"),
            deadline: Duration::from_secs(10),
        }
    }
}

/// Bytes that do not repeat and differ by seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Names in a directory, sorted.
pub(crate) fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
