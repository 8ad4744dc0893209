//! A file system in memory for workers of tests. The payload chooses how it misbehaves.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fuse::{
    Attr, Caller, DirEntry, DirectoryBuffer, Entry, FileKind, FileSystem, NodeId, OpenMode, Opened, Reply,
    Session, SessionConfig, Statfs,
};
use supervisor::{PreparedServant, Servant, ServeContext, ServingServant};
use volume::{Driver, Fault, FaultKind, WorkerReport};

const TTL: Duration = Duration::from_secs(60);
/// Bytes of every file.
pub const SIZE: u64 = 1 << 20;
/// Name to node id; the id says what the file does.
const FILES: [(&str, u64); 4] = [("plain", 2), ("stuck", 3), ("deadly", 4), ("backed", 5)];

/// The byte at an offset of every file.
pub fn byte_at(offset: u64) -> u8 {
    (offset % 251) as u8
}

pub struct Memory;

/// What a worker can still do, as words.
fn probe(elsewhere: &str) -> String {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let raw = socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None);
    let tries = [
        ("write-elsewhere", std::fs::write(format!("{elsewhere}/planted"), "x").is_ok()),
        ("read-elsewhere", std::fs::read(format!("{elsewhere}/readable")).is_ok()),
        ("execute", std::process::Command::new("/bin/true").status().is_ok()),
        ("raw-socket", raw.is_ok()),
        ("namespace", nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).is_ok()),
        ("signal-daemon", nix::sys::signal::kill(nix::unistd::getppid(), None).is_ok()),
        ("thread", std::thread::Builder::new().spawn(|| ()).is_ok_and(|thread| thread.join().is_ok())),
        ("resolve", std::fs::read("/etc/hosts").is_ok()),
    ];
    let can: Vec<&str> = tries.iter().filter(|(_, possible)| *possible).map(|(what, _)| *what).collect();
    can.join(" ")
}

struct Prepared {
    payload: serde_json::Value,
    offline: bool,
}

struct Serving {
    session: Session,
    adopted: bool,
}

impl Servant for Memory {
    fn prepare(
        &self,
        _: Driver,
        payload: serde_json::Value,
        offline: bool,
    ) -> Result<Box<dyn PreparedServant>, Fault> {
        if payload["refuse"] == true {
            return Err(Fault::new(FaultKind::Untrusted, "verify", "test", "this payload is refused"));
        }
        if let Some(elsewhere) = payload["probe"].as_str() {
            return Err(Fault::new(FaultKind::Internal, "probe", "test", probe(elsewhere)));
        }
        if payload["die_offline"] == true && offline {
            std::process::exit(101);
        }
        Ok(Box::new(Prepared { payload, offline }))
    }
}

impl PreparedServant for Prepared {
    fn serve(self: Box<Self>, context: ServeContext) -> Result<Arc<dyn ServingServant>, Fault> {
        assert_eq!(self.offline, context.adopted);
        let backing = self.payload["backing"].as_str().map(|path| File::open(path).unwrap());
        let files = Files { backing, backings: context.backings, patient: context.adopted };
        let config = SessionConfig { threads: 2, deadline: Duration::from_secs(30), resend: context.adopted };
        let session = Session::start(Arc::new(files), context.connection, config).unwrap();
        Ok(Arc::new(Serving { session, adopted: context.adopted }))
    }
}

impl ServingServant for Serving {
    fn report(&self) -> WorkerReport {
        WorkerReport { revision: Some(format!("adopted {}", self.adopted)), ..WorkerReport::default() }
    }
    fn refresh(&self) -> Result<(), Fault> {
        Err(Fault::new(FaultKind::Unavailable, "refresh", "test", "there is no server"))
    }
    fn stop(&self) {
        self.session.stop();
    }
    fn wait(&self) {
        self.session.wait();
    }
}

struct Files {
    backing: Option<File>,
    backings: Arc<dyn fuse::Backings>,
    /// The first worker never answers reads of `stuck`; its successor does.
    patient: bool,
}

fn attr(node: NodeId) -> Attr {
    let root = node == NodeId::ROOT;
    Attr {
        ino: node.0,
        size: if root { 0 } else { SIZE },
        blocks: SIZE / 512,
        mtime: UNIX_EPOCH,
        kind: if root { FileKind::Directory } else { FileKind::Regular },
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
    }
}

impl FileSystem for Files {
    fn lookup(&self, _: Caller, _: NodeId, name: &OsStr, reply: Reply<Entry>) {
        let node =
            FILES.iter().find(|(known, _)| *known == name).map(|(_, id)| (NodeId(*id), attr(NodeId(*id))));
        reply.ok(Entry { node, entry_ttl: Duration::ZERO, attr_ttl: TTL });
    }
    fn forget(&self, _: NodeId, _: u64) {}
    fn getattr(&self, _: Caller, node: NodeId, reply: Reply<(Attr, Duration)>) {
        reply.ok((attr(node), TTL));
    }
    fn readlink(&self, _: Caller, _: NodeId, reply: Reply<Vec<u8>>) {
        reply.error(libc::EINVAL);
    }
    fn open(&self, _: Caller, node: NodeId, _: i32, reply: Reply<Opened>) {
        let mode = match &self.backing {
            Some(file) if node.0 == 5 => match self.backings.open(file.as_fd()) {
                Ok(id) => OpenMode::Passthrough(id),
                Err(error) => return reply.error(error.raw_os_error().unwrap_or(libc::EIO)),
            },
            _ => OpenMode::Direct,
        };
        reply.ok(Opened { handle: 1, mode });
    }
    fn read(&self, _: Caller, node: NodeId, _: u64, offset: u64, size: u32, reply: Reply<Vec<u8>>) {
        match node.0 {
            3 if !self.patient => std::mem::forget(reply),
            4 => std::process::abort(),
            _ => {
                let end = (offset + u64::from(size)).min(SIZE);
                reply.ok((offset..end).map(byte_at).collect());
            }
        }
    }
    fn release(&self, _: NodeId, _: u64) {}
    fn opendir(&self, _: Caller, _: NodeId, reply: Reply<Opened>) {
        reply.ok(Opened { handle: 0, mode: OpenMode::Direct });
    }
    fn readdir(
        &self,
        _: Caller,
        _: NodeId,
        _: u64,
        offset: u64,
        _: bool,
        mut buffer: DirectoryBuffer,
        reply: Reply<DirectoryBuffer>,
    ) {
        for (index, (name, ino)) in FILES.iter().enumerate().skip(offset as usize) {
            let row = DirEntry {
                name: OsStr::new(name),
                ino: *ino,
                kind: FileKind::Regular,
                next: index as u64 + 1,
            };
            let entry =
                Entry { node: Some((NodeId(*ino), attr(NodeId(*ino)))), entry_ttl: TTL, attr_ttl: TTL };
            if !buffer.push_plus(row, entry) {
                break;
            }
        }
        reply.ok(buffer);
    }
    fn releasedir(&self, _: NodeId, _: u64) {}
    fn getxattr(&self, _: Caller, _: NodeId, _: &OsStr, reply: Reply<Vec<u8>>) {
        reply.error(libc::ENODATA);
    }
    fn listxattr(&self, _: Caller, _: NodeId, reply: Reply<Vec<u8>>) {
        reply.ok(Vec::new());
    }
    fn statfs(&self, _: Caller, _: NodeId, reply: Reply<Statfs>) {
        reply.ok(Statfs { block_size: 4096, name_max: 255, ..Statfs::default() });
    }
}
