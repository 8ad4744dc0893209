//! On the real kernel, as root: everything that somebody who can write next to a target can do to it.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::mount::detach;
use crate::mount::tests::Place as Ground;

/// A ground with a kubelet's directory `root` in it, and in that `pods`.
fn ground() -> Option<(Ground, PathBuf)> {
    let ground = Ground::new()?;
    let root = ground.0.path().join("root");
    fs::create_dir_all(root.join("pods")).unwrap();
    fs::write(ground.disk().join("file"), b"x").unwrap();
    Some((ground, root))
}

fn bind(ground: &Ground, path: &Path, beneath: &Path, read_only: bool) -> Result<bool, MountError> {
    let place = Place::open(path, Some(beneath))?;
    place.bind(&ground.disk(), ground.device(), Node::Directory, read_only)
}

fn is_invalid(error: &MountError) -> bool {
    matches!(
        error,
        MountError::Path(
            DirectoryError::Symlink(_)
                | DirectoryError::Outside { .. }
                | DirectoryError::NotPlain(_)
                | DirectoryError::NotDirectory(_)
        )
    )
}

#[test]
fn a_target_is_made_bound_with_its_flags_and_removed() {
    let Some((ground, root)) = ground() else { return };
    let path = root.join("pods/a");
    let place = Place::open(&path, Some(&root)).unwrap();
    assert_eq!(place.find().unwrap(), Found::Nothing);
    for read_only in [true, false] {
        assert!(place.bind(&ground.disk(), ground.device(), Node::Directory, read_only).unwrap());
        assert_eq!(place.find().unwrap(), Found::Mount(ground.device()));
        let table = MountTable::own().unwrap();
        let options: Vec<_> = table.at(&path).unwrap().options.split(',').collect();
        assert!(options.contains(&"nosuid") && options.contains(&"nodev"), "{options:?}");
        assert_eq!(options.contains(&"ro"), read_only);
        assert_eq!(fs::write(path.join("file"), b"x").is_err(), read_only);
        let again = place.bind(&ground.disk(), ground.device(), Node::Directory, read_only);
        assert!(matches!(again, Err(MountError::Changed(_))), "a second mount at one place");
        assert!(matches!(place.remove(Node::Directory), Err(MountError::Busy(_))));
        place.unmount(false).unwrap();
        assert_eq!(place.find().unwrap(), Found::Plain);
        place.remove(Node::Directory).unwrap();
        assert_eq!(place.find().unwrap(), Found::Nothing);
        assert!(matches!(place.unmount(true), Err(MountError::NotMounted(_))));
    }
}

#[test]
fn a_device_node_is_bound_onto_a_file_that_goes_with_it() {
    let Some((ground, root)) = ground() else { return };
    let (path, node) = (root.join("pods/block"), ground.disk().join("device"));
    nix::sys::stat::mknod(
        &node,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o600),
        nix::sys::stat::makedev(1, 3),
    )
    .unwrap();
    let place = Place::open(&path, Some(&root)).unwrap();
    assert!(place.bind(&node, ground.device(), Node::File, true).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().rdev(), nix::sys::stat::makedev(1, 3));
    assert!(fs::read(&path).unwrap().is_empty(), "/dev/null can be opened: no nodev");
    place.unmount(false).unwrap();
    place.remove(Node::File).unwrap();
    assert!(!path.exists());
    fs::write(&path, b"somebody's").unwrap();
    assert!(matches!(place.remove(Node::File), Err(MountError::Busy(_))));
    // A directory where a file belongs, and the other way round.
    assert!(place.bind(&ground.disk(), ground.device(), Node::Directory, true).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
}

#[test]
fn links_on_the_way_are_refused_wherever_they_lead() {
    let Some((ground, root)) = ground() else { return };
    let outside = ground.0.path().join("outside");
    fs::create_dir_all(outside.join("a")).unwrap();
    symlink(&outside, root.join("pods/out")).unwrap();
    symlink("a", root.join("pods/inner")).unwrap();
    symlink("/nowhere", root.join("pods/dangling")).unwrap();
    fs::create_dir(root.join("pods/a")).unwrap();
    for path in ["pods/out/a", "pods/out", "pods/inner", "pods/inner/x", "pods/dangling", "pods/../pods/a"] {
        let error = bind(&ground, &root.join(path), &root, true).unwrap_err();
        assert!(is_invalid(&error), "{path}: {error}");
        if let Ok(place) = Place::open(&root.join(path), Some(&root)) {
            assert!(place.find().is_err() && place.unmount(true).is_err());
        }
    }
    for path in [outside.join("a"), root.clone(), ground.0.path().to_owned()] {
        assert!(is_invalid(&bind(&ground, &path, &root, true).unwrap_err()), "{}", path.display());
    }
    let mounts = MountTable::own().unwrap();
    assert_eq!(mounts.of_device(ground.device()).count(), 1);
}

