//! What a read-only file system implements, in FUSE's terms but without its bytes.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime};

use crate::{DirectoryBuffer, Reply};

/// The kernel's handle of an inode; [`NodeId::ROOT`] is the root. Must mean the same thing to the next worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The root directory (FUSE_ROOT_ID).
    pub const ROOT: NodeId = NodeId(1);
}

/// Who made the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id in the mount's user namespace.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Thread id; 0 if it is not visible in our pid namespace.
    pub pid: u32,
}

/// Type of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// S_IFREG
    Regular,
    /// S_IFDIR
    Directory,
    /// S_IFLNK
    Symlink,
    /// S_IFIFO
    Fifo,
    /// S_IFSOCK
    Socket,
    /// S_IFCHR
    CharDevice,
    /// S_IFBLK
    BlockDevice,
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Inode number shown to users.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Modification time; also shown as access and change time.
    pub mtime: SystemTime,
    /// Type.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid, sticky (07777).
    pub perm: u16,
    /// Link count.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a special file (Linux `makedev`).
    pub rdev: u32,
}

/// Answer to a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The inode; `None` is "no such name", which the kernel caches for `entry_ttl` as well.
    pub node: Option<(NodeId, Attr)>,
    /// How long the kernel may keep the name.
    pub entry_ttl: Duration,
    /// How long the kernel may keep the attributes.
    pub attr_ttl: Duration,
}

/// One row of a listing.
#[derive(Debug, Clone, Copy)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a OsStr,
    /// Inode number shown (`d_ino`).
    pub ino: u64,
    /// Type.
    pub kind: FileKind,
    /// Cookie from which a later readdir goes on *after* this row; stable over a worker's death.
    pub next: u64,
}

/// How an opened file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Through the page cache, kept over opens (FOPEN_KEEP_CACHE).
    Cached,
    /// Past the page cache (FOPEN_DIRECT_IO).
    Direct,
    /// By the kernel itself from the backing file with this id (FOPEN_PASSTHROUGH).
    Passthrough(u32),
}

/// Answer to open and opendir.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// File handle; comes back with each operation on the open file. Must mean the same to the next worker.
    pub handle: u64,
    /// For directories `Cached` means FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE.
    pub mode: OpenMode,
}

/// Answer to statfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statfs {
    /// Blocks in all, in units of `block_size`.
    pub blocks: u64,
    /// Blocks free.
    pub free: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
    /// Bytes per block.
    pub block_size: u32,
    /// Longest name.
    pub name_max: u32,
}

/// A read-only file system.
///
/// Methods run on the session's threads and must not wait for the network or other processes: whoever cannot answer at
/// once moves the [`Reply`] elsewhere and returns. A reply that is dropped unanswered answers EIO. Errors are positive
/// errno values. Every operation may come twice (FUSE_NOTIFY_RESEND) and must be safe to repeat. An answer that comes too late
/// is taken back by `forget`, `release` or `releasedir` (see [`Reply`]), so nothing need be counted with care for that.
pub trait FileSystem: Send + Sync + 'static {
    /// Finds `name` in `parent`. A found node's lookup count is one higher after the answer.
    fn lookup(&self, caller: Caller, parent: NodeId, name: &OsStr, reply: Reply<Entry>);
    /// The kernel dropped `count` lookups of `node`.
    fn forget(&self, node: NodeId, count: u64);
    /// Attributes and how long the kernel may keep them.
    fn getattr(&self, caller: Caller, node: NodeId, reply: Reply<(Attr, Duration)>);
    /// Target of a symlink.
    fn readlink(&self, caller: Caller, node: NodeId, reply: Reply<Vec<u8>>);
    /// Opens a file; `flags` as in open(2). Writing opens never arrive (read-only mount) but must get EROFS.
    fn open(&self, caller: Caller, node: NodeId, flags: i32, reply: Reply<Opened>);
    /// Reads at most `size` bytes at `offset`; fewer only at the end of the file.
    fn read(&self, caller: Caller, node: NodeId, handle: u64, offset: u64, size: u32, reply: Reply<Vec<u8>>);
    /// The last user of an open file is gone.
    fn release(&self, node: NodeId, handle: u64);
    /// Opens a directory.
    fn opendir(&self, caller: Caller, node: NodeId, reply: Reply<Opened>);
    /// Rows after cookie `offset` (0 is the beginning; `.` and `..` are rows as well) until the buffer is full. With
    /// `plus` each row carries an [`Entry`] and counts as a lookup of its node, except `.` and `..`.
    #[expect(clippy::too_many_arguments, reason = "one for each field of the request")]
    fn readdir(
        &self,
        caller: Caller,
        node: NodeId,
        handle: u64,
        offset: u64,
        plus: bool,
        buffer: DirectoryBuffer,
        reply: Reply<DirectoryBuffer>,
    );
    /// A directory handle is closed.
    fn releasedir(&self, node: NodeId, handle: u64);
    /// Value of an extended attribute (the session answers ERANGE and size queries); ENODATA if there is none.
    fn getxattr(&self, caller: Caller, node: NodeId, name: &OsStr, reply: Reply<Vec<u8>>);
    /// Names of all extended attributes, each followed by a NUL byte.
    fn listxattr(&self, caller: Caller, node: NodeId, reply: Reply<Vec<u8>>);
    /// File system statistics.
    fn statfs(&self, caller: Caller, node: NodeId, reply: Reply<Statfs>);
}

/// Registers backing files for passthrough with the kernel. The ioctl needs CAP_SYS_ADMIN, which a worker has not: the
/// daemon does it on its duplicate of the connection. Bounded by 200 ms.
pub trait Backings: Send + Sync {
    /// Registers an open file; the id is valid for this connection until closed.
    fn open(&self, file: BorrowedFd<'_>) -> std::io::Result<u32>;
    /// Gives an id back. Files opened with it go on working.
    fn close(&self, id: u32);
}
