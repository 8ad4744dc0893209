//! Listings.
//!
//! A handle stands for a directory of one catalog, so that a listing in progress goes on unchanged when a new revision
//! comes, and in the next worker. The cookie of a row is its number in that catalog plus 2; 1 and 2 are `.` and `..`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuse::{DirEntry, DirectoryBuffer, Entry, FileKind, NodeId, OpenMode, Opened};

use super::error::FsError;
use super::filesystem::{Shared, Target, Tree};
use super::identity;
use super::place::Place;
use super::served::Node;
use super::view;
use crate::client::catalog::{CatalogRef, Dirent, Kind, Located, MountPoint, Row, Tried};

const DOT: u64 = 1;
const DOT_DOT: u64 = 2;
/// Rows taken from a catalog at once.
const BATCH: usize = 128;

/// Where a listing goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From {
    pub(crate) node: u64,
    pub(crate) handle: u64,
    pub(crate) offset: u64,
    pub(crate) plus: bool,
}

/// Opens a directory.
pub(crate) async fn open(shared: &Shared, id: u64) -> Result<Opened, FsError> {
    let node = match shared.target(id).await? {
        Target::Entry(node) => node,
        // Changes whenever a repository opens, so the kernel keeps no copy.
        Target::Top => return Ok(Opened { handle: 0, mode: OpenMode::Direct }),
    };
    let located = node.directory().await?;
    let place = Place::encode(node.served.name(), &located.catalog);
    let handle = shared.state.open_directory(id, &place).map_err(FsError::State)?;
    let keep = !node.served.view.ttl.found.is_zero();
    Ok(Opened { handle, mode: if keep { OpenMode::Cached } else { OpenMode::Direct } })
}

/// Fills the buffer with the next rows.
pub(crate) async fn read(
    shared: &Shared,
    from: From,
    mut buffer: DirectoryBuffer,
) -> Result<DirectoryBuffer, FsError> {
    let node = match (shared.target(from.node).await?, &shared.tree) {
        (Target::Entry(node), _) => node,
        (Target::Top, Tree::All(all, _)) => {
            top(shared, &all.names(), from, &mut buffer);
            return Ok(buffer);
        }
        (Target::Top, Tree::One(_)) => return Err(FsError::Stale),
    };
    let place = shared.state.directory(from.node, from.handle);
    let at = place.as_deref().and_then(Place::decode).ok_or(FsError::Stale)?.catalog;
    let catalogs = node.served.repository.catalogs();
    if !dots(shared, parent(shared, &node), from, &mut buffer) {
        return Ok(buffer);
    }
    let mut after = i64::try_from(from.offset.saturating_sub(DOT_DOT)).map_err(|_| FsError::WrongType)?;
    loop {
        let rows = catalogs.list(&at, &node.path, after, BATCH).await?;
        let more = rows.len() == BATCH;
        for row in rows {
            after = row.cookie;
            if !push(shared, &node, &at, row, from.plus, &mut buffer).await? {
                return Ok(buffer);
            }
        }
        if !more {
            return Ok(buffer);
        }
    }
}

/// The inode number of `..`.
fn parent(shared: &Shared, node: &Node) -> u64 {
    match node.path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => node.served.directory_id(&shared.state, &node.path[..slash]),
        None => NodeId::ROOT.0,
    }
}

/// The rows `.` and `..`; `false` when the buffer is full.
fn dots(_shared: &Shared, parent: u64, from: From, buffer: &mut DirectoryBuffer) -> bool {
    for (cookie, name, ino) in [(DOT, ".", from.node), (DOT_DOT, "..", parent)] {
        if from.offset < cookie {
            let row = DirEntry { name: OsStr::new(name), ino, kind: FileKind::Directory, next: cookie };
            if !push_row(buffer, row, from.plus) {
                return false;
            }
        }
    }
    true
}

/// A row without attributes, in the form that the kernel asked for.
fn push_row(buffer: &mut DirectoryBuffer, row: DirEntry<'_>, plus: bool) -> bool {
    if plus {
        buffer.push_plus(row, Entry { node: None, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO })
    } else {
        buffer.push(row)
    }
}

fn top(
    shared: &Shared,
    names: &std::collections::BTreeMap<u64, String>,
    from: From,
    buffer: &mut DirectoryBuffer,
) {
    if !dots(shared, NodeId::ROOT.0, from, buffer) {
        return;
    }
    for (cookie, name) in names.range(from.offset.saturating_add(1).max(DOT_DOT + 1)..) {
        let ino = shared.state.id_of(identity::directory(name, b""));
        let row = DirEntry { name: OsStr::new(name), ino, kind: FileKind::Directory, next: *cookie };
        if !push_row(buffer, row, from.plus) {
            return;
        }
    }
}

/// Adds a row; `false` when the buffer is full.
async fn push(
    shared: &Shared,
    node: &Node,
    at: &CatalogRef,
    row: Row,
    plus: bool,
    buffer: &mut DirectoryBuffer,
) -> Result<bool, FsError> {
    let next = row.cookie as u64 + DOT_DOT;
    let dirent = match row.entry {
        Ok(dirent) => dirent,
        Err(bad) => {
            // It is there, but a lookup says EIO.
            let Some(name) = bad.name else { return Ok(true) };
            let name = OsStr::from_bytes(&name);
            return Ok(push_row(
                buffer,
                DirEntry { name, ino: 0x7fff_ffff, kind: FileKind::Regular, next },
                plus,
            ));
        }
    };
    let path = node.child(&dirent.name);
    let located = newest(node, at, &path, dirent);
    let served = &node.served;
    let name = located.dirent.name.clone();
    let kind = view::file_kind(&located.dirent.kind);
    let key = match served.key(&path, &located).await {
        Ok(key) => key,
        // A file whose chunks make no sense is listed, and says EIO when it is looked up.
        Err(FsError::Catalog(_)) => {
            let row = DirEntry { name: OsStr::from_bytes(&name), ino: 0x7fff_ffff, kind, next };
            return Ok(push_row(buffer, row, plus));
        }
        Err(error) => return Err(error),
    };
    if !plus {
        let ino = shared.state.id_of(key);
        return Ok(buffer.push(DirEntry { name: OsStr::from_bytes(&name), ino, kind, next }));
    }
    // Counted before the kernel can know of it.
    let id = served.remember(&shared.state, key, &path, &located.catalog)?;
    let ttl = served.view.ttl.found;
    let attr = served.view.attr(id, &located.dirent);
    let entry = Entry { node: Some((NodeId(id), attr)), entry_ttl: ttl, attr_ttl: ttl };
    let row = DirEntry { name: OsStr::from_bytes(&name), ino: id, kind, next };
    let fits = buffer.push_plus(row, entry);
    if !fits {
        shared.state.forget(id, 1).map_err(FsError::State)?;
    }
    Ok(fits)
}

/// The row of a nested catalog's mount point as the catalog itself says it, if that is loaded: as a lookup would.
fn newest(node: &Node, at: &CatalogRef, path: &[u8], dirent: Dirent) -> Located {
    if let Kind::Directory { mount: MountPoint::Nested | MountPoint::Bind, .. } = dirent.kind {
        let snapshot = node.served.repository.snapshot();
        if let Ok(Tried::Ready(Some(mut located))) = snapshot.try_lookup(path) {
            // The root row of a catalog may carry another name.
            located.dirent.name = dirent.name;
            return located;
        }
    }
    Located { catalog: Arc::new(at.clone()), dirent }
}
