//! The registry's memory: volumes, mounts and the references to them.
//!
//! What must outlive the daemon changes by a [`Change`] only, which the journal has written down before it is applied
//! here. The rest (times, reports, the newest error) is of this life of the daemon alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::DeviceId;
use host::mount::place::Node;
use tokio::time::Instant;
use volume::{
    Driver, Frontend, MountKey, MountState, OptionMap, RefId, Resolved, Sharing, VolumeName, VolumeSpec,
    WorkerReport,
};

use crate::claim::Claims;

/// A defined volume.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VolumeRow {
    pub(crate) spec: VolumeSpec,
    pub(crate) options: OptionMap,
    /// Seconds since the epoch.
    pub(crate) created_at: u64,
    /// The mount that it was last used through; says whom to ask when it is removed after its references got lost.
    pub(crate) last_key: Option<MountKey>,
}

/// A mount, as journalled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MountRow {
    pub(crate) driver: Driver,
    /// `None` for one that was found without a journal entry.
    pub(crate) resolved: Option<Resolved>,
    pub(crate) state: MountState,
    pub(crate) mountpoint: PathBuf,
    /// Of the file system that was mounted last.
    pub(crate) device: Option<DeviceId>,
}

/// One use, as journalled.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReferenceRow {
    pub(crate) key: MountKey,
    /// The named volume it came through.
    pub(crate) volume: Option<VolumeName>,
    pub(crate) bind: Option<BindRow>,
    /// False while the operation that made it is under way: after a crash its caller got no answer.
    pub(crate) settled: bool,
}

/// A bind mount that was made for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindRow {
    pub(crate) target: PathBuf,
    /// The directory from which no link may lie on the way to it.
    pub(crate) beneath: Option<PathBuf>,
    pub(crate) node: Node,
    pub(crate) read_only: bool,
    pub(crate) sharing: Sharing,
    /// The directory or file was made by us and goes with the bind.
    pub(crate) created: bool,
    /// What was bound, once it was.
    pub(crate) device: Option<DeviceId>,
}

/// A provisioned volume of a driver whose backend has no volumes: a named set of options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProvisionedRow {
    /// The caller's name for it.
    pub(crate) name: String,
    /// Bytes, as they were asked for; 0: nobody asked.
    pub(crate) size: u64,
    pub(crate) context: OptionMap,
    /// Seconds since the epoch.
    pub(crate) created_at: u64,
}

/// One change of what must outlive the daemon.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    PutVolume(Driver, VolumeName, VolumeRow),
    DropVolume(Driver, VolumeName),
    PutMount(MountKey, MountRow),
    /// Only of one without references.
    DropMount(MountKey),
    /// Moves it if it is there for another mount.
    PutReference(RefId, ReferenceRow),
    DropReference(RefId),
    /// By its id.
    PutProvisioned(Driver, String, ProvisionedRow),
    DropProvisioned(Driver, String),
}

#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) row: VolumeRow,
    /// Why it could not be mounted, until it could.
    pub(crate) last_error: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Mount {
    pub(crate) row: MountRow,
    pub(crate) references: BTreeMap<RefId, Reference>,
    /// Requests that bind it just now, without its guard: it is not taken down for want of references meanwhile.
    pub(crate) holds: usize,
    /// Attempts to make it again without a request, and when the newest was.
    pub(crate) healing: Option<(u32, Instant)>,
    /// When the newest look began that found it alive.
    pub(crate) looked: Option<Instant>,
    /// A namespace showed it when it was last asked.
    pub(crate) seen: bool,
    /// When a namespace last showed it.
    pub(crate) last_seen: Option<Instant>,
    /// Kept without references until then, for a caller that went away while it was made and comes again.
    pub(crate) linger_until: Option<Instant>,
    pub(crate) last_error: Option<String>,
    pub(crate) report: Option<WorkerReport>,
}

