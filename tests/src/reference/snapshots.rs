//! Snapshots: copies of an image.

use std::time::SystemTime;

use async_trait::async_trait;
use volume::{
    Fault, FaultKind, OptionMap, Page, PageRequest, Secrets, Segments, SnapshotFilter, Snapshots,
    StoredSnapshot,
};

use super::state::{Snapshot, State};
use super::{Inner, Reference, copy_image, failed, state};

#[async_trait]
impl Snapshots for Reference {
    fn are_placed(&self) -> bool {
        !self.inner.config.place.is_empty()
    }

    async fn snapshot(
        &self,
        name: &str,
        volume: &str,
        places: &[Segments],
        _parameters: &OptionMap,
        secrets: &Secrets,
    ) -> Result<StoredSnapshot, Fault> {
        self.admit("take a snapshot of", volume, secrets)?;
        let (name, volume) = (name.to_owned(), volume.to_owned());
        if !places.is_empty() && !places.contains(&self.inner.config.place) {
            let detail = "the storage is in none of the places asked for";
            return Err(Fault::new(FaultKind::ResourceExhausted, "take a snapshot", name, detail));
        }
        self.change(move |inner, state| {
            if let Some((id, there)) = state.snapshots.iter().find(|(_, one)| one.name == name) {
                if there.volume == volume {
                    return Ok(there.stored(id));
                }
                let detail = "the name is taken by a snapshot of another volume";
                return Err(Fault::new(FaultKind::AlreadyExists, "take a snapshot", name, detail));
            }
            take(inner, state, &name, &volume, None)
        })
        .await
    }

    async fn delete_snapshot(&self, id: &str, secrets: &Secrets) -> Result<(), Fault> {
        self.admit("delete", id, secrets)?;
        let id = id.to_owned();
        self.change(move |inner, state| match state.snapshots.get(&id) {
            None => Ok(()),
            Some(snapshot) if snapshot.group.is_some() => {
                let detail = "it belongs to a group; delete the group";
                Err(Fault::new(FaultKind::InUse, "delete", id, detail))
            }
            Some(_) => drop_snapshot(inner, state, &id),
        })
        .await
    }

    async fn snapshots(
        &self,
        filter: &SnapshotFilter,
        request: &PageRequest,
    ) -> Result<Page<StoredSnapshot>, Fault> {
        let (filter, request) = (filter.clone(), request.clone());
        self.change(move |_, state| {
            let passes = |id: &String, one: &Snapshot| {
                filter.id.as_ref().is_none_or(|wanted| wanted == id)
                    && filter.volume.as_ref().is_none_or(|wanted| *wanted == one.volume)
            };
            let all = state.snapshots.iter().filter(|(id, one)| passes(id, one));
            let all = all.map(|(id, one)| (id.clone(), one.stored(id))).collect();
            state::page(all, &request, state.newest)
        })
        .await
    }

    async fn snapshot_of_id(&self, id: &str) -> Result<StoredSnapshot, Fault> {
        let id = id.to_owned();
        self.change(move |_, state| state.snapshot("look at", &id)).await
    }
}

/// Copies the volume's image.
pub(super) fn take(
    inner: &Inner,
    state: &mut State,
    name: &str,
    volume: &str,
    group: Option<&str>,
) -> Result<StoredSnapshot, Fault> {
    let size = state.volume("take a snapshot of", volume)?.size;
    let id = state.new_id("snap");
    copy_image(&inner.image(volume), &inner.copy(&id))?;
    let snapshot = Snapshot {
        name: name.to_owned(),
        volume: volume.to_owned(),
        size,
        created_at: SystemTime::now(),
        group: group.map(str::to_owned),
        places: inner.places(),
    };
    let stored = snapshot.stored(&id);
    state.snapshots.insert(id, snapshot);
    Ok(stored)
}

/// Removes a snapshot and its copy.
pub(super) fn drop_snapshot(inner: &Inner, state: &mut State, id: &str) -> Result<(), Fault> {
    state.snapshots.remove(id);
    match std::fs::remove_file(inner.copy(id)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("delete", error)),
        _ => Ok(()),
    }
}
