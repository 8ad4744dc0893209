//! What changed between two revisions, as far as the kernel can know of it.
//!
//! Catalogs name each other by hash, so equal hashes mean equal subtrees and whole branches are passed over. Where two
//! catalogs at one mount point differ, their rows are merged in the order of their path hashes, streaming. A row that only one
//! of them has may still be there on the other side, when a directory became a nested catalog of its own or ceased to be
//! one: such rows are looked up in the other snapshot. Catalogs of the old revision that were never loaded are left alone:
//! the kernel knows nothing of what is in them.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::client::catalog::{Catalog, CatalogError, CatalogRef, Scan, ScannedRow, explain};
use crate::client::snapshot::{Known, Snapshot};

mod compare;
mod paths;

use compare::{Side, compare};
use paths::Paths;

/// Rows after which other tasks get their turn.
const ROWS_PER_TURN: usize = 256;

/// From one revision to the next.
#[derive(Debug, Clone)]
pub struct Update {
    /// What was served.
    pub old: Arc<Snapshot>,
    /// What is served now.
    pub new: Arc<Snapshot>,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// It is gone, or not listed any more.
    Removed,
    /// It was not there before, or not listed.
    Added,
    /// Another type, content, target, device or group of hard links.
    Content,
    /// Owner, permissions, times, link count, extended attributes.
    Attributes,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    /// Path of the directory it is in (`""` is the root).
    pub parent: Vec<u8>,
    /// Its name; empty for the root directory itself.
    pub name: Vec<u8>,
    /// What happened.
    pub what: What,
}

/// Receives the changes.
pub type Sink<'a> = dyn FnMut(Change) + Send + 'a;

impl Update {
    /// Streams the changed paths into `sink`, in no special order and perhaps more than once. Only catalogs that were
    /// loaded in the old revision, or are in `known` (what an earlier process let the kernel see), are compared; the kernel
    /// knows nothing of others. Those are loaded in the new revision afterwards, so that the next update compares them again.
    ///
    /// # Errors
    /// A catalog of either revision cannot be had. What was streamed until then is true, but not all: the caller forgets
    /// all that the kernel knows.
    pub async fn changes(&self, known: &[CatalogRef], sink: &mut Sink<'_>) -> Result<(), CatalogError> {
        let mut work = vec![Work::Both(Arc::new(self.old.root().clone()), Arc::new(self.new.root().clone()))];
        // What this process compared with the old revision already needs no second comparison.
        let known = if self.old.is_settled() { &[] } else { known };
        for at in known {
            let (served, _) = self.old.catalog_of(&at.mountpoint).await?;
            // The kernel may know rows of a yet older catalog, if a process died while it spread an update.
            if *served != *at && served.digest != at.digest {
                let at = Arc::new(at.clone());
                let (new, _) = self.new.catalog_of(&at.mountpoint).await?;
                if *new == *at {
                    // The kernel has looked at the new revision already.
                    continue;
                }
                let both = new.mountpoint == at.mountpoint;
                work.push(if both { Work::Both(at, new) } else { Work::Old(at) });
            }
        }
        let mut comparison = Comparison { old: &self.old, new: &self.new, sink, rows: 0 };
        while let Some(next) = work.pop() {
            match next {
                Work::Both(old, new) => comparison.both(old, new, &mut work).await?,
                Work::New(new) => comparison.appeared(new, &mut work).await?,
                Work::Old(old) => comparison.vanished(old, &mut work).await?,
            }
        }
        self.new.settle();
        Ok(())
    }
}

/// A part of the comparison.
enum Work {
    /// Two catalogs at one mount point.
    Both(Arc<CatalogRef>, Arc<CatalogRef>),
    /// A new catalog where the old revision had none.
    New(Arc<CatalogRef>),
    /// An old catalog where the new revision has none.
    Old(Arc<CatalogRef>),
}

struct Comparison<'a, 'b> {
    old: &'a Snapshot,
    new: &'a Snapshot,
    sink: &'a mut Sink<'b>,
    rows: usize,
}

