//! Snapshots of several volumes at one instant: nothing else changes meanwhile, because one call runs at a time.

use std::collections::BTreeSet;
use std::time::SystemTime;

use async_trait::async_trait;
use volume::{Fault, FaultKind, GroupSnapshots, OptionMap, Secrets, StoredGroup};

use super::snapshots::{drop_snapshot, take};
use super::state::{Group, State};
use super::{Inner, Reference};

#[async_trait]
impl GroupSnapshots for Reference {
    async fn snapshot_group(
        &self,
        name: &str,
        volumes: &[String],
        _parameters: &OptionMap,
        secrets: &Secrets,
    ) -> Result<StoredGroup, Fault> {
        self.admit("take snapshots for", name, secrets)?;
        let (name, volumes) = (name.to_owned(), volumes.to_vec());
        self.change(move |inner, state| {
            if let Some((id, there)) = state.groups.iter().find(|(_, group)| group.name == name) {
                if there.volumes == volumes {
                    return state.group("look at", id);
                }
                let detail = "the name is taken by a group of other volumes";
                return Err(Fault::new(FaultKind::AlreadyExists, "take snapshots for", name, detail));
            }
            let id = state.new_id("group");
            let mut snapshots = Vec::new();
            for volume in &volumes {
                match take(inner, state, "", volume, Some(&id)) {
                    Ok(taken) => snapshots.push(taken.id),
                    Err(fault) => {
                        let taken = snapshots.iter();
                        taken.for_each(|snapshot| drop(std::fs::remove_file(inner.copy(snapshot))));
                        return Err(fault);
                    }
                }
            }
            let group = Group { name, volumes, snapshots, created_at: SystemTime::now() };
            state.groups.insert(id.clone(), group);
            state.group("look at", &id)
        })
        .await
    }

    async fn delete_group(&self, id: &str, snapshots: &[String], secrets: &Secrets) -> Result<(), Fault> {
        self.admit("delete", id, secrets)?;
        let (id, snapshots) = (id.to_owned(), snapshots.to_vec());
        self.change(move |inner, state| {
            if !state.groups.contains_key(&id) {
                return Ok(());
            }
            let members = members("delete", state, &id, &snapshots)?;
            state.groups.remove(&id);
            members.iter().try_for_each(|snapshot| drop_snapshot(inner, state, snapshot))
        })
        .await
    }

    async fn group(&self, id: &str, snapshots: &[String], _secrets: &Secrets) -> Result<StoredGroup, Fault> {
        let (id, snapshots) = (id.to_owned(), snapshots.to_vec());
        self.change(move |_: &Inner, state| {
            let group = state.group("look at", &id)?;
            members("look at", state, &id, &snapshots).map(|_| group)
        })
        .await
    }
}

/// The snapshots of a group; `claimed` must be the same ones if any are named.
fn members(op: &str, state: &State, id: &str, claimed: &[String]) -> Result<Vec<String>, Fault> {
    let members = state.groups.get(id).map(|group| group.snapshots.clone()).unwrap_or_default();
    let (own, named): (BTreeSet<_>, BTreeSet<_>) = (members.iter().collect(), claimed.iter().collect());
    if !claimed.is_empty() && own != named {
        let detail = "the snapshots named are not those of the group";
        return Err(Fault::new(FaultKind::InvalidArgument, op, id, detail));
    }
    Ok(members)
}
