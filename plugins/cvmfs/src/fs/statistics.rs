//! Numbers: statfs, and what attributes and reports tell.

use std::sync::Arc;

use fuse::Statfs;
use volume::Sample;

use super::filesystem::{Shared, Tree};
use crate::client::snapshot::Snapshot;

/// As the C++ client.
const BLOCK_BYTES: u64 = 512;
/// Least size of a cache without a quota: an empty one is no volume of nothing.
const UNBOUNDED_MIN: u64 = 1 << 30;

/// The cache as a file system: its size is the quota, what is used is the cached content, the inodes are the
/// repository's, and those are used that the kernel knows (as with the C++ client). Who watches volumes for what fills
/// up, as kubelet's users do, sees neither a full volume nor one without inodes.
pub(crate) fn statfs(shared: &Shared) -> Statfs {
    let used = shared.cache.usage();
    // Without a quota there is no size: what is used, and as much again.
    let total = shared.cache.quota().unwrap_or(used.saturating_mul(2).max(UNBOUNDED_MIN)).max(used);
    let files = match &shared.tree {
        Tree::One(served) => entries(&served.repository.snapshot()),
        Tree::All(all, _) => {
            all.open_ones().iter().map(|served| entries(&served.repository.snapshot())).sum()
        }
    };
    // The root is always known; catalogs that are not open yet, or a broken counter, make no volume of nothing.
    let known = u64::try_from(shared.state.nodes()).unwrap_or(0).max(1);
    let files = files.max(known);
    Statfs {
        blocks: total / BLOCK_BYTES,
        free: (total - used) / BLOCK_BYTES,
        files,
        files_free: files - known,
        block_size: BLOCK_BYTES as u32,
        name_max: 255,
    }
}

/// The counters of the root catalog, which sum up those nested in it.
fn counters(snapshot: &Arc<Snapshot>) -> Vec<(String, i64)> {
    match snapshot.catalogs().try_open(snapshot.root()) {
        Ok(Some(catalog)) => catalog.counters().unwrap_or_default(),
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// Files, links, special files and directories of a revision.
fn entries(snapshot: &Arc<Snapshot>) -> u64 {
    let kinds = ["regular", "symlink", "special", "dir"];
    let counted = |name: &str| {
        let kind = name.strip_prefix("self_").or_else(|| name.strip_prefix("subtree_"));
        kind.is_some_and(|kind| kinds.contains(&kind))
    };
    let counters = counters(snapshot);
    let values = counters.iter().filter(|(name, _)| counted(name));
    values.fold(0, |sum: u64, (_, value)| sum.saturating_add(u64::try_from(*value).unwrap_or(0)))
}

/// `user.repo_counters`: one `name,value` for each line.
pub(crate) fn repository_counters(snapshot: &Arc<Snapshot>) -> String {
    counters(snapshot).iter().map(|(name, value)| format!("{name},{value}\n")).collect()
}

/// Objects fetched, of a fetcher's own numbers.
pub(crate) fn downloads(samples: &[Sample]) -> u64 {
    samples
        .iter()
        .filter(|sample| sample.name == "cvmfs_fetches_total")
        .map(|sample| sample.value as u64)
        .sum()
}