impl Comparison<'_, '_> {
    async fn both(
        &mut self,
        old: Arc<CatalogRef>,
        new: Arc<CatalogRef>,
        work: &mut Vec<Work>,
    ) -> Result<(), CatalogError> {
        if old.digest == new.digest {
            self.new.inherit(self.old, &old.mountpoint);
            return Ok(());
        }
        if old.prefix != new.prefix {
            // Their path hashes cannot be compared.
            work.push(Work::Old(old));
            work.push(Work::New(new));
            return Ok(());
        }
        let old_catalog = self.old.catalogs().open(&old).await?;
        let new_catalog = self.new.catalogs().open(&new).await?;
        self.merge((&old, &old_catalog), (&new, &new_catalog)).await?;
        for nested in new_catalog.nested() {
            let Some(mountpoint) = new.outer_path(&nested.path) else {
                continue;
            };
            if !has_nested(&old_catalog, &nested.path) {
                work.push(Work::New(self.new.catalog_of(&mountpoint).await?.0));
            } else if let Some(old) = self.old.mounted_at(&mountpoint) {
                work.push(Work::Both(old, self.new.catalog_of(&mountpoint).await?.0));
            }
        }
        for nested in old_catalog.nested() {
            if !has_nested(&new_catalog, &nested.path)
                && let Some(mountpoint) = old.outer_path(&nested.path)
                && let Some(old) = self.old.mounted_at(&mountpoint)
            {
                work.push(Work::Old(old));
            }
        }
        Ok(())
    }

