//! Who sees a mount, over the mount namespaces of all processes.
//!
//! A reference that was given back proves nothing (engines give back what is in use, and forget what they hold), so
//! before a mount is taken down the kernel is asked. Not every copy is a use: a process that cloned our namespace
//! with propagation (a container with the host's `/` bound `rslave`) has a copy of our mountpoint that vanishes with ours.
//! The kernel propagates an unmount along the peer group of the *parent* mount to the same directory in it
//! (`fs/pnode.c`, `propagate_umount`), so exactly those copies are left out: a volume that a container engine bound into a
//! container has another parent and counts, even at the same path.
//!
//! Not seen: a namespace without any process that is held by a descriptor or a bind of its file, or that only a thread
//! which is not a process's first is in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::mountinfo::{DeviceId, MountEntry, MountInfoError, MountTable};

/// A mount of the file system in question that would stay if our own went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Inode number of the mount namespace (`mnt:[…]`); 0 if it may not be read.
    pub namespace: u64,
    /// A process in it.
    pub pid: i32,
    /// Where that process sees it.
    pub mountpoint: PathBuf,
}

/// The mount tables of all namespaces at one moment.
#[derive(Debug)]
pub struct Survey {
    views: Vec<View>,
    unreadable: usize,
}

/// The table as seen by the processes of a namespace that have the same root directory.
#[derive(Debug)]
struct View {
    namespace: u64,
    pid: i32,
    table: MountTable,
}

impl Survey {
    /// Reads all tables. Processes that end meanwhile are skipped; only our own table must be readable.
    pub fn take() -> Result<Survey, MountInfoError> {
        let proc_failed = |source| MountInfoError::Read { path: "/proc".into(), source };
        let own = std::process::id() as i32;
        let own_place = place(own).map_err(proc_failed)?;
        let mut views = vec![View { namespace: own_place.0, pid: own, table: MountTable::own()? }];
        let mut known = BTreeSet::from([own_place]);
        let mut unreadable = 0;
        for entry in std::fs::read_dir("/proc").map_err(proc_failed)? {
            let name = entry.map_err(proc_failed)?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let place = match place(pid) {
                Ok(place) => Some(place),
                Err(error) if has_gone(&error) => continue,
                // Some processes hide their links even from root (they have more capabilities), but not their mounts.
                Err(_) => None,
            };
            if place.as_ref().is_some_and(|place| known.contains(place)) {
                continue;
            }
            match MountTable::of_process(pid) {
                // A process that is just ending shows an empty table; another one of its namespace shows all.
                Ok(table) if table.entries().is_empty() => {}
                Ok(table) => {
                    let namespace = place.as_ref().map_or(0, |place| place.0);
                    if place.is_some() || !views.iter().any(|view: &View| view.table == table) {
                        views.push(View { namespace, pid, table });
                    }
                    known.extend(place);
                }
                Err(MountInfoError::Read { source, .. }) if has_gone(&source) => {}
                Err(error) => {
                    tracing::debug!(pid, %error, "mount table of a process could not be read");
                    unreadable += 1;
                }
            }
        }
        Ok(Survey { views, unreadable })
    }

    /// How many processes there are whose mounts we may not see. With any, "nobody sees it" is no proof.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// How many namespaces were read.
    pub fn namespaces(&self) -> usize {
        self.views.iter().map(|view| view.namespace).collect::<BTreeSet<_>>().len()
    }

    /// Our own table.
    pub fn own(&self) -> Option<&MountTable> {
        self.views.first().map(|view| &view.table)
    }

    /// All mounts of `device` except the topmost one at `primary` in our namespace and the copies that go with it.
    pub fn who_sees(&self, device: DeviceId, primary: &Path) -> Vec<Sighting> {
        let own = self.own();
        let primary = own.and_then(|table| table.at(primary)).filter(|entry| entry.device == device);
        let parent = primary.and_then(|entry| own?.by_id(entry.parent_id));
        let groups = parent.map(|parent| self.groups_below(parent)).unwrap_or_default();
        let place = primary.and_then(|entry| Some((parent?.device, place_in(entry, parent?)?)));

        // Two views of one namespace can show the same mount (mount ids are unique over all namespaces); it goes with
        // ours if one of them can tell.
        let mut seen: BTreeMap<u64, Option<Sighting>> = BTreeMap::new();
        for view in &self.views {
            for entry in view.table.of_device(device) {
                let ours = primary.is_some_and(|primary| primary.mount_id == entry.mount_id);
                let goes = ours
                    || view.table.by_id(entry.parent_id).is_some_and(|parent| {
                        let linked =
                            [parent.shared, parent.master].iter().flatten().any(|g| groups.contains(g));
                        linked && place_in(entry, parent).map(|at| (parent.device, at)) == place
                    });
                let slot = seen.entry(entry.mount_id).or_insert_with(|| {
                    let mountpoint = entry.mountpoint.clone();
                    Some(Sighting { namespace: view.namespace, pid: view.pid, mountpoint })
                });
                if goes {
                    *slot = None;
                }
            }
        }
        seen.into_values().flatten().collect()
    }