#[derive(Debug, Clone)]
pub(crate) struct Reference {
    pub(crate) row: ReferenceRow,
    /// When an acquire last named it.
    pub(crate) renewed: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Tables {
    pub(crate) volumes: BTreeMap<(Driver, VolumeName), Volume>,
    pub(crate) mounts: BTreeMap<MountKey, Mount>,
    pub(crate) provisioned: BTreeMap<(Driver, String), ProvisionedRow>,
    /// What requests under way are about to bind.
    pub(crate) claims: Claims,
    keys: BTreeMap<RefId, MountKey>,
    /// Which reference is bound where.
    targets: BTreeMap<PathBuf, RefId>,
}

impl Tables {
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::PutVolume(driver, name, row) => match self.volumes.get_mut(&(driver, name.clone())) {
                Some(volume) => volume.row = row,
                None => {
                    self.volumes.insert((driver, name), Volume { row, last_error: None });
                }
            },
            Change::DropVolume(driver, name) => {
                self.volumes.remove(&(driver, name));
            }
            Change::PutMount(key, row) => match self.mounts.get_mut(&key) {
                Some(mount) => mount.row = row,
                None => {
                    self.mounts.insert(key, Mount::new(row));
                }
            },
            Change::DropMount(key) => {
                self.mounts.remove(&key);
            }
            Change::PutReference(id, row) => {
                self.drop_reference(&id);
                if let Some(bind) = &row.bind {
                    self.targets.insert(bind.target.clone(), id.clone());
                }
                if let Some(mount) = self.mounts.get_mut(&row.key) {
                    self.keys.insert(id.clone(), row.key.clone());
                    mount.references.insert(id, Reference { row, renewed: Instant::now() });
                }
            }
            Change::DropReference(id) => self.drop_reference(&id),
            Change::PutProvisioned(driver, id, row) => {
                self.provisioned.insert((driver, id), row);
            }
            Change::DropProvisioned(driver, id) => {
                self.provisioned.remove(&(driver, id));
            }
        }
    }

    fn drop_reference(&mut self, id: &RefId) {
        if let Some(key) = self.keys.remove(id)
            && let Some(mount) = self.mounts.get_mut(&key)
            && let Some(Reference { row: ReferenceRow { bind: Some(bind), .. }, .. }) =
                mount.references.remove(id)
            && self.targets.get(&bind.target) == Some(id)
        {
            self.targets.remove(&bind.target);
        }
    }

    /// Which reference is bound to a path.
    pub(crate) fn bound_to(&self, target: &Path) -> Option<&RefId> {
        self.targets.get(target)
    }

    /// The other references of the same frontend and scope.
    pub(crate) fn siblings(&self, id: &RefId) -> impl Iterator<Item = (&RefId, &ReferenceRow)> {
        let first = RefId { id: String::new(), ..id.clone() };
        self.keys
            .range(first..)
            .take_while(move |(other, _)| other.frontend == id.frontend && other.scope == id.scope)
            .filter(move |(other, _)| *other != id)
            .filter_map(|(other, key)| Some((other, &self.mounts.get(key)?.references.get(other)?.row)))
    }

    /// Which mount a reference is for.
    pub(crate) fn key_of(&self, id: &RefId) -> Option<&MountKey> {
        self.keys.get(id)
    }

    pub(crate) fn reference(&self, id: &RefId) -> Option<&Reference> {
        self.mounts.get(self.keys.get(id)?)?.references.get(id)
    }

    /// All references, with their mounts' keys.
    pub(crate) fn references(&self) -> impl Iterator<Item = (&RefId, &MountKey)> {
        self.keys.iter()
    }
}

impl Mount {
    fn new(row: MountRow) -> Self {
        Mount {
            row,
            references: BTreeMap::new(),
            holds: 0,
            healing: None,
            looked: None,
            seen: false,
            last_seen: None,
            linger_until: None,
            last_error: None,
            report: None,
        }
    }

    /// Whether it is time for another attempt to make it again without a request; if so, it is counted. What dies again and
    /// again is left alone for longer and longer, up to ten minutes.
    pub(crate) fn may_heal(&mut self, now: Instant) -> bool {
        const LONGEST: Duration = Duration::from_secs(600);
        let tries = match self.healing {
            None => 0,
            Some((tries, last)) => {
                let since = now.saturating_duration_since(last);
                let pause = Duration::from_secs(5 << tries.min(7)).min(LONGEST);
                match () {
                    () if since < pause => return false,
                    () if since > 2 * LONGEST => 0,
                    () => tries,
                }
            }
        };
        self.healing = Some((tries + 1, now));
        true
    }

    /// Whether somebody uses it without asking again. Podman keeps its count over everything. Where it is bound for a pod,
    /// kubelet binds that place into each container that it restarts.
    pub(crate) fn is_counted_on(&self) -> bool {
        self.references.iter().any(|(id, held)| {
            held.row.settled && (id.frontend == Frontend::Podman || held.row.bind.is_some())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dies_again_and_again_is_left_alone_for_longer_and_longer() {
        let mut mount = Mount::new(MountRow {
            driver: Driver::Cvmfs,
            resolved: None,
            state: MountState::Stale,
            mountpoint: "/m".into(),
            device: None,
        });
        let begin = Instant::now();
        let tried: Vec<u64> = (0..3000)
            .step_by(15)
            .filter(|second| mount.may_heal(begin + Duration::from_secs(*second)))
            .collect();
        assert_eq!(tried, [0, 15, 45, 90, 180, 345, 675, 1275, 1875, 2475]);
        assert!(mount.may_heal(begin + Duration::from_secs(2475 + 1201)));
        assert!(mount.may_heal(begin + Duration::from_secs(2475 + 1201 + 10)), "it was well for long");
    }
}