#[test]
fn the_directory_itself_may_be_a_link() {
    let Some((ground, root)) = ground() else { return };
    let link = ground.0.path().join("var-lib-kubelet");
    symlink(&root, &link).unwrap();
    for path in [link.join("pods/a"), root.join("pods/a")] {
        assert!(bind(&ground, &path, &link, true).unwrap());
        let place = Place::open(&path, Some(&link)).unwrap();
        place.unmount(false).unwrap();
        place.remove(Node::Directory).unwrap();
    }
}

#[test]
fn a_parent_that_is_swapped_for_a_link_leads_nowhere_else() {
    let Some((ground, root)) = ground() else { return };
    let (pod, victim) = (root.join("pods/pod"), ground.0.path().join("victim"));
    fs::create_dir_all(&pod).unwrap();
    fs::create_dir_all(victim.join("a")).unwrap();
    let place = Place::open(&pod.join("a"), Some(&root)).unwrap();
    // Between two calls: what was the parent is elsewhere, and a link stands in its place.
    fs::rename(&pod, root.join("pods/moved")).unwrap();
    symlink(&victim, &pod).unwrap();
    let error = place.bind(&ground.disk(), ground.device(), Node::Directory, true).unwrap_err();
    assert!(matches!(error, MountError::Changed(_)), "{error}");
    assert!(!root.join("pods/moved/a").exists(), "what was made is removed again");
    assert!(is_invalid(&bind(&ground, &pod.join("a"), &root, true).unwrap_err()));
    assert_eq!(MountTable::own().unwrap().of_device(ground.device()).count(), 1);
    // A mount at the victim's is not taken away through the link either.
    super::super::bind(&ground.disk(), &victim.join("a"), true).unwrap();
    assert!(place.unmount(true).is_err());
    assert!(Place::open(&pod.join("a"), Some(&root)).is_err());
    assert!(MountTable::own().unwrap().at(&victim.join("a")).is_some());
    detach(&victim.join("a")).unwrap();
}

#[test]
fn a_mount_that_was_exchanged_is_not_bound() {
    let Some((ground, root)) = ground() else { return };
    let device = ground.device();
    detach(&ground.disk()).unwrap();
    let place = Place::open(&root.join("pods/a"), Some(&root)).unwrap();
    let error = place.bind(&ground.disk(), device, Node::Directory, true).unwrap_err();
    assert!(matches!(error, MountError::Changed(_)), "{error}");
    assert_eq!(place.find().unwrap(), Found::Nothing);
    assert_eq!(device_at(&ground.disk()).unwrap(), None);
    assert_eq!(
        device_at(Path::new("/proc")).unwrap(),
        MountTable::own().unwrap().at(Path::new("/proc")).map(|e| e.device)
    );
}

#[test]
fn a_file_system_that_hangs_or_is_dead_is_looked_at_and_taken_away_without_asking_it() {
    let Some((ground, root)) = ground() else { return };
    let Ok(device) = fs::File::options().read(true).write(true).open("/dev/fuse") else {
        eprintln!("skipped: no /dev/fuse");
        return;
    };
    let source = ground.other();
    // Nobody ever reads a request from it.
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    nix::mount::mount(Some("hung"), &source, Some("fuse.volplane"), flags, Some(options.as_str())).unwrap();
    let hung = device_at(&source).unwrap().unwrap();
    let path = root.join("pods/a");
    let place = Place::open(&path, Some(&root)).unwrap();
    assert!(place.bind(&source, hung, Node::Directory, true).unwrap());
    assert_eq!(place.find().unwrap(), Found::Mount(hung));
    // The connection ends with its last descriptor.
    drop(device);
    assert_eq!(place.find().unwrap(), Found::Mount(hung));
    assert_eq!(device_at(&source).unwrap(), Some(hung));
    place.unmount(true).unwrap();
    place.remove(Node::Directory).unwrap();
    detach(&source).unwrap();
}

#[test]
fn an_old_kernel_binds_and_remounts_with_the_same_flags() {
    let Some((ground, root)) = ground() else { return };
    let path = root.join("pods/a");
    let place = Place::open(&path, Some(&root)).unwrap();
    assert!(place.make(Node::Directory).unwrap());
    let (from, onto) = (open_path(&ground.disk()).unwrap(), place.enter().unwrap());
    let made = place.bind_and_remount(&from, &onto, Node::Directory, true).unwrap();
    assert_eq!(seat(&made, &path).unwrap().device, ground.device());
    let table = MountTable::own().unwrap();
    let options: Vec<_> = table.at(&path).unwrap().options.split(',').collect();
    assert!(["ro", "nosuid", "nodev"].iter().all(|flag| options.contains(flag)), "{options:?}");
    drop((made, onto));
    place.unmount(false).unwrap();
    place.remove(Node::Directory).unwrap();
}
