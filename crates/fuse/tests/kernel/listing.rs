//! Listings: complete, resumable, and counted.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::sync::Arc;

use fuse::{NodeId, OpenMode, SessionConfig};

use crate::memory_fs::{Body, MemoryFs};
use crate::mounted::{Mounted, eventually};
use crate::roles;

const FILES: u64 = 3000;

/// A directory `many` of 3000 files, node ids from 100, and a file `direct`.
pub(crate) fn many() -> MemoryFs {
    let names: BTreeMap<_, _> =
        (0..FILES).map(|n| (OsString::from(format!("file-{n:05}")), NodeId(100 + n))).collect();
    let nodes: Vec<_> = names.values().copied().collect();
    let fs = MemoryFs::new(vec![
        ("many", Body::Directory(Arc::new(names))),
        ("direct", Body::Parked { size: roles::FILE_BYTES, mode: OpenMode::Direct }),
    ]);
    for node in nodes {
        fs.set(node, Body::File { content: b"x".to_vec(), mode: OpenMode::Cached });
    }
    fs
}

#[test]
fn each_row_comes_once_and_each_lookup_is_forgotten() {
    let fs = Arc::new(many());
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    let names: Vec<_> =
        fs::read_dir(mounted.file("many")).unwrap().map(|row| row.unwrap().file_name()).collect();
    assert_eq!(names.len() as u64, FILES);
    assert_eq!(names.iter().collect::<HashSet<_>>().len() as u64, FILES);
    // The kernel asks for attributes with a listing when the first rows were looked at.
    for row in fs::read_dir(mounted.file("many")).unwrap() {
        assert_eq!(row.unwrap().metadata().unwrap().len(), 1);
    }
    let counted = fs.with_seen(|seen| seen.lookups.values().sum::<i64>());
    let single = fs.with_seen(|seen| seen.names_looked_up.len() as i64);
    assert!(single < FILES as i64 / 2, "readdirplus brings most entries, not {single} lookups");
    assert!(counted >= FILES as i64);
    let notifier = session.notifier();
    for name in &names {
        notifier.inval_entry(NodeId(2), name).unwrap();
    }
    // Whatever the kernel was told by rows and lookups, it gives back.
    eventually("all lookups forgotten", || {
        fs.with_seen(|seen| seen.lookups.iter().all(|(node, &count)| *node == NodeId(2) || count == 0))
    });
}
