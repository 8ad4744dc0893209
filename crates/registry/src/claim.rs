//! Which targets requests under way are about to bind, so that two at once cannot both take one, and the rules for
//! targets of one volume beside each other.
//!
//! What is bound already stands in the journal; a claim covers the time from the check until it does. A claim also says
//! that its reference is being worked on: an unsettled one that is claimed is not the leftover of a crash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use volume::{BindTarget, Fault, FaultKind, MountKey, MountState, RefId, Sharing};

use crate::core::Core;

/// The claims of all requests under way.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    by_reference: BTreeMap<RefId, (PathBuf, Sharing)>,
    by_target: BTreeMap<PathBuf, RefId>,
}

impl Claims {
    pub(crate) fn holds(&self, reference: &RefId) -> bool {
        self.by_reference.contains_key(reference)
    }

    pub(crate) fn of_target(&self, target: &Path) -> Option<&RefId> {
        self.by_target.get(target)
    }
}

/// A claim; ends with the value.
pub(crate) struct Claim<'a> {
    core: &'a Core,
    reference: &'a RefId,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let claims = &mut self.core.tables.lock().claims;
        if let Some((target, _)) = claims.by_reference.remove(self.reference) {
            claims.by_target.remove(&target);
        }
    }
}

/// Keeps a mount from being taken down for want of references while it is bound; ends with the value.
pub(crate) struct Hold<'a> {
    core: &'a Core,
    key: MountKey,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some(mount) = self.core.tables.lock().mounts.get_mut(&self.key) {
            mount.holds = mount.holds.saturating_sub(1);
        }
    }
}

/// Whether two targets of one volume may be there at the same time.
fn beside(one: Sharing, other: Sharing) -> bool {
    match (one, other) {
        (Sharing::Staging, _) | (_, Sharing::Staging) | (Sharing::Shared, Sharing::Shared) => true,
        (Sharing::Single, _) | (_, Sharing::Single) => false,
    }
}

impl Core {
    /// Claims a target for a reference, whose lane is held. `AlreadyExists`: another reference has the target;
    /// `InUse`: this volume's targets may not stand beside each other.
    pub(crate) fn claim<'a>(&'a self, reference: &'a RefId, target: &BindTarget) -> Result<Claim<'a>, Fault> {
        let mut tables = self.tables.lock();
        let taken = tables.bound_to(&target.path).or_else(|| tables.claims.of_target(&target.path));
        if let Some(other) = taken.filter(|other| *other != reference) {
            let detail = format!("another use has this target already: {other}; give that back first");
            let target = target.path.display().to_string();
            return Err(Fault::new(FaultKind::AlreadyExists, "bind onto", target, detail));
        }
        let bound = tables.siblings(reference).filter_map(|(_, row)| row.bind.as_ref());
        let bound = bound.map(|bind| (&bind.target, bind.sharing));
        let claimed = tables.claims.by_reference.iter().filter(|(other, _)| {
            other.frontend == reference.frontend && other.scope == reference.scope && *other != reference
        });
        let claimed = claimed.map(|(_, (target, sharing))| (target, *sharing));
        if let Some((other, _)) = bound.chain(claimed).find(|(_, other)| !beside(target.sharing, *other)) {
            let detail = format!(
                "the volume is in use at {} on this node, and one of the two uses demands to be the only one",
                other.display()
            );
            return Err(Fault::new(FaultKind::InUse, "mount", reference.scope.clone(), detail));
        }
        let claims = &mut tables.claims;
        claims.by_reference.insert(reference.clone(), (target.path.clone(), target.sharing));
        claims.by_target.insert(target.path.clone(), reference.clone());
        Ok(Claim { core: self, reference })
    }

    /// Holds a live mount and names its device. The key's guard is held.
    pub(crate) fn hold(&self, key: &MountKey) -> Option<(Hold<'_>, host::DeviceId)> {
        let mut tables = self.tables.lock();
        let mount = tables.mounts.get_mut(key).filter(|mount| mount.row.state == MountState::Live)?;
        let device = mount.row.device?;
        mount.holds += 1;
        Some((Hold { core: self, key: key.clone() }, device))
    }

    /// Whether the mount is still what it was when it was held.
    pub(crate) fn is_still(&self, key: &MountKey, device: host::DeviceId) -> bool {
        let row = self.row(key);
        row.is_some_and(|row| row.state == MountState::Live && row.device == Some(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_use_minds_another() {
        use Sharing::{Shared, Single, Staging};
        for (one, other, good) in [
            (Staging, Single, true),
            (Staging, Staging, true),
            (Shared, Shared, true),
            (Single, Shared, false),
            (Single, Single, false),
        ] {
            assert_eq!(beside(one, other), good, "{one:?} {other:?}");
            assert_eq!(beside(other, one), good, "{other:?} {one:?}");
        }
    }
}
