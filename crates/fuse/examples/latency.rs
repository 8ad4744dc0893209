//! How long an open, a read and a close take through a mount, for several counts of session threads.
//!
//! `cargo run --release -p fuse --example latency` as root. It mounts in a temporary directory, with 1000 files of 4 KiB
//! that are never kept in the page cache, and reads them from 1 and from 8 threads.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fuse::{
    Attr, Caller, Connection, DirectoryBuffer, Entry, FileKind, FileSystem, MountOptions, NodeId, OpenMode,
    Opened, Reply, Session, SessionConfig, Statfs,
};

const FILES: u64 = 1000;
const OPENS: u64 = 20_000;
const TTL: Duration = Duration::from_secs(3600);

struct Thousand;

fn attr(node: NodeId) -> Attr {
    let kind = if node == NodeId::ROOT { FileKind::Directory } else { FileKind::Regular };
    Attr {
        ino: node.0,
        size: 4096,
        blocks: 8,
        mtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: 0o755,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
    }
}

impl FileSystem for Thousand {
    fn lookup(&self, _: Caller, _: NodeId, name: &OsStr, reply: Reply<Entry>) {
        let number = name.to_str().and_then(|name| name.parse::<u64>().ok()).filter(|number| *number < FILES);
        let node = number.map(|number| NodeId(number + 2)).map(|node| (node, attr(node)));
        reply.ok(Entry { node, entry_ttl: TTL, attr_ttl: TTL });
    }
    fn forget(&self, _: NodeId, _: u64) {}
    fn getattr(&self, _: Caller, node: NodeId, reply: Reply<(Attr, Duration)>) {
        reply.ok((attr(node), TTL));
    }
    fn readlink(&self, _: Caller, _: NodeId, reply: Reply<Vec<u8>>) {
        reply.error(libc::EINVAL);
    }
    fn open(&self, _: Caller, _: NodeId, _: i32, reply: Reply<Opened>) {
        reply.ok(Opened { handle: 0, mode: OpenMode::Direct });
    }
    fn read(&self, _: Caller, _: NodeId, _: u64, offset: u64, size: u32, reply: Reply<Vec<u8>>) {
        reply.ok(vec![b'x'; u64::from(size).min(4096_u64.saturating_sub(offset)) as usize]);
    }
    fn release(&self, _: NodeId, _: u64) {}
    fn opendir(&self, _: Caller, _: NodeId, reply: Reply<Opened>) {
        reply.error(libc::ENOSYS);
    }
    fn readdir(
        &self,
        _: Caller,
        _: NodeId,
        _: u64,
        _: u64,
        _: bool,
        buffer: DirectoryBuffer,
        reply: Reply<DirectoryBuffer>,
    ) {
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
        reply.ok(Statfs::default());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    println!("threads  readers  microseconds per open+read+close, the best of five rounds");
    let mut best = std::collections::BTreeMap::new();
    for _ in 0..5 {
        for threads in [1, 2, 3, 4, 8] {
            let options = MountOptions::new(directory.path(), "latency");
            let connection = Connection::mount(&options)?;
            let session = Session::start(
                Arc::new(Thousand),
                connection,
                SessionConfig { threads, ..SessionConfig::default() },
            )?;
            for readers in [1, 8] {
                let since = Instant::now();
                thread::scope(|scope| {
                    for reader in 0..readers {
                        let path = directory.path();
                        scope.spawn(move || {
                            let mut buffer = [0; 4096];
                            for n in 0..OPENS / readers {
                                let name = ((n * 7 + reader * 131) % FILES).to_string();
                                let read =
                                    File::open(path.join(name)).and_then(|mut file| file.read(&mut buffer));
                                assert_eq!(read.ok(), Some(4096));
                            }
                        });
                    }
                });
                let each = since.elapsed().as_secs_f64() * 1e6 / OPENS as f64;
                best.entry((readers, threads))
                    .and_modify(|best: &mut f64| *best = best.min(each))
                    .or_insert(each);
            }
            nix::mount::umount2(directory.path(), nix::mount::MntFlags::MNT_DETACH)?;
            session.wait();
        }
    }
    for ((readers, threads), each) in best {
        println!("{threads:7}  {readers:7}  {each:.1}");
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"))
        .for_each(|l| println!("{l}"));
    Ok(())
}
