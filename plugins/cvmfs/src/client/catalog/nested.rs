//! The catalogs mounted in a catalog.

use super::file::{CatalogFileError, is_path, scan};
use super::reference::tail;
use super::sqlite::{Database, Schema};
use crate::client::hash::Digest;

/// Most catalogs mounted in one.
const NESTED_MAX: usize = 1 << 18;
/// Most bytes of their paths.
const PATHS_MAX: usize = 32 << 20;

/// A catalog mounted in another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nested {
    /// Mount point in the parent's own paths, strictly below the parent's root.
    pub path: Vec<u8>,
    /// Its object; `None` when the parent's text is no digest.
    pub digest: Option<Digest>,
    /// Bytes of the inflated catalog, where the parent knows.
    pub size: Option<u64>,
    /// It has paths of its own (a bind mount point), not those of the parent.
    pub bind: bool,
}

/// Reads both tables, sorted by path. Rows whose path is not below the catalog's root can never be reached and are left out.
pub(super) fn read(
    database: &Database,
    schema: &Schema,
    root_prefix: &[u8],
) -> Result<Vec<Nested>, CatalogFileError> {
    let mut nested = Vec::new();
    let mut bytes = 0;
    for (name, bind) in [("nested_catalogs", false), ("bind_mountpoints", true)] {
        let Some(table) = schema.table(name) else {
            continue;
        };
        let (Some(path), Some(digest)) = (table.column("path"), table.column("sha1")) else {
            return Err(CatalogFileError::Malformed("its table of nested catalogs lacks columns"));
        };
        let size = table.column("size");
        scan(database, table.root, NESTED_MAX, |record| {
            let path = record.get(path).bytes().flatten().unwrap_or_default();
            if bytes > PATHS_MAX || !is_path(path) || tail(root_prefix, path).is_none_or(<[u8]>::is_empty) {
                return;
            }
            bytes += path.len();
            let digest = record.get(digest).bytes().flatten().and_then(|text| std::str::from_utf8(text).ok());
            nested.push(Nested {
                path: path.to_vec(),
                digest: digest.and_then(|text| text.parse().ok()),
                size: size
                    .and_then(|column| record.get(column).integer())
                    .and_then(|size| u64::try_from(size).ok())
                    .filter(|size| *size > 0),
                bind,
            });
        })?;
    }
    if bytes > PATHS_MAX {
        return Err(CatalogFileError::Malformed("its table of nested catalogs is too large"));
    }
    nested.sort_by(|a: &Nested, b| a.path.cmp(&b.path));
    nested.dedup_by(|later, first| later.path == first.path);
    nested.shrink_to_fit();
    Ok(nested)
}
