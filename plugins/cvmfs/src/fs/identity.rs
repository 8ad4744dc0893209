//! What a node id is made of.
//!
//! A node id must mean the same to the next worker, in whatever order it opens repositories and directories, and
//! must change when content changes, so that open files keep theirs. So it is a digest of the repository, the path and
//! the *content identity*: the object of a regular file (all chunks of a chunked one), the target of a symlink, the
//! number of a device, nothing for a directory, whose changes are told to the kernel instead. Hard links are one
//! inode: of them not the path counts but the catalog's mount point and the group's number.
//!
//! A directory's key has no catalog in it, so the mount point of a nested catalog keeps its number when
//! that catalog is loaded.

use super::state::NodeKey;
use crate::client::catalog::{Chunk, Dirent, Kind, Located};
use crate::client::hash::Digest;

/// The key of a directory.
pub(crate) fn directory(repository: &str, path: &[u8]) -> NodeKey {
    Key::new(repository, b'd').bytes(path).finish()
}

/// The key of an entry; `chunks` are those of a chunked file.
pub(crate) fn entry(repository: &str, path: &[u8], located: &Located, chunks: &[Chunk]) -> NodeKey {
    let Dirent { kind, link_group, .. } = &located.dirent;
    let key = |letter: u8| {
        if *link_group == 0 {
            Key::new(repository, letter).bytes(path)
        } else {
            let upper = letter.to_ascii_uppercase();
            Key::new(repository, upper).bytes(&located.catalog.mountpoint).number(u64::from(*link_group))
        }
    };
    match kind {
        Kind::Directory { .. } => return directory(repository, path),
        Kind::Regular(content) => {
            let flags = u64::from(content.chunked) | u64::from(content.external) << 1;
            let key = key(b'f').number(content.size).number(flags);
            let key = key.number(u64::from(content.compression.catalog_bits()));
            if content.chunked {
                chunks.iter().fold(key, |key, chunk| key.number(chunk.offset).digest(&chunk.digest))
            } else {
                content.digest.iter().fold(key, |key, digest| key.digest(digest))
            }
        }
        Kind::Symlink(target) => key(b'l').bytes(target),
        Kind::Fifo => key(b'p'),
        Kind::Socket => key(b's'),
        Kind::CharDevice(number) => key(b'c').number(u64::from(*number)),
        Kind::BlockDevice(number) => key(b'b').number(u64::from(*number)),
    }
    .finish()
}

/// Every part carries its length, so that no two lists of parts are the same bytes.
struct Key(blake3::Hasher);

impl Key {
    fn new(repository: &str, letter: u8) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"volplane node\n").update(&[letter]);
        Key(hasher).bytes(repository.as_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    fn number(mut self, number: u64) -> Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn digest(self, digest: &Digest) -> Self {
        self.number(u64::from(digest.algorithm.catalog_bits())).bytes(&digest.bytes)
    }

    fn finish(self) -> NodeKey {
        let mut key = [0; 16];
        self.0.finalize_xof().fill(&mut key);
        NodeKey(key)
    }
}
