//! A small file system in memory whose nodes can misbehave.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use fuse::{
    Attr, Caller, DirEntry, DirectoryBuffer, Entry, FileKind, FileSystem, NodeId, OpenMode, Opened, Reply,
    Statfs,
};
use parking_lot::{Condvar, Mutex};

pub(crate) const TTL: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone)]
pub(crate) enum Body {
    File {
        content: Vec<u8>,
        mode: OpenMode,
    },
    /// Reads are parked until the test answers them.
    Parked {
        size: u64,
        mode: OpenMode,
    },
    /// Reads panic.
    Panicking,
    /// Replies to reads are dropped.
    Forgetful,
    /// Reads are answered from another thread.
    Elsewhere {
        content: Vec<u8>,
    },
    Symlink(Vec<u8>),
    Directory(Arc<BTreeMap<OsString, NodeId>>),
    /// Lookups of it are parked.
    ParkedLookup,
    /// Opens of it are parked.
    ParkedOpen,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Lookup counts the kernel should have (lookups and readdirplus rows less forgets).
    pub(crate) lookups: HashMap<NodeId, i64>,
    pub(crate) open_handles: HashSet<u64>,
    pub(crate) names_looked_up: Vec<OsString>,
    pub(crate) reads: u64,
    pub(crate) readdir_calls: u64,
    pub(crate) getattrs: u64,
    pub(crate) parked_reads: Vec<(u64, u32, Reply<Vec<u8>>)>,
    pub(crate) parked_lookups: Vec<(Entry, Reply<Entry>)>,
    pub(crate) parked_opens: Vec<(Opened, Reply<Opened>)>,
    pub(crate) cancelled: u64,
}

pub(crate) struct MemoryFs {
    nodes: Mutex<HashMap<NodeId, Body>>,
    seen: Mutex<Seen>,
    changed: Condvar,
    next_handle: AtomicU64,
    pub(crate) mtime: Mutex<SystemTime>,
    /// How long the kernel may keep names and attributes.
    pub(crate) ttl: Duration,
    /// Answer parked reads at once (a healthy successor).
    pub(crate) healthy: bool,
    /// Say on standard output that a request is parked.
    pub(crate) announces: bool,
}

impl MemoryFs {
    /// `tree` is what the root contains; node ids go up from 2 in its order.
    pub(crate) fn new(tree: Vec<(&str, Body)>) -> Self {
        let mut nodes = HashMap::new();
        let mut root = BTreeMap::new();
        for (id, (name, body)) in (2..).zip(tree) {
            root.insert(OsString::from(name), NodeId(id));
            nodes.insert(NodeId(id), body);
        }
        nodes.insert(NodeId::ROOT, Body::Directory(Arc::new(root)));
        Self {
            nodes: Mutex::new(nodes),
            seen: Mutex::default(),
            changed: Condvar::new(),
            next_handle: AtomicU64::new(1),
            mtime: Mutex::new(SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789)),
            ttl: TTL,
            healthy: false,
            announces: false,
        }
    }

    pub(crate) fn set(&self, node: NodeId, body: Body) {
        self.nodes.lock().insert(node, body);
    }

    pub(crate) fn with_seen<R>(&self, look: impl FnOnce(&mut Seen) -> R) -> R {
        look(&mut self.seen.lock())
    }

    /// Waits until the condition holds; panics after ten seconds.
    pub(crate) fn await_seen(&self, what: &str, mut condition: impl FnMut(&mut Seen) -> bool) {
        let mut seen = self.seen.lock();
        while !condition(&mut seen) {
            let late = self.changed.wait_for(&mut seen, Duration::from_secs(10)).timed_out();
            assert!(!late || condition(&mut seen), "waited in vain: {what}; {seen:?}");
        }
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock());
        self.changed.notify_all();
    }

    fn park(&self, change: impl FnOnce(&mut Seen)) {
        self.note(change);
        if self.announces {
            println!("\nparked");
        }
    }

    pub(crate) fn note_cancelled(&self) {
        self.note(|seen| seen.cancelled += 1);
    }

    fn body(&self, node: NodeId) -> Option<Body> {
        self.nodes.lock().get(&node).cloned()
    }

    fn attr(&self, node: NodeId) -> Option<Attr> {
        let (kind, size) = match self.body(node)? {
            Body::File { content, .. } | Body::Elsewhere { content } => {
                (FileKind::Regular, content.len() as u64)
            }
            Body::Parked { size, .. } => (FileKind::Regular, size),
            Body::Panicking | Body::Forgetful => (FileKind::Regular, 100),
            Body::ParkedLookup | Body::ParkedOpen => (FileKind::Regular, 0),
            Body::Symlink(target) => (FileKind::Symlink, target.len() as u64),
            Body::Directory(_) => (FileKind::Directory, 4096),
        };
        Some(Attr {
            ino: node.0 + 1000,
            size,
            blocks: size.div_ceil(512),
            mtime: *self.mtime.lock(),
            kind,
            perm: if kind == FileKind::Directory { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 12,
            gid: 34,
            rdev: 0,
        })
    }

    fn entry(&self, node: NodeId) -> Entry {
        let attr = self.attr(node);
        Entry { node: attr.map(|attr| (node, attr)), entry_ttl: self.ttl, attr_ttl: self.ttl }
    }

    fn handle(&self) -> u64 {
        let handle = self.next_handle.fetch_add(1, Ordering::SeqCst);
        self.note(|seen| {
            seen.open_handles.insert(handle);
        });
        handle
    }

    fn slice(content: &[u8], offset: u64, size: u32) -> Vec<u8> {
        let start = content.len().min(offset as usize);
        let end = content.len().min(start + size as usize);
        content[start..end].to_vec()
    }

    /// What a parked file contains once it is answered.
    pub(crate) fn parked_content(offset: u64, size: u32, file_size: u64) -> Vec<u8> {
        (offset..file_size.min(offset + u64::from(size))).map(|at| (at / 4096) as u8).collect()
    }
}

