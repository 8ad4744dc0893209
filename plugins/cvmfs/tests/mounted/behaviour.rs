//! What a user of one mount can see beside the trees themselves.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

use crate::can_mount;
use crate::harness::{Mounted, Setup, server};
use crate::published::{Published, noise};

fn reads(mounted: &Mounted) -> f64 {
    let of_reads = |sample: &&volume::Sample| {
        sample.name == "cvmfs_requests_total" && sample.labels.iter().any(|(_, value)| value == "read")
    };
    mounted.serving.report().samples.iter().find(of_reads).map_or(0.0, |sample| sample.value)
}

#[test]
fn large_files_are_read_by_the_kernel_itself() {
    if !can_mount() {
        return;
    }
    let published = Published::new();
    published.write("large", noise(1, 900 << 10));
    published.publish();
    let mounted = published.setup().mount().unwrap();
    let mut file = File::open(mounted.join("large")).unwrap();
    let mut second = File::open(mounted.join("large")).unwrap();
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    assert!(content == noise(1, 900 << 10));
    content.clear();
    drop(file);
    second.read_to_end(&mut content).unwrap();
    assert!(content == noise(1, 900 << 10));
    assert_eq!(reads(&mounted), 0.0);
}

#[test]
fn chunked_files_are_read_at_any_place() {
    if !can_mount() {
        return;
    }
    let published = Published::new();
    let content = noise(7, 3 << 20);
    published.write("chunked", &content);
    published.publish();
    let mounted = published.setup().mount().unwrap();
    let file = File::open(mounted.join("chunked")).unwrap();
    let size = content.len() as u64;
    for (at, length) in
        [(size - 10, 100), (0, 1), (65_535, 300_000), (1 << 20, 1 << 20), (size, 5), (size + 9, 5)]
    {
        let mut bytes = vec![0; length];
        let mut count = 0;
        while let Ok(more) = file.read_at(&mut bytes[count..], at + count as u64)
            && more > 0
        {
            count += more;
        }
        let from = (at as usize).min(content.len());
        let to = (at as usize + length).min(content.len());
        assert!(bytes[..count] == content[from..to], "{at} {length}");
    }
}

#[test]
fn the_clients_own_attributes_tell_about_it() {
    if !can_mount() {
        return;
    }
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    let setup = Setup::fixture("test.cern.ch", &server, cache.path());
    let mounted = setup.set("CVMFS_MAGIC_XATTRS_VISIBILITY", "rootonly").mount().unwrap();
    let get = |path: &str, name: &str| {
        let mut value = vec![0; 65536];
        let count = rustix::fs::lgetxattr(mounted.join(path), name, &mut value[..]).ok()?;
        Some(String::from_utf8_lossy(&value[..count]).into_owned())
    };
    assert_eq!(get("", "user.fqrn").as_deref(), Some("test.cern.ch"));
    assert_eq!(get("README", "user.fqrn").as_deref(), Some("test.cern.ch"));
    assert_eq!(get("", "user.revision").as_deref(), Some("6"));
    assert_eq!(get("README", "user.hash").map(|hash| hash.len()), Some(40));
    assert_eq!(get("README", "user.compression").as_deref(), Some("zlib"));
    let chunks = get("chunked/sparse.bin", "user.chunk_list").unwrap();
    assert_eq!(chunks.lines().count(), 1 + 528);
    assert_eq!(get("chunked/sparse.bin", "user.hash"), None);
    assert_eq!(get("links/vararch", "xfsroot.rawlink").as_deref(), Some("$(CVMFS_ARCH)/x"));
    assert_eq!(get("README", "user.nonsense"), None);
    let mut names = vec![0; 65536];
    let count = rustix::fs::llistxattr(mounted.path(), &mut names[..]).unwrap();
    assert!(names[..count].split(|byte| *byte == 0).any(|name| name == b"user.root_hash"));
    let count = rustix::fs::llistxattr(mounted.join("README"), &mut names[..]).unwrap();
    assert_eq!(count, 0);
}

#[test]
fn files_belong_to_whom_the_configuration_says() {
    if !can_mount() {
        return;
    }
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    let setup = || Setup::fixture("mini.cern.ch", &server, cache.path());
    let mounted =
        setup().set("CVMFS_CLAIM_OWNERSHIP", "yes").set("CVMFS_WORLD_READABLE", "yes").mount().unwrap();
    let metadata = mounted.path().metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712));
    assert_eq!(metadata.mode() & 0o555, 0o555);
    assert_eq!(metadata.blocks(), 1 + metadata.size() / 512);
}

#[test]
fn statfs_shows_the_cache_and_the_repository() {
    if !can_mount() {
        return;
    }
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    let setup = Setup::fixture("test.cern.ch", &server, cache.path()).set("CVMFS_QUOTA_LIMIT", "100");
    let mounted = setup.mount().unwrap();
    let statfs = nix::sys::statvfs::statvfs(mounted.path()).unwrap();
    assert_eq!(statfs.blocks() * statfs.fragment_size(), 100 << 20);
    assert!(statfs.blocks_free() < statfs.blocks());
    let entries = fixtures::listing("test.cern.ch").unwrap().len() as u64;
    assert!(statfs.files().abs_diff(entries) < 20, "{} {entries}", statfs.files());
    // What the kernel has seen counts as used.
    let free = statfs.files_free();
    assert!(free > 0 && free < statfs.files(), "{free} of {}", statfs.files());
    assert!(std::fs::read_dir(mounted.path()).unwrap().all(|row| row.unwrap().metadata().is_ok()));
    assert!(nix::sys::statvfs::statvfs(mounted.path()).unwrap().files_free() < free);
}

#[test]
fn links_of_a_group_are_one_inode_and_mount_points_keep_theirs() {
    if !can_mount() {
        return;
    }
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    let mounted = Setup::fixture("hardlink.cern.ch", &server, cache.path()).mount().unwrap();
    let listing = fixtures::listing("hardlink.cern.ch").unwrap();
    let ino = |name: &str| {
        let path = listing.iter().find(|entry| entry.path.ends_with(format!("/{name}").as_bytes())).unwrap();
        mounted.join(std::str::from_utf8(&path.path).unwrap()).metadata().unwrap().ino()
    };
    assert!(
        ino("h1") == ino("h2") && ino("h2") == ino("h3") && ino("g1") == ino("g2") && ino("h1") != ino("g1")
    );
    drop(mounted);
    let mounted = Setup::fixture("test.cern.ch", &server, cache.path()).mount().unwrap();
    let before = mounted.join("nested").metadata().unwrap().ino();
    let listed = std::fs::read_dir(mounted.path()).unwrap();
    let mut listed = listed.map(|entry| entry.unwrap()).filter(|entry| entry.file_name() == "nested");
    assert_eq!(std::os::unix::fs::DirEntryExt::ino(&listed.next().unwrap()), before);
    assert!(std::fs::read_dir(mounted.join("nested")).unwrap().count() > 0);
    assert_eq!(mounted.join("nested").metadata().unwrap().ino(), before);
}
