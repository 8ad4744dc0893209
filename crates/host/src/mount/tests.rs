//! On the real kernel, as root: tmpfs and bind mounts in a temporary directory, and processes in namespaces of their own.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::mountinfo::DeviceId;
use crate::namespaces::Survey;

/// A temporary directory with a tmpfs on `disk` and an empty directory `other`; all mounts below go with it.
pub(super) struct Place(pub(super) tempfile::TempDir);

impl Place {
    pub(super) fn new() -> Option<Place> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        let place = Place(tempfile::tempdir().unwrap());
        fs::create_dir(place.disk()).unwrap();
        fs::create_dir(place.other()).unwrap();
        let flags = MsFlags::MS_NOSUID;
        nix::mount::mount(Some("none"), &place.disk(), Some("tmpfs"), flags, NOTHING).unwrap();
        Some(place)
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    pub(super) fn other(&self) -> PathBuf {
        self.0.path().join("other")
    }

    pub(super) fn device(&self) -> DeviceId {
        MountTable::own().unwrap().at(&self.disk()).unwrap().device
    }

    /// How often the namespace of process `pid` shows it. Others on this machine, which clone our namespace for tests
    /// of their own, are not counted.
    fn seen_by(&self, pid: u32) -> usize {
        seen(self.device(), &self.disk(), namespace(pid))
    }

    fn seen(&self) -> usize {
        self.seen_by(std::process::id())
    }
}

fn namespace(pid: u32) -> u64 {
    let link = fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    link.to_str().unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

fn seen(device: DeviceId, primary: &Path, namespace: u64) -> usize {
    let sightings = Survey::take().unwrap().who_sees(device, primary);
    sightings.iter().filter(|sighting| sighting.namespace == namespace).count()
}

impl Drop for Place {
    fn drop(&mut self) {
        let table = MountTable::own().unwrap();
        for entry in table.entries().iter().rev() {
            if entry.mountpoint.starts_with(self.0.path()) {
                let _ = detach(&entry.mountpoint);
            }
        }
    }
}

/// A process in a mount namespace of its own; `new` returns when it is in there.
struct Elsewhere(Child);

impl Elsewhere {
    fn new(propagation: &str, script: &str) -> Elsewhere {
        let script = format!("{script}; echo ready; exec cat");
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", propagation, "sh", "-ec", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        Elsewhere(child)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_read_only_bind_keeps_the_flags_and_goes_again() {
    let Some(place) = Place::new() else { return };
    bind(&place.disk(), &place.other(), true).unwrap();
    let table = MountTable::own().unwrap();
    let entry = table.at(&place.other()).unwrap();
    assert_eq!(entry.device, place.device());
    let options: Vec<_> = entry.options.split(',').collect();
    assert!(options.contains(&"ro") && options.contains(&"nosuid"), "{options:?}");
    assert!(fs::write(place.other().join("x"), b"").is_err());
    fs::write(place.disk().join("x"), b"").unwrap();
    assert_eq!(place.seen(), 1);
    unmount(&place.other()).unwrap();
    assert_eq!(place.seen(), 0);
    assert!(matches!(unmount(&place.other()), Err(MountError::NotMounted(_))));
    assert!(matches!(unmount(&place.0.path().join("none/there")), Err(MountError::NotMounted(_))));
}

#[test]
fn an_open_file_makes_it_busy_and_detach_takes_it_all_the_same() {
    let Some(place) = Place::new() else { return };
    let file = fs::File::create(place.disk().join("x")).unwrap();
    assert!(matches!(unmount(&place.disk()), Err(MountError::Busy(_))));
    detach(&place.disk()).unwrap();
    drop(file);
    assert!(MountTable::own().unwrap().at(&place.disk()).is_none());
}

#[test]
fn links_in_the_way_are_refused() {
    let Some(place) = Place::new() else { return };
    let link = place.0.path().join("link");
    std::os::unix::fs::symlink(place.other(), &link).unwrap();
    assert!(matches!(bind(&place.disk(), &link, true), Err(MountError::Path(DirectoryError::Symlink(_)))));
    assert!(matches!(bind(&link, &place.other(), true), Err(MountError::Path(DirectoryError::Symlink(_)))));
    bind(&place.disk(), &place.other(), true).unwrap();
    assert!(unmount(&link).is_err());
    assert!(MountTable::own().unwrap().at(&place.other()).is_some());
}

#[test]
fn a_private_copy_in_another_namespace_is_a_use_until_its_last_process_ends() {
    let Some(place) = Place::new() else { return };
    let elsewhere = Elsewhere::new("private", ":");
    let there = namespace(elsewhere.0.id());
    assert_eq!(seen(place.device(), &place.disk(), there), 1);
    drop(elsewhere);
    assert_eq!(seen(place.device(), &place.disk(), there), 0);
}

#[test]
fn a_container_that_bound_it_is_a_use_and_a_mere_follower_is_none() {
    let Some(place) = Place::new() else { return };
    detach(&place.disk()).unwrap();
    assert_eq!(share(place.0.path()).unwrap(), Sharing::Made);
    assert_eq!(share(place.0.path()).unwrap(), Sharing::Already);
    nix::mount::mount(Some("none"), &place.disk(), Some("tmpfs"), MsFlags::empty(), NOTHING).unwrap();
    let follower = Elsewhere::new("slave", ":");
    assert_eq!(place.seen_by(follower.0.id()), 0);
    let bind = format!("mount --bind {} {}", place.disk().display(), place.other().display());
    let container = Elsewhere::new("slave", &bind);
    assert_eq!(place.seen_by(container.0.id()), 1);
    // What the follower has goes with ours, as was claimed; what the container bound stays.
    let device = place.device();
    unmount(&place.disk()).unwrap();
    let follower_table = MountTable::of_process(follower.0.id() as i32).unwrap();
    assert_eq!(follower_table.of_device(device).count(), 0);
    let container_table = MountTable::of_process(container.0.id() as i32).unwrap();
    assert_eq!(container_table.of_device(device).count(), 1);
    assert_eq!(seen(device, &place.disk(), namespace(container.0.id())), 1);
}

#[test]
fn a_directory_with_mounts_below_is_not_hidden_by_sharing_it() {
    let Some(place) = Place::new() else { return };
    let covering = MountTable::own().unwrap().covering(place.0.path()).unwrap().clone();
    let expected = if covering.shared.is_some() { Sharing::Already } else { Sharing::MountsBelow };
    assert_eq!(share(place.0.path()).unwrap(), expected);
}

#[test]
fn aborting_what_is_not_there_is_fine() {
    abort_fuse(u32::MAX).unwrap();
}

#[test]
fn the_control_of_fuse_connections_is_there_afterwards() {
    if !nix::unistd::Uid::effective().is_root() {
        return;
    }
    provide_fuse_control().unwrap();
    assert!(!provide_fuse_control().unwrap(), "the second time it is there");
    let table = MountTable::own().unwrap();
    assert_eq!(table.at(Path::new(FUSE_CONTROL)).unwrap().fs_type, "fusectl");
}
