//! Whether two entries of one path differ, and how.

use super::What;
use crate::client::catalog::{
    BadEntry, Catalog, CatalogError, CatalogRef, Dirent, FileContent, Kind, Located, explain,
};
use crate::client::hash::PathHash;

/// An entry and where it is.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) at: &'a CatalogRef,
    pub(super) catalog: &'a Catalog,
    pub(super) row: PathHash,
    pub(super) entry: Result<&'a Dirent, &'a BadEntry>,
}

impl<'a> Side<'a> {
    /// An entry that was looked up.
    pub(super) fn located(
        found: &'a Located,
        catalog: &'a Catalog,
        path: &[u8],
    ) -> Result<Self, CatalogError> {
        let row = found.catalog.path_hash(path).ok_or_else(|| CatalogError::Path(path.to_vec()))?;
        Ok(Side { at: &found.catalog, catalog, row, entry: Ok(&found.dirent) })
    }
}

/// What happened from `old` to `new`; `None` when nothing that can be seen did.
pub(super) fn compare(old: Side<'_>, new: Side<'_>) -> Result<Option<What>, CatalogError> {
    let (before, after) = match (old.entry, new.entry) {
        (Ok(before), Ok(after)) => (before, after),
        (Err(before), Err(after)) => return Ok((before.reason != after.reason).then_some(What::Content)),
        (Ok(_), Err(_)) | (Err(_), Ok(_)) => return Ok(Some(What::Content)),
    };
    if before.hidden != after.hidden {
        return Ok(Some(if after.hidden { What::Removed } else { What::Added }));
    }
    let same_content = match (&before.kind, &after.kind) {
        (Kind::Regular(one), Kind::Regular(other)) => same_file(old, one, new, other)?,
        (Kind::Directory { .. }, Kind::Directory { .. })
        | (Kind::Fifo, Kind::Fifo)
        | (Kind::Socket, Kind::Socket) => true,
        (Kind::Symlink(one), Kind::Symlink(other)) => one == other,
        (Kind::CharDevice(one), Kind::CharDevice(other))
        | (Kind::BlockDevice(one), Kind::BlockDevice(other)) => one == other,
        _ => false,
    };
    if !same_content || before.link_group != after.link_group {
        return Ok(Some(What::Content));
    }
    Ok((!same_attributes(before, after)).then_some(What::Attributes))
}

fn same_file(
    old: Side<'_>,
    before: &FileContent,
    new: Side<'_>,
    after: &FileContent,
) -> Result<bool, CatalogError> {
    if (before.size, before.chunked, before.external, before.algorithm)
        != (after.size, after.chunked, after.external, after.algorithm)
    {
        return Ok(false);
    }
    if !before.chunked {
        return Ok(before.digest == after.digest);
    }
    let chunks = |side: Side<'_>, content: &FileContent| {
        side.catalog.chunks_of(side.row, content).map_err(|error| explain(side.at, error))
    };
    // Two lists that make no sense are the same EIO.
    Ok(chunks(old, before)?.ok() == chunks(new, after)?.ok())
}

/// Whether a directory is a mount point cannot be seen, so that is not compared.
fn same_attributes(before: &Dirent, after: &Dirent) -> bool {
    let size = |kind: &Kind| match kind {
        Kind::Directory { size, .. } => *size,
        Kind::Regular(content) => u64::from(content.direct_io),
        Kind::Symlink(_) | Kind::Fifo | Kind::Socket | Kind::CharDevice(_) | Kind::BlockDevice(_) => 0,
    };
    before.permissions == after.permissions
        && before.uid == after.uid
        && before.gid == after.gid
        && before.mtime == after.mtime
        && before.links == after.links
        && before.xattrs == after.xattrs
        && size(&before.kind) == size(&after.kind)
}