    /// The peer group of a mount and all groups that receive its events, over several steps.
    fn groups_below(&self, parent: &MountEntry) -> BTreeSet<u64> {
        let mut groups: BTreeSet<u64> = parent.shared.into_iter().collect();
        loop {
            let entries = self.views.iter().flat_map(|view| view.table.entries());
            let next: Vec<u64> = entries
                .filter(|entry| entry.master.is_some_and(|master| groups.contains(&master)))
                .filter_map(|entry| entry.shared)
                .filter(|group| !groups.contains(group))
                .collect();
            if next.is_empty() {
                return groups;
            }
            groups.extend(next);
        }
    }
}

/// Where in the parent's file system a mount sits.
fn place_in(entry: &MountEntry, parent: &MountEntry) -> Option<PathBuf> {
    Some(parent.root.join(entry.mountpoint.strip_prefix(&parent.mountpoint).ok()?))
}

/// The namespace and the root directory of a process; both links are answered by the kernel alone.
fn place(pid: i32) -> io::Result<(u64, PathBuf)> {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/mnt"))?;
    let number = link.to_str().and_then(|text| text.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok());
    let namespace = number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((namespace, std::fs::read_link(format!("/proc/{pid}/root"))?))
}

/// The process ended: no directory any more, or one without namespaces (a zombie).
fn has_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(namespace: u64, text: &str) -> View {
        View { namespace, pid: namespace as i32, table: MountTable::parse(text.as_bytes()).unwrap() }
    }

    fn seen(views: Vec<View>) -> Vec<(u64, String)> {
        let survey = Survey { views, unreadable: 0 };
        let seen = survey.who_sees("0:9".parse().unwrap(), Path::new("/m/k"));
        seen.into_iter().map(|s| (s.namespace, s.mountpoint.display().to_string())).collect()
    }

    const OURS: &str =
        "1 0 8:0 / / rw shared:1 - ext4 d rw\n2 1 0:9 / /m/k ro shared:5 - fuse.volplane r ro\n";

    #[test]
    fn our_own_mount_is_no_use() {
        assert!(seen(vec![view(1, OURS)]).is_empty());
    }

    #[test]
    fn a_bind_in_our_own_namespace_is_a_use() {
        let bind = format!("{OURS}3 1 0:9 / /pods/x ro shared:5 - fuse.volplane r ro\n");
        assert_eq!(seen(vec![view(1, &bind)]), [(1, "/pods/x".into())]);
    }

    #[test]
    fn copies_that_vanish_with_ours_are_no_use() {
        let slave = "11 0 8:0 / /host rw master:1 - ext4 d rw\n12 11 0:9 / /host/m/k ro master:5 - fuse.volplane r ro\n";
        let peer =
            "21 0 8:0 / / rw shared:1 - ext4 d rw\n22 21 0:9 / /m/k ro shared:5 - fuse.volplane r ro\n";
        let far = "31 0 8:0 / / rw master:2 - ext4 d rw\n32 31 0:9 / /m/k ro - fuse.volplane r ro\n";
        let middle = "41 0 8:0 / / rw shared:2 master:1 - ext4 d rw\n";
        assert!(
            seen(vec![view(1, OURS), view(2, slave), view(3, peer), view(5, far), view(4, middle)])
                .is_empty()
        );
    }

    #[test]
    fn a_copy_behind_a_private_parent_is_a_use() {
        let private = "11 0 8:0 / / rw - ext4 d rw\n12 11 0:9 / /m/k ro - fuse.volplane r ro\n";
        assert_eq!(seen(vec![view(1, OURS), view(2, private)]), [(2, "/m/k".into())]);
    }

    #[test]
    fn a_container_that_has_it_at_our_very_path_is_a_use() {
        let container =
            "11 0 0:40 / / rw - overlay o rw\n12 11 0:9 / /m/k ro master:5 - fuse.volplane r ro\n";
        assert_eq!(seen(vec![view(1, OURS), view(2, container)]), [(2, "/m/k".into())]);
    }

    #[test]
    fn a_subdirectory_bound_elsewhere_in_a_linked_namespace_is_a_use() {
        let sub = "11 0 8:0 / / rw master:1 - ext4 d rw\n12 11 0:9 /lib /opt ro - fuse.volplane r ro\n";
        assert_eq!(seen(vec![view(1, OURS), view(2, sub)]), [(2, "/opt".into())]);
    }

    #[test]
    fn without_our_own_mount_every_copy_is_a_use() {
        let none = "1 0 8:0 / / rw shared:1 - ext4 d rw\n";
        let slave = "11 0 8:0 / / rw master:1 - ext4 d rw\n12 11 0:9 / /m/k ro - fuse.volplane r ro\n";
        assert_eq!(seen(vec![view(1, none), view(2, slave)]), [(2, "/m/k".into())]);
    }

    #[test]
    fn the_survey_of_this_machine_has_our_namespace() {
        let survey = Survey::take().unwrap();
        assert!(survey.namespaces() >= 1);
        assert!(survey.own().unwrap().at(Path::new("/proc")).is_some());
    }
}
