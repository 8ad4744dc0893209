//! Signed does not mean sane: what a mount makes of repositories that no sane writer would make.

use std::time::Duration;

use cvmfs::publish::forge::{CASES, Case, Forge, test_keys};
use fixtures::View;
use volume::{Fault, Revision};

use crate::can_mount;
use crate::harness::{Mounted, Setup, server};
use crate::reader::view;

const PATIENCE: Duration = Duration::from_secs(60);
const FQRN: &str = "forged.example.org";
/// SHA-256 of `good`.
const GOOD: &str = "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c";

struct Forged {
    mounted: Result<Mounted, Fault>,
    _server: cvmfs::publish::serve::ServingFiles,
    _site: tempfile::TempDir,
}

fn forged(case: &Case) -> Forged {
    let site = tempfile::tempdir().unwrap();
    let forge = Forge::create(&site.path().join("www").join(FQRN), FQRN).unwrap();
    (case.make)(&forge).unwrap_or_else(|error| panic!("{case:?}: {error}"));
    let key = site.path().join("key.pub");
    std::fs::write(&key, test_keys().public_key_pem()).unwrap();
    let server = server(&site.path().join("www"));
    let setup = Setup {
        repository: FQRN.to_owned(),
        revision: Revision::Trunk,
        parameters: vec![
            ("CVMFS_SERVER_URL".to_owned(), server.url(FQRN)),
            ("CVMFS_CLAIM_OWNERSHIP".to_owned(), "no".to_owned()),
        ],
        key,
        cache: site.path().join("cache"),
        deadline: Duration::from_secs(10),
    };
    Forged { mounted: setup.mount(), _server: server, _site: site }
}

fn look(case: &Case) -> View {
    let forged = forged(case);
    let mounted = forged.mounted.unwrap_or_else(|fault| panic!("{case:?}: {fault}"));
    let view = view(mounted.path(), PATIENCE);
    let good = view.find(b"/good").unwrap_or_else(|| panic!("{case:?}: {:?}", view.broken));
    assert_eq!(good.entry.sha256.as_deref(), Some(GOOD), "{case:?}");
    // And it goes on serving.
    assert!(crate::reader::view(mounted.path(), PATIENCE).find(b"/good").is_some(), "{case:?}");
    view
}

#[test]
fn what_cannot_be_a_repository_is_refused_before_it_is_mounted() {
    if !can_mount() {
        return;
    }
    for case in CASES.iter().filter(|case| !case.mounts) {
        let fault = forged(case).mounted.map(drop).expect_err(case.name);
        assert!(!fault.to_string().is_empty(), "{case:?}");
    }
}

#[test]
fn insane_entries_fail_alone() {
    if !can_mount() {
        return;
    }
    for case in CASES.iter().filter(|case| case.mounts) {
        let view = look(case);
        for seen in &view.seen {
            let entry = &seen.entry;
            let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap();
            assert!(name.len() <= 255 && name != b"." && name != b"..", "{case:?}: {entry:?}");
            assert!(entry.size.is_none_or(|size| i64::try_from(size).is_ok()), "{case:?}: {entry:?}");
            assert!(matches!(entry.read_error, None | Some(nix::libc::EIO)), "{case:?}: {entry:?}");
        }
        for (path, errno) in &view.broken {
            assert_eq!(*errno, nix::libc::EIO, "{case:?}: {}", String::from_utf8_lossy(path));
        }
    }
}

#[test]
fn content_that_is_not_as_promised_is_an_error() {
    if !can_mount() {
        return;
    }
    for name in [
        "file of 2^63 - 1 bytes",
        "file longer than its object",
        "file shorter than its object",
        "file without an object",
        "object that inflates to 256 megabytes",
        "chunks with gaps, overlaps and of 2^62 bytes",
        "chunked file without chunks",
    ] {
        let case = CASES.iter().find(|case| case.name == name).expect(name);
        let view = look(case);
        let failed = match view.find(b"/bad") {
            Some(bad) => bad.entry.read_error == Some(nix::libc::EIO),
            None => view.broken.iter().any(|(path, errno)| path == b"/bad" && *errno == nix::libc::EIO),
        };
        assert!(failed, "{case:?}: {:?} {:?}", view.find(b"/bad"), view.broken);
    }
}
