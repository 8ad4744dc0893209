//! All of /cvmfs in one tree.

use std::path::Path;
use std::time::{Duration, Instant};

use cvmfs::payload::{AllSetup, Kind, Owner, Payload};
use tempfile::TempDir;
use volume::OptionMap;

use crate::can_mount;
use crate::harness::{Mounted, read_errno, server};
use crate::published::names;

struct Site {
    directory: TempDir,
    _server: cvmfs::publish::serve::ServingFiles,
}

impl Site {
    fn new(configured: &[&str]) -> Site {
        let server = server(&fixtures::www());
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config");
        std::fs::create_dir_all(config.join("config.d")).unwrap();
        std::fs::create_dir_all(directory.path().join("cache")).unwrap();
        let url = server.url("cvmfs/@fqrn@");
        std::fs::write(
            config.join("default.local"),
            format!("CVMFS_SERVER_URL={url}\nCVMFS_HTTP_PROXY=DIRECT\n"),
        )
        .unwrap();
        for fqrn in configured {
            let key = fixtures::public_key(fqrn);
            let text = format!("CVMFS_PUBLIC_KEY={}\n", key.display());
            std::fs::write(config.join(format!("config.d/{fqrn}.conf")), text).unwrap();
        }
        Site { directory, _server: server }
    }

    fn mount(&self, configured: &[&str]) -> Mounted {
        let payload = Payload {
            kind: Kind::All(AllSetup {
                config_dir: self.directory.path().join("config"),
                overrides: OptionMap::new(),
                master_keys: Vec::new(),
                configured: configured.iter().map(ToString::to_string).collect(),
            }),
            cache_dir: self.directory.path().join("cache"),
            deadline_ms: 10_000,
            owner: Owner { uid: 0, gid: 0 },
        };
        Mounted::from_payload(serde_json::to_value(payload).unwrap(), "cvmfs").unwrap()
    }
}

fn errno(path: &Path) -> Option<i32> {
    path.symlink_metadata().err().and_then(|error| error.raw_os_error())
}

#[test]
fn repositories_open_at_first_lookup_and_disturb_no_other() {
    if !can_mount() {
        return;
    }
    let site = Site::new(&["mini.cern.ch", "test.cern.ch", "badsig.cern.ch", "hardlink.cern.ch"]);
    let mounted = site.mount(&["mini.cern.ch", "badsig.cern.ch"]);
    assert_eq!(names(mounted.path()), ["badsig.cern.ch", "mini.cern.ch"]);
    // Found though nobody listed it, and listed from then on.
    assert!(mounted.join("test.cern.ch/README").metadata().unwrap().is_file());
    assert_eq!(names(mounted.path()), ["badsig.cern.ch", "mini.cern.ch", "test.cern.ch"]);
    // Broken, and so again, without a delay.
    assert_eq!(errno(&mounted.join("badsig.cern.ch")), Some(nix::libc::EIO));
    let begun = Instant::now();
    assert_eq!(errno(&mounted.join("badsig.cern.ch")), Some(nix::libc::EIO));
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(mounted.serving.report().trouble.unwrap().contains("badsig.cern.ch"));
    // Names that are none, and one without keys.
    for name in [".git", "no such", "autorun.inf", "README", "nokeys.example.org"] {
        assert_eq!(errno(&mounted.join(name)), Some(nix::libc::ENOENT), "{name}");
    }
    for entry in fixtures::listing("mini.cern.ch").unwrap() {
        let path =
            mounted.join("mini.cern.ch").join(String::from_utf8(entry.path).unwrap().trim_start_matches('/'));
        assert_eq!(errno(&path), None, "{path:?}");
        if entry.sha256.is_some() {
            assert_eq!(read_errno(&path), None, "{path:?}");
        }
    }
    mounted.serving.refresh().unwrap();
    let parent = mounted.join("test.cern.ch/..").metadata().unwrap();
    assert!(parent.is_dir());
}

#[test]
fn inode_numbers_do_not_depend_on_the_order_of_opening() {
    use std::os::unix::fs::MetadataExt;
    if !can_mount() {
        return;
    }
    let site = Site::new(&["mini.cern.ch", "test.cern.ch"]);
    let paths =
        ["mini.cern.ch", "test.cern.ch", "test.cern.ch/README", "mini.cern.ch/nested", "test.cern.ch/bin"];
    let numbers = |order: &mut dyn Iterator<Item = &&str>| {
        let mounted = site.mount(&[]);
        let mut found: Vec<_> =
            order.map(|path| (path.to_string(), mounted.join(path).metadata().unwrap().ino())).collect();
        found.sort();
        found
    };
    assert_eq!(numbers(&mut paths.iter()), numbers(&mut paths.iter().rev()));
}