impl FileSystem for MemoryFs {
    fn lookup(&self, _: Caller, parent: NodeId, name: &OsStr, reply: Reply<Entry>) {
        self.note(|seen| seen.names_looked_up.push(name.to_owned()));
        let Some(Body::Directory(children)) = self.body(parent) else { return reply.error(libc::ENOTDIR) };
        let Some(&node) = children.get(name) else {
            return reply.ok(Entry { node: None, entry_ttl: self.ttl, attr_ttl: self.ttl });
        };
        let entry = self.entry(node);
        let parked = !self.healthy && matches!(self.body(node), Some(Body::ParkedLookup));
        self.note(|seen| *seen.lookups.entry(node).or_default() += 1);
        if parked {
            self.park(|seen| seen.parked_lookups.push((entry, reply)));
        } else {
            reply.ok(entry);
        }
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.note(|seen| *seen.lookups.entry(node).or_default() -= count as i64);
    }

    fn getattr(&self, _: Caller, node: NodeId, reply: Reply<(Attr, Duration)>) {
        self.note(|seen| seen.getattrs += 1);
        match self.attr(node) {
            Some(attr) => reply.ok((attr, self.ttl)),
            None => reply.error(libc::ESTALE),
        }
    }

    fn readlink(&self, _: Caller, node: NodeId, reply: Reply<Vec<u8>>) {
        match self.body(node) {
            Some(Body::Symlink(target)) => reply.ok(target),
            _ => reply.error(libc::EINVAL),
        }
    }

    fn open(&self, _: Caller, node: NodeId, _flags: i32, reply: Reply<Opened>) {
        let (mode, parked) = match self.body(node) {
            Some(Body::File { mode, .. } | Body::Parked { mode, .. }) => (mode, false),
            Some(Body::ParkedOpen) => (OpenMode::Cached, true),
            Some(_) => (OpenMode::Direct, false),
            None => return reply.error(libc::ESTALE),
        };
        let opened = Opened { handle: self.handle(), mode };
        if parked {
            self.park(|seen| seen.parked_opens.push((opened, reply)));
        } else {
            reply.ok(opened);
        }
    }

    fn read(&self, _: Caller, node: NodeId, _handle: u64, offset: u64, size: u32, reply: Reply<Vec<u8>>) {
        self.note(|seen| seen.reads += 1);
        match self.body(node) {
            Some(Body::File { content, .. }) => reply.ok(Self::slice(&content, offset, size)),
            Some(Body::Parked { size: file_size, .. }) if self.healthy => {
                reply.ok(Self::parked_content(offset, size, file_size));
            }
            Some(Body::Parked { .. }) => self.park(|seen| seen.parked_reads.push((offset, size, reply))),
            Some(Body::Panicking) => panic!("as the test wants it"),
            Some(Body::Forgetful) => drop(reply),
            Some(Body::Elsewhere { content }) => {
                let answer = move || reply.ok(Self::slice(&content, offset, size));
                thread::Builder::new().name("elsewhere".into()).spawn(answer).unwrap();
            }
            Some(Body::ParkedLookup | Body::ParkedOpen) => reply.ok(Vec::new()),
            _ => reply.error(libc::EISDIR),
        }
    }

    fn release(&self, _: NodeId, handle: u64) {
        self.note(|seen| {
            seen.open_handles.remove(&handle);
        });
    }

    fn opendir(&self, _: Caller, _: NodeId, reply: Reply<Opened>) {
        reply.ok(Opened { handle: self.handle(), mode: OpenMode::Direct });
    }

    fn readdir(
        &self,
        _: Caller,
        node: NodeId,
        _handle: u64,
        offset: u64,
        plus: bool,
        mut buffer: DirectoryBuffer,
        reply: Reply<DirectoryBuffer>,
    ) {
        self.note(|seen| seen.readdir_calls += 1);
        let Some(Body::Directory(children)) = self.body(node) else { return reply.error(libc::ENOTDIR) };
        let (here, above) = (OsString::from("."), OsString::from(".."));
        let dots = [(&here, node), (&above, NodeId::ROOT)].into_iter();
        let rows = dots.chain(children.iter().map(|(name, &child)| (name, child)));
        for (next, (name, child)) in (1..).zip(rows).skip(offset as usize) {
            let attr = self.attr(child).unwrap();
            let row = DirEntry { name, ino: attr.ino, kind: attr.kind, next };
            let fits = if plus { buffer.push_plus(row, self.entry(child)) } else { buffer.push(row) };
            if !fits {
                break;
            }
            if plus && next > 2 {
                self.note(|seen| *seen.lookups.entry(child).or_default() += 1);
            }
        }
        reply.ok(buffer);
    }

    fn releasedir(&self, _: NodeId, handle: u64) {
        self.note(|seen| {
            seen.open_handles.remove(&handle);
        });
    }

    fn getxattr(&self, _: Caller, _: NodeId, name: &OsStr, reply: Reply<Vec<u8>>) {
        if name == "user.colour" { reply.ok(b"grey".to_vec()) } else { reply.error(libc::ENODATA) }
    }

    fn listxattr(&self, _: Caller, _: NodeId, reply: Reply<Vec<u8>>) {
        reply.ok(b"user.colour\0user.shape\0".to_vec());
    }

    fn statfs(&self, _: Caller, _: NodeId, reply: Reply<Statfs>) {
        reply.ok(Statfs {
            blocks: 1000,
            free: 10,
            files: 77,
            files_free: 7,
            block_size: 4096,
            name_max: 255,
        });
    }
}
