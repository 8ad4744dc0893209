//! Files that the kernel reads by itself.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::sync::Arc;

use fuse::{Backings, DeviceBackings, NodeId, OpenMode, SessionConfig};

use crate::memory_fs::{Body, MemoryFs};
use crate::mounted::Mounted;

#[test]
fn a_backing_file_is_read_without_us() {
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 1000) as u8).collect();
    let fs = Arc::new(MemoryFs::new(vec![("file", Body::Panicking)]));
    let (mounted, _session) = Mounted::serve(&fs, SessionConfig::default());
    if !mounted.connection.negotiated().unwrap().passthrough {
        return eprintln!("skipped: this kernel has no FUSE passthrough");
    }
    let backing_path = tempfile::NamedTempFile::new().unwrap();
    fs::write(backing_path.path(), &content).unwrap();
    let backing = File::open(backing_path.path()).unwrap();
    let backings = DeviceBackings::new(mounted.connection.try_clone().unwrap());
    let id = match backings.open(backing.as_fd()) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return eprintln!("skipped: temporary files are on a stacked file system");
        }
        opened => opened.unwrap(),
    };
    fs.set(NodeId(2), Body::File { content: content.clone(), mode: OpenMode::Passthrough(id) });
    drop((backing, backing_path));
    assert!(fs::read(mounted.file("file")).unwrap() == content);
    let held = File::open(mounted.file("file")).unwrap();
    backings.close(id);
    backings.close(id); // twice is harmless
    assert!(std::io::read_to_string(held).is_err(), "not UTF-8, but read");
    assert_eq!(fs.with_seen(|seen| seen.reads), 0);
    // With the id gone a new open fails, it does not read something else.
    assert!(File::open(mounted.file("file")).is_err());
}
