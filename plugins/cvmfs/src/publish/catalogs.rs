//! From the tree and its stored contents to catalogs: leaves first, since a catalog names those nested in it by hash.
//!
//! A catalog in which nothing changed keeps its object; so a change deep in the tree costs the catalogs on the way to the root.

use std::collections::HashMap;

use super::content::{Content, StoredContent};
use super::counters::Counters;
use super::database;
use super::error::PublishError;
use super::image::{ChunkRow, Image, NestedRow, Row, flags, storage_flags};
use super::options::Progress;
use super::previous::Previous;
use super::scan::{Entry, EntryId, Kind, Tree};
use super::store::Store;
use crate::client::hash::{Algorithm, Compression, Digest, PathHash, Suffix};

/// What directories have for a size: the C++ tools store what their file system said, which differs between machines.
const DIRECTORY_SIZE: i64 = 4096;

/// What the new root catalog says of its revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) algorithm: Algorithm,
    /// Revision of the root catalog, should it have changed.
    pub(super) revision: u64,
    /// Root catalog of the previous revision.
    pub(super) previous_root: Option<Digest>,
    pub(super) ttl: u64,
    pub(super) volatile: bool,
    /// Seconds since 1970.
    pub(super) now: i64,
    /// Keep groups of hard links.
    pub(super) hard_links: bool,
}

/// The catalogs of a publication.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) root: Digest,
    pub(super) root_size: u64,
    /// How many are new; 0 when nothing changed.
    pub(super) catalogs: u64,
}

/// A catalog that is done, for its parent.
struct Done {
    digest: Digest,
    size: u64,
    /// Own and subtree counters.
    sum: Counters,
}

/// Writes all catalogs of a tree that differ from the previous revision's.
pub(super) fn write(
    tree: &Tree,
    owners: &[EntryId],
    contents: &[Option<StoredContent>],
    previous: &Previous,
    store: &Store,
    header: &Header,
    progress: &dyn Progress,
) -> Result<Written, PublishError> {
    let mut members: HashMap<EntryId, Vec<EntryId>> = HashMap::new();
    for (id, owner) in owners.iter().enumerate() {
        members.entry(*owner).or_default().push(id);
        if *owner == id && id != 0 {
            members.entry(owners[tree.entries[id].parent]).or_default().push(id);
        }
    }
    let mut roots: Vec<EntryId> = members.keys().copied().collect();
    // Children have greater ids than their parents.
    roots.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
    let mut done: HashMap<EntryId, Done> = HashMap::new();
    let mut written = 0;
    for root in roots {
        if progress.cancelled() {
            return Err(PublishError::Cancelled);
        }
        let inside = members.remove(&root).unwrap_or_default();
        let mut image = Image::default();
        let mut subtree = Counters::default();
        fill(&mut image, tree, root, &inside, owners, contents, header.hard_links);
        for id in inside.iter().filter(|id| owners[**id] == **id && **id != root) {
            let child = done.remove(id).expect("nested catalogs come before those that nest them");
            subtree.add(&child.sum);
            let digest = child.digest.to_string();
            image.nested.push(NestedRow { path: tree.path(*id), digest, size: child.size as i64 });
        }
        let finished = finish(image, &tree.path(root), subtree, previous, store, header, &mut written)?;
        done.insert(root, finished);
    }
    let root = done.remove(&0).expect("the root directory always has a catalog");
    Ok(Written { root: root.digest, root_size: root.size, catalogs: written })
}

/// Stores a catalog, unless the previous revision's is the same.
fn finish(
    mut image: Image,
    path: &[u8],
    subtree: Counters,
    previous: &Previous,
    store: &Store,
    header: &Header,
    written: &mut u64,
) -> Result<Done, PublishError> {
    let own = Counters::of(&image);
    let mut sum = own;
    sum.add(&subtree);
    let known = previous.catalogs.get(path);
    image.properties = properties(path, header, known.map(|known| (known.revision, known.digest)));
    image.statistics = Counters::table(&own, &subtree);
    if let Some(known) = known
        && known.fingerprint == image.fingerprint()
        && (known.own, known.subtree) == (own, subtree)
        && known.digest.algorithm == header.algorithm
    {
        return Ok(Done { digest: known.digest, size: known.size, sum });
    }
    let (digest, size) = put(store, &image, header.algorithm)?;
    *written += 1;
    Ok(Done { digest, size, sum })
}

/// Stores a catalog: its hash and its bytes before compression.
pub(super) fn put(store: &Store, image: &Image, algorithm: Algorithm) -> Result<(Digest, u64), PublishError> {
    let bytes = database::write(store, image)?;
    let digest = store.put_bytes(&bytes, algorithm, Compression::Zlib, Suffix::Catalog)?;
    Ok((digest, bytes.len() as u64))
}

