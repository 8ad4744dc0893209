//! What the reference backend remembers, as one JSON file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use volume::{Fault, FaultKind, OptionMap, Page, PageRequest, Segments, Source, StoredGroup, StoredSnapshot};

use super::{failed, not_found};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The number of the newest id; never used twice.
    pub(super) newest: u64,
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) snapshots: BTreeMap<String, Snapshot>,
    pub(super) groups: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) block: bool,
    pub(super) parameters: OptionMap,
    pub(super) mutable: OptionMap,
    pub(super) source: Option<Source>,
    /// Node -> how it is published there.
    pub(super) published: BTreeMap<String, Publication>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Publication {
    pub(super) read_only: bool,
    pub(super) single_node: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// The caller's name; empty for a group's.
    pub(super) name: String,
    pub(super) volume: String,
    pub(super) size: u64,
    pub(super) created_at: std::time::SystemTime,
    pub(super) group: Option<String>,
    pub(super) places: Vec<Segments>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) volumes: Vec<String>,
    pub(super) snapshots: Vec<String>,
    pub(super) created_at: std::time::SystemTime,
}

impl State {
    pub(super) fn load(path: &Path) -> Result<State, Fault> {
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| failed("load", error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(failed("load", error)),
        }
    }

    pub(super) fn save(&self, path: &Path) -> Result<(), Fault> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed("save", error))?;
        host::atomic::replace(path, &text, 0o600).map_err(|error| failed("save", error))
    }

    /// An id that was never used: `vol-00000007`.
    pub(super) fn new_id(&mut self, kind: &str) -> String {
        self.newest += 1;
        format!("{kind}-{:08}", self.newest)
    }

    pub(super) fn volume(&self, op: &str, id: &str) -> Result<&Volume, Fault> {
        self.volumes.get(id).ok_or_else(|| not_found(op, "volume", id))
    }

    pub(super) fn volume_mut(&mut self, op: &str, id: &str) -> Result<&mut Volume, Fault> {
        self.volumes.get_mut(id).ok_or_else(|| not_found(op, "volume", id))
    }

    pub(super) fn snapshot(&self, op: &str, id: &str) -> Result<StoredSnapshot, Fault> {
        let snapshot = self.snapshots.get(id).ok_or_else(|| not_found(op, "snapshot", id))?;
        Ok(snapshot.stored(id))
    }

    pub(super) fn group(&self, op: &str, id: &str) -> Result<StoredGroup, Fault> {
        let group = self.groups.get(id).ok_or_else(|| not_found(op, "group of snapshots", id))?;
        let members = group.snapshots.iter().map(|snapshot| self.snapshot(op, snapshot));
        let snapshots = members.collect::<Result<_, _>>()?;
        Ok(StoredGroup { id: id.to_owned(), snapshots, created_at: group.created_at, ready: true })
    }
}

impl Snapshot {
    pub(super) fn stored(&self, id: &str) -> StoredSnapshot {
        StoredSnapshot {
            id: id.to_owned(),
            volume: self.volume.clone(),
            size: self.size,
            created_at: self.created_at,
            ready: true,
            group: self.group.clone(),
            places: self.places.clone(),
        }
    }
}

/// A part of `entries`, which are sorted by id. A token is `after-` and the last id given out, so it stays good when that
/// one is removed meanwhile.
pub(super) fn page<T>(
    entries: Vec<(String, T)>,
    request: &PageRequest,
    newest: u64,
) -> Result<Page<T>, Fault> {
    let after = request.start.as_deref().map(|token| {
        let id = token.strip_prefix("after-");
        let number = id.and_then(|id| id.rsplit_once('-')?.1.parse().ok());
        match (id, number) {
            (Some(id), Some(1..)) if number <= Some(newest) => Ok(id.to_owned()),
            _ => Err(Fault::new(FaultKind::InvalidArgument, "list from", token, "it is no token of ours")),
        }
    });
    let after = after.transpose()?;
    let limit = if request.limit == 0 { usize::MAX } else { request.limit };
    let mut rest = entries.into_iter().filter(|(id, _)| after.as_ref().is_none_or(|after| id > after));
    let (ids, entries): (Vec<String>, Vec<T>) = rest.by_ref().take(limit).unzip();
    let more = rest.next().is_some();
    let next = ids.last().filter(|_| more).map(|last| format!("after-{last}"));
    Ok(Page { entries, next })
}
