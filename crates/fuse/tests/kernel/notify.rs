//! Dropping what the kernel has cached.

use std::ffi::OsStr;
use std::fs;
use std::sync::Arc;

use fuse::{NodeId, OpenMode, SessionConfig};

use crate::memory_fs::{Body, MemoryFs};
use crate::mounted::Mounted;

fn file(content: &[u8]) -> Body {
    Body::File { content: content.to_vec(), mode: OpenMode::Cached }
}

#[test]
fn attributes_data_and_names_are_dropped() {
    let fs = Arc::new(MemoryFs::new(vec![("file", file(b"old"))]));
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    let notifier = session.notifier();
    assert_eq!(fs::read(mounted.file("file")).unwrap(), b"old");
    fs.set(NodeId(2), file(b"newer"));
    assert_eq!(fs::metadata(mounted.file("file")).unwrap().len(), 3, "cached for an hour");
    notifier.inval_inode_attrs(NodeId(2)).unwrap();
    assert_eq!(fs::metadata(mounted.file("file")).unwrap().len(), 5);
    assert_eq!(&fs::read(mounted.file("file")).unwrap()[..3], b"old", "pages stay");
    notifier.inval_inode_data(NodeId(2)).unwrap();
    assert_eq!(fs::read(mounted.file("file")).unwrap(), b"newer");

    let lookups = || fs.with_seen(|seen| seen.names_looked_up.len());
    let before = lookups();
    fs::metadata(mounted.file("file")).unwrap();
    assert_eq!(lookups(), before);
    notifier.inval_entry(NodeId::ROOT, OsStr::new("file")).unwrap();
    fs::metadata(mounted.file("file")).unwrap();
    assert_eq!(lookups(), before + 1);
    // What the kernel does not know is no error.
    notifier.inval_entry(NodeId::ROOT, OsStr::new("never-heard-of")).unwrap();
    notifier.inval_entry(NodeId(4711), OsStr::new("file")).unwrap();
    notifier.inval_inode_data(NodeId(4711)).unwrap();
}