    async fn merge(
        &mut self,
        (old_at, old): (&CatalogRef, &Catalog),
        (new_at, new): (&CatalogRef, &Catalog),
    ) -> Result<(), CatalogError> {
        let (mut old_rows, mut new_rows) = (old.scan(), new.scan());
        let (mut old_paths, mut new_paths) = (Paths::new(old_at, old), Paths::new(new_at, new));
        let next_old = |rows: &mut Scan<'_>| rows.next().map_err(|error| explain(old_at, error));
        let next_new = |rows: &mut Scan<'_>| rows.next().map_err(|error| explain(new_at, error));
        let mut old_row = next_old(&mut old_rows)?;
        let mut new_row = next_new(&mut new_rows)?;
        loop {
            self.take_turns().await;
            let order = match (&old_row, &new_row) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.path.cmp(&new.path),
            };
            match order {
                Ordering::Equal => {
                    let (Some(before), Some(after)) = (&old_row, &new_row) else { return Ok(()) };
                    let before =
                        Side { at: old_at, catalog: old, row: before.path, entry: before.entry.as_ref() };
                    let entry = after.entry.as_ref();
                    let what = compare(before, Side { at: new_at, catalog: new, row: after.path, entry })?;
                    if let Some(what) = what
                        && let Some(path) = new_paths.path(after)?
                    {
                        self.emit(&path, what);
                    }
                    old_row = next_old(&mut old_rows)?;
                    new_row = next_new(&mut new_rows)?;
                }
                Ordering::Less => {
                    let Some(row) = &old_row else { return Ok(()) };
                    if let Some(path) = old_paths.path(row)? {
                        let inner = new_at.inner_path(&path);
                        if inner.is_some_and(|inner| new.nested_towards(&inner).is_some()) {
                            self.old_row((old_at, old), row, &path).await?;
                        } else {
                            self.emit(&path, What::Removed);
                        }
                    }
                    old_row = next_old(&mut old_rows)?;
                }
                Ordering::Greater => {
                    let Some(row) = &new_row else { return Ok(()) };
                    if let Some(path) = new_paths.path(row)? {
                        let inner = old_at.inner_path(&path);
                        if inner.is_some_and(|inner| old.nested_towards(&inner).is_some()) {
                            self.new_row((new_at, new), row, &path).await?;
                        } else {
                            self.emit(&path, What::Added);
                        }
                    }
                    new_row = next_new(&mut new_rows)?;
                }
            }
        }
    }

    async fn appeared(&mut self, new: Arc<CatalogRef>, work: &mut Vec<Work>) -> Result<(), CatalogError> {
        let catalog = self.new.catalogs().open(&new).await?;
        let mut rows = catalog.scan();
        let mut paths = Paths::new(&new, &catalog);
        while let Some(row) = rows.next().map_err(|error| explain(&new, error))? {
            self.take_turns().await;
            if let Some(path) = paths.path(&row)? {
                self.new_row((&new, &catalog), &row, &path).await?;
            }
        }
        for nested in catalog.nested() {
            let Some(mountpoint) = new.outer_path(&nested.path) else {
                continue;
            };
            if let Some(old) = self.old.mounted_at(&mountpoint) {
                work.push(Work::Both(old, self.new.catalog_of(&mountpoint).await?.0));
            } else if self.old.is_known_below(&mountpoint).await? {
                work.push(Work::New(self.new.catalog_of(&mountpoint).await?.0));
            }
        }
        Ok(())
    }

    async fn vanished(&mut self, old: Arc<CatalogRef>, work: &mut Vec<Work>) -> Result<(), CatalogError> {
        let catalog = self.old.catalogs().open(&old).await?;
        let mut rows = catalog.scan();
        let mut paths = Paths::new(&old, &catalog);
        while let Some(row) = rows.next().map_err(|error| explain(&old, error))? {
            self.take_turns().await;
            if let Some(path) = paths.path(&row)? {
                self.old_row((&old, &catalog), &row, &path).await?;
            }
        }
        for nested in catalog.nested() {
            if let Some(mountpoint) = old.outer_path(&nested.path)
                && let Some(child) = self.old.mounted_at(&mountpoint)
            {
                let (new, _) = self.new.catalog_of(&mountpoint).await?;
                let both = new.mountpoint == mountpoint;
                work.push(if both { Work::Both(child, new) } else { Work::Old(child) });
            }
        }
        Ok(())
    }

    /// A row of the old revision that the new one may have in another catalog.
    async fn old_row(
        &mut self,
        (at, catalog): (&CatalogRef, &Catalog),
        row: &ScannedRow,
        path: &[u8],
    ) -> Result<(), CatalogError> {
        let old = Side { at, catalog, row: row.path, entry: row.entry.as_ref() };
        match self.new.lookup(path).await {
            Ok(None) => self.emit(path, What::Removed),
            Ok(Some(found)) => {
                let catalog = self.new.catalogs().open(&found.catalog).await?;
                self.emit_if(path, compare(old, Side::located(&found, &catalog, path)?)?);
            }
            // An entry that makes no sense.
            Err(CatalogError::Entry(_)) => self.emit(path, What::Content),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// A row of the new revision that the old one may have in another catalog.
    async fn new_row(
        &mut self,
        (at, catalog): (&CatalogRef, &Catalog),
        row: &ScannedRow,
        path: &[u8],
    ) -> Result<(), CatalogError> {
        let new = Side { at, catalog, row: row.path, entry: row.entry.as_ref() };
        match self.old.known(path).await {
            Ok(Known::Unknown) => {}
            Ok(Known::Nothing) => self.emit(path, What::Added),
            Ok(Known::Entry(found)) => {
                let catalog = self.old.catalogs().open(&found.catalog).await?;
                self.emit_if(path, compare(Side::located(&found, &catalog, path)?, new)?);
            }
            Err(CatalogError::Entry(_)) => self.emit(path, What::Content),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn emit_if(&mut self, path: &[u8], what: Option<What>) {
        if let Some(what) = what {
            self.emit(path, what);
        }
    }

    fn emit(&mut self, path: &[u8], what: What) {
        let slash = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = slash.map_or((path, &[][..]), |slash| (&path[..slash], &path[slash + 1..]));
        (self.sink)(Change { parent: parent.to_vec(), name: name.to_vec(), what });
    }

    async fn take_turns(&mut self) {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_PER_TURN) {
            tokio::task::yield_now().await;
        }
    }
}

fn has_nested(catalog: &Catalog, path: &[u8]) -> bool {
    catalog.nested().binary_search_by(|nested| nested.path.as_slice().cmp(path)).is_ok()
}

#[cfg(test)]
mod tests;