fn properties(path: &[u8], header: &Header, known: Option<(u64, Digest)>) -> Vec<(String, Vec<u8>)> {
    let mut properties: Vec<(&str, Vec<u8>)> =
        vec![("schema", "2.5".into()), ("schema_revision", "7".into())];
    let (revision, previous) = if path.is_empty() {
        if header.volatile {
            properties.push(("volatile", "1".into()));
        }
        properties.push(("TTL", header.ttl.to_string().into()));
        (header.revision, header.previous_root)
    } else {
        properties.push(("root_prefix", path.to_vec()));
        (known.map_or(1, |(revision, _)| revision + 1), known.map(|(_, digest)| digest))
    };
    properties.push(("last_modified", header.now.to_string().into()));
    properties.push(("revision", revision.to_string().into()));
    let previous = previous.map_or_else(|| "0".repeat(40), |digest| digest.to_string());
    properties.push(("previous_revision", previous.into()));
    properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn fill(
    image: &mut Image,
    tree: &Tree,
    root: EntryId,
    inside: &[EntryId],
    owners: &[EntryId],
    contents: &[Option<StoredContent>],
    hard_links: bool,
) {
    let links = if hard_links { link_groups(tree, inside) } else { HashMap::new() };
    for id in inside {
        let entry = &tree.entries[*id];
        let path = PathHash::of(&tree.path(*id));
        let parent = if *id == 0 { PathHash::NONE } else { PathHash::of(&tree.path(entry.parent)) };
        let mut row = base_row(entry, path, parent);
        match &entry.kind {
            Kind::Directory { subdirectories } => {
                row.flags = flags::DIRECTORY;
                row.size = DIRECTORY_SIZE;
                row.hardlinks = 2 + i64::from(*subdirectories);
                if *id == root && *id != 0 {
                    row.flags |= flags::NESTED_ROOT;
                } else if owners[*id] == *id && *id != 0 {
                    row.flags |= flags::MOUNTPOINT;
                }
            }
            Kind::Symlink(target) => {
                row.flags = flags::FILE | flags::SYMLINK;
                row.size = target.len() as i64;
                row.symlink.clone_from(target);
            }
            Kind::Special(device) => {
                row.flags = flags::FILE | flags::SPECIAL;
                row.size = *device as i64;
            }
            Kind::File(identity) => {
                row.size = identity.size as i64;
                row.hardlinks = links.get(&identity.inode()).copied().unwrap_or(1);
                let stored = contents[*id].as_ref().expect("every file's content has been stored");
                row.flags = flags::FILE | storage_flags(stored.algorithm, stored.compression);
                match &stored.content {
                    Content::Whole(digest) => row.hash = Some(digest.bytes.to_vec()),
                    Content::Chunks(chunks) => {
                        row.flags |= flags::CHUNKED;
                        image.chunks.extend(chunks.iter().map(|chunk| ChunkRow {
                            path,
                            offset: chunk.offset as i64,
                            size: chunk.size as i64,
                            hash: chunk.digest.bytes.to_vec(),
                        }));
                    }
                }
            }
        }
        image.rows.push(row);
    }
}

fn base_row(entry: &Entry, path: PathHash, parent: PathHash) -> Row {
    Row {
        path,
        parent,
        hardlinks: 1,
        hash: None,
        size: 0,
        mode: entry.mode.into(),
        mtime: entry.mtime,
        mtime_ns: Some(entry.mtime_ns.into()),
        flags: 0,
        name: entry.name.to_vec(),
        symlink: Vec::new(),
        uid: entry.uid.into(),
        gid: entry.gid.into(),
        xattr: entry.xattr.as_deref().map(<[u8]>::to_vec),
    }
}

/// The `hardlinks` column of files with several names in one catalog. Groups are numbered from 1; a file whose other names are in
/// other catalogs, or outside of the tree, is a file of its own.
fn link_groups(tree: &Tree, inside: &[EntryId]) -> HashMap<(u64, u64), i64> {
    let mut counts: Vec<((u64, u64), i64)> = Vec::new();
    let mut index: HashMap<(u64, u64), usize> = HashMap::new();
    for id in inside {
        let entry = &tree.entries[*id];
        if let Kind::File(identity) = entry.kind
            && entry.linked
        {
            let at = *index.entry(identity.inode()).or_insert_with(|| {
                counts.push((identity.inode(), 0));
                counts.len() - 1
            });
            counts[at].1 += 1;
        }
    }
    let groups = counts.into_iter().filter(|(_, count)| *count > 1).enumerate();
    groups.map(|(group, (inode, count))| (inode, (group as i64 + 1) << 32 | count)).collect()
}
