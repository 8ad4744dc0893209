//! Every repository shows exactly what the C++ client shows.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use fixtures::{Entry, Kind};
use sha2::{Digest, Sha256};
use volume::Revision;

use crate::can_mount;
use crate::harness::{Setup, read_errno, server};

/// Names that are the client's own (the listings leave them out).
fn is_magic(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let published: [&[u8]; 2] = [b"user.", b"xfsroot."];
    published.iter().any(|prefix| name.starts_with(prefix))
}

fn xattrs(path: &Path, root: bool) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0_u8; 65536];
    let count = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut found = BTreeMap::new();
    for name in names {
        let name = OsStr::from_bytes(name);
        if root && is_magic(name) {
            continue;
        }
        let mut value = vec![0_u8; 65536];
        let count = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        found.insert(name.to_str().unwrap().to_owned(), value[..count].to_vec());
    }
    found
}

/// What the mount shows of one path, in the form of the listing.
fn observe(root: &Path, path: &[u8], want: &Entry) -> Result<Entry, String> {
    let real = match path {
        [] => root.to_owned(),
        path => root.join(OsStr::from_bytes(&path[1..])),
    };
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let metadata = real.symlink_metadata().map_err(|error| failed("lstat", error))?;
    let kind = match metadata.file_type() {
        t if t.is_dir() => Kind::Dir,
        t if t.is_file() => Kind::File,
        t if t.is_symlink() => Kind::Symlink,
        t if t.is_fifo() => Kind::Fifo,
        t if t.is_socket() => Kind::Socket,
        t if t.is_block_device() => Kind::BlockDev,
        _ => Kind::CharDev,
    };
    let (mut sha256, mut read_error) = (None, None);
    if kind == Kind::File {
        match std::fs::read(&real) {
            Ok(content) => {
                sha256 = Some(Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect());
            }
            Err(error) => read_error = error.raw_os_error(),
        }
    }
    let target = match kind {
        Kind::Symlink => Some(
            std::fs::read_link(&real).map_err(|error| failed("readlink", error))?.into_os_string().into_vec(),
        ),
        _ => None,
    };
    let device = metadata.rdev();
    let number = (nix::sys::stat::major(device) as u32, nix::sys::stat::minor(device) as u32);
    Ok(Entry {
        path: path.to_vec(),
        kind,
        mode: metadata.mode() & 0o7777,
        nlink: metadata.nlink(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime_ns: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        size: want.size.map(|_| metadata.size()),
        sha256,
        target,
        rdev: want.rdev.map(|_| number),
        xattrs: xattrs(&real, path.is_empty()),
        read_error,
    })
}

fn walk(root: &Path, below: &Path, found: &mut Vec<OsString>) {
    let Ok(entries) = std::fs::read_dir(root.join(below)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let path = below.join(entry.file_name());
        found.push(path.clone().into_os_string());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &path, found);
        }
    }
}

/// Compares a tree with a listing; `below` is where the listing's paths begin.
fn compare(root: &Path, listing: &str) {
    let mut wanted = fixtures::listing(listing).unwrap();
    wanted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut found = vec![OsString::new()];
    walk(root, Path::new(""), &mut found);
    let mut found: Vec<Vec<u8>> = found
        .into_iter()
        .map(|path| if path.is_empty() { Vec::new() } else { [b"/", path.as_bytes()].concat() })
        .collect();
    found.sort();
    let names: Vec<_> = wanted.iter().map(|entry| entry.path.clone()).collect();
    for (got, want) in found.iter().zip(&names) {
        assert_eq!(OsStr::from_bytes(got), OsStr::from_bytes(want), "{listing}: names differ from here on");
    }
    assert_eq!(found.len(), names.len(), "{listing}");
    let mut wrong = Vec::new();
    for want in &wanted {
        match observe(root, &want.path, want) {
            Ok(got) if got == *want => {}
            Ok(got) => wrong.push(format!("want {want:?}\n got {got:?}")),
            Err(error) => wrong.push(format!("{:?}: {error}", OsStr::from_bytes(&want.path))),
        }
    }
    assert!(wrong.is_empty(), "{listing}: {} of {} differ:\n{}", wrong.len(), wanted.len(), wrong.join("\n"));
}

#[test]
fn every_good_repository_equals_its_listing() {
    if !can_mount() {
        return;
    }
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    for fqrn in fixtures::GOOD {
        let mounted = Setup::fixture(fqrn, &server, cache.path()).mount().unwrap();
        compare(mounted.path(), fqrn);
        let report = mounted.serving.report();
        assert!(report.trouble.is_none(), "{report:?}");
    }
}

/// With a cache of its own: what another repository has verified under the same hash is as good.
#[test]
fn tampered_objects_are_errors_and_nothing_else_is() {
    if !can_mount() {
        return;
    }
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    let mounted = Setup::fixture("tampered.cern.ch", &server, cache.path()).mount().unwrap();
    compare(mounted.path(), "tampered.cern.ch");
    for path in ["obj-a", "obj-b", "obj-c", "obj-d", "obj-e", "chunked.bin"] {
        assert_eq!(read_errno(&mounted.join(path)), Some(nix::libc::EIO), "{path}");
    }
    let nested = std::fs::read_dir(mounted.join("nested")).unwrap_err();
    assert_eq!(nested.raw_os_error(), Some(nix::libc::EIO));
    assert!(mounted.serving.report().last_error.is_some());
}

#[test]
fn every_tag_equals_its_listing() {
    if !can_mount() {
        return;
    }
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    for tag in ["base", "v1.0", "v2.0", "v3.0"] {
        let setup = Setup::fixture("test.cern.ch", &server, cache.path());
        let mounted = setup.at(Revision::Tag(tag.to_owned())).mount().unwrap();
        compare(mounted.path(), &format!("test.cern.ch@{tag}"));
    }
}

#[test]
fn hidden_snapshots_are_reached_by_name() {
    if !can_mount() {
        return;
    }
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    let mounted = Setup::fixture("snap.cern.ch", &server, cache.path()).mount().unwrap();
    compare(&mounted.join(".cvmfs/snapshots"), "snap.cern.ch@.cvmfs.snapshots");
}

#[test]
fn what_is_not_trusted_is_not_mounted_and_the_reason_is_named() {
    let server = server(&fixtures::www());
    let cache = tempfile::tempdir().unwrap();
    for (fqrn, reason) in [
        ("badhash.cern.ch", "the manifest's text does not match its hash line"),
        ("badsig.cern.ch", "the manifest's signature is not by the repository's certificate"),
        ("expired.cern.ch", "the whitelist expired at 20261111080719"),
        ("notlisted.cern.ch", "is not on the whitelist"),
        ("wlbadsig.cern.ch", "the whitelist's signature is by none of this node's 1 master keys"),
        ("wlwrongname.cern.ch", "the whitelist names another repository, \"other.cern.ch\""),
        ("wrongkey.cern.ch", "the whitelist's signature is by none of this node's 1 master keys"),
        ("wrongname.cern.ch", "the manifest names another repository, \"other.cern.ch\""),
    ] {
        assert!(fixtures::REFUSED.contains(&fqrn));
        let payload = Setup::fixture(fqrn, &server, cache.path()).payload();
        let fault = cvmfs::worker::prepare(payload, false).map(drop).unwrap_err();
        assert_eq!(fault.kind, volume::FaultKind::Untrusted, "{fqrn}: {fault}");
        assert!(fault.to_string().contains(reason), "{fqrn}: {fault}");
    }
}
