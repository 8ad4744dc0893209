//! Signed does not mean sane: what is insane answers an error, in time, and disturbs nothing beside it.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use cvmfs::publish::forge::{CASES, Forge, test_keys};
use tempfile::TempDir;
use volume::Revision;

use crate::can_mount;
use crate::harness::{Setup, server};

const DEADLINE: Duration = Duration::from_secs(5);
const NAME: &str = "forge.example.org";

/// Touches whatever is below, not endlessly; every call must come back in time.
fn poke(path: &Path, depth: usize, left: &mut usize) {
    let Ok(entries) = timed(path, || std::fs::read_dir(path)) else { return };
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let Ok(entry) = entry else { return };
        let path = entry.path();
        let Ok(metadata) = timed(&path, || path.symlink_metadata()) else { continue };
        let _ = timed(&path, || rustix::fs::llistxattr(&path, &mut vec![0_u8; 65536][..]));
        if metadata.is_symlink() {
            let _ = timed(&path, || std::fs::read_link(&path));
        } else if metadata.is_file() {
            let _ = timed(&path, || {
                let mut content = Vec::new();
                std::fs::File::open(&path)?.take(8 << 20).read_to_end(&mut content)
            });
        } else if metadata.is_dir() && depth < 6 {
            poke(&path, depth + 1, left);
        }
    }
}

fn timed<T>(path: &Path, call: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = call();
    assert!(begun.elapsed() < 2 * DEADLINE, "{path:?} took {:?}", begun.elapsed());
    result
}

#[test]
fn insane_repositories_fail_where_they_are_insane() {
    if !can_mount() {
        return;
    }
    for case in CASES {
        let directory: TempDir = tempfile::tempdir().unwrap();
        let root = directory.path().join("www/cvmfs").join(NAME);
        let forge = Forge::create(&root, NAME).unwrap();
        (case.make)(&forge).unwrap();
        std::fs::write(directory.path().join("key.pub"), test_keys().public_key_pem()).unwrap();
        let server = server(&directory.path().join("www"));
        let setup = Setup {
            repository: NAME.to_owned(),
            revision: Revision::Trunk,
            parameters: vec![("CVMFS_SERVER_URL".into(), server.url(&format!("cvmfs/{NAME}")))],
            key: directory.path().join("key.pub"),
            cache: directory.path().join("cache"),
            deadline: DEADLINE,
        };
        match setup.mount() {
            Ok(mounted) => {
                assert!(case.mounts, "{case:?} should not mount");
                poke(mounted.path(), 0, &mut 500);
                assert_eq!(std::fs::read(mounted.join("good")).unwrap(), b"good", "{case:?}");
                assert_eq!(
                    mounted.join("absent").symlink_metadata().unwrap_err().raw_os_error(),
                    Some(2),
                    "{case:?}"
                );
            }
            Err(fault) => assert!(!case.mounts, "{case:?} should mount: {fault}"),
        }
    }
}
