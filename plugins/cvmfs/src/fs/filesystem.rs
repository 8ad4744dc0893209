//! The operations of the kernel.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use fuse::{
    Attr, Backings, Caller, DirectoryBuffer, Entry, FileKind, FileSystem, NodeId, OpenMode, Opened, Reply,
    Statfs,
};
use nix::fcntl::OFlag;

use super::all::{ABSENT_FOR, All};
use super::error::FsError;
use super::files::{OpenFile, OpenFiles};
use super::place::Place;
use super::requests::{Operation, Requests};
use super::served::{Node, Served};
use super::state::{IoMode, State};
use super::{directories, statistics, xattrs};
use crate::client::cache::Cache;
use crate::client::catalog::{Kind, NAME_MAX};
use crate::payload::Owner;

/// Files below this size are read through the page cache: asking the daemon for a backing id costs more than it saves.
const PASSTHROUGH_FROM: u64 = 128 << 10;
/// How long nobody is asked for backing ids after that failed.
const PASSTHROUGH_PAUSE: Duration = Duration::from_secs(10);
/// The handle of a file that is opened past the page cache and not counted; others have [`COUNTED`].
const UNCOUNTED: u64 = 0;
const COUNTED: u64 = 1;

/// What is at the mount's root.
pub(crate) enum Tree {
    /// A repository.
    One(Arc<Served>),
    /// A directory of repositories, owned by this user.
    All(All, Owner),
}

/// What a node id stands for.
pub(crate) enum Target {
    /// The directory of repositories.
    Top,
    /// An entry of a repository.
    Entry(Node),
}

/// The file system of one mount.
pub(crate) struct CvmfsFs {
    pub(crate) shared: Arc<Shared>,
}

/// Everything that an operation under way holds on to.
pub(crate) struct Shared {
    pub(crate) tree: Tree,
    pub(crate) state: State,
    pub(crate) files: OpenFiles,
    pub(crate) requests: Arc<Requests>,
    pub(crate) cache: Arc<Cache>,
    backings: Arc<dyn Backings>,
    started: Instant,
    /// Milliseconds after `started` before which nobody is asked for backing ids.
    passthrough_from: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        tree: Tree,
        state: State,
        requests: Arc<Requests>,
        cache: Arc<Cache>,
        backings: Arc<dyn Backings>,
    ) -> Shared {
        Shared {
            tree,
            state,
            files: OpenFiles::default(),
            requests,
            cache,
            backings,
            started: Instant::now(),
            passthrough_from: AtomicU64::new(0),
        }
    }

    /// What a node id stands for.
    pub(crate) async fn target(&self, id: u64) -> Result<Target, FsError> {
        if id == NodeId::ROOT.0 {
            return Ok(match &self.tree {
                Tree::One(served) => Target::Entry(Node::root(Arc::clone(served))),
                Tree::All(..) => Target::Top,
            });
        }
        let view = self.state.get(id).ok_or(FsError::Stale)?;
        let place = Place::decode(&view.catalog).ok_or(FsError::Stale)?;
        let served = match &self.tree {
            Tree::One(served) if served.name() == place.repository => Arc::clone(served),
            Tree::One(_) => return Err(FsError::Stale),
            Tree::All(all, _) => all.get(&place.repository, &self.state).await?.ok_or(FsError::Stale)?,
        };
        Ok(Target::Entry(Node::recorded(served, id, view.key, view.path, place.catalog)))
    }

    /// An entry of a repository; the directory of repositories is none.
    pub(crate) async fn node(&self, id: u64) -> Result<Node, FsError> {
        match self.target(id).await? {
            Target::Entry(node) => Ok(node),
            Target::Top => Err(FsError::IsDirectory),
        }
    }

    /// Attributes of the directory of repositories.
    fn top_attr(&self, owner: Owner) -> Attr {
        Attr {
            ino: NodeId::ROOT.0,
            size: 4096,
            blocks: 9,
            mtime: SystemTime::UNIX_EPOCH,
            kind: FileKind::Directory,
            perm: 0o755,
            nlink: 2,
            uid: owner.uid,
            gid: owner.gid,
            rdev: 0,
        }
    }

    async fn lookup(&self, parent: u64, name: &[u8]) -> Result<Entry, FsError> {
        if name.len() > NAME_MAX {
            return Err(FsError::TooLong);
        }
        let (served, path) = match (self.target(parent).await?, &self.tree) {
            (Target::Entry(node), _) => {
                let path = node.child(name);
                (node.served, path)
            }
            (Target::Top, Tree::All(all, _)) => {
                let absent = Entry { node: None, entry_ttl: ABSENT_FOR, attr_ttl: Duration::ZERO };
                let Ok(name) = std::str::from_utf8(name) else { return Ok(absent) };
                let Some(served) = all.get(name, &self.state).await? else { return Ok(absent) };
                (served, Vec::new())
            }
            (Target::Top, Tree::One(_)) => return Err(FsError::Stale),
        };
        let ttl = served.view.ttl;
        let snapshot = served.repository.snapshot();
        let Some(located) = snapshot.lookup(&path).await? else {
            return Ok(Entry { node: None, entry_ttl: ttl.absent, attr_ttl: Duration::ZERO });
        };
        let key = served.key(&path, &located).await?;
        let id = served.remember(&self.state, key, &path, &located.catalog)?;
        let attr = served.view.attr(id, &located.dirent);
        Ok(Entry { node: Some((NodeId(id), attr)), entry_ttl: ttl.found, attr_ttl: ttl.found })
    }

    async fn getattr(&self, id: u64) -> Result<(Attr, Duration), FsError> {
        match (self.target(id).await?, &self.tree) {
            (Target::Entry(node), _) => {
                let located = node.located().await?;
                Ok((node.attr(&located), node.served.view.ttl.found))
            }
            (Target::Top, Tree::All(_, owner)) => Ok((self.top_attr(*owner), ABSENT_FOR)),
            (Target::Top, Tree::One(_)) => Err(FsError::Stale),
        }
    }

    async fn readlink(&self, id: u64) -> Result<Vec<u8>, FsError> {
        let node = self.node(id).await?;
        match &node.located().await?.dirent.kind {
            Kind::Symlink(raw) => Ok(node.served.view.target(raw).into_owned()),
            Kind::Regular(_)
            | Kind::Directory { .. }
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice(_)
            | Kind::BlockDevice(_) => Err(FsError::WrongType),
        }
    }

    /// The content of a file that is open or being opened.
    async fn file(&self, id: u64) -> Result<Arc<OpenFile>, FsError> {
        if let Some(file) = self.files.get(id) {
            return Ok(file);
        }
        let node = self.node(id).await?;
        let located = node.located().await?;
        let file = OpenFile::load(&node, &located).await?;
        Ok(self.files.add(id, file))
    }

    async fn open(self: &Arc<Self>, id: u64, flags: i32) -> Result<Opened, FsError> {
        let flags = OFlag::from_bits_truncate(flags);
        if flags & OFlag::O_ACCMODE != OFlag::O_RDONLY || flags.contains(OFlag::O_TRUNC) {
            return Err(FsError::ReadOnly);
        }
        let file = self.file(id).await?;
        if file.direct() {
            return Ok(Opened { handle: UNCOUNTED, mode: OpenMode::Direct });
        }
        if let Some(mode) = self.state.join_open(id).map_err(FsError::State)? {
            return Ok(opened(mode));
        }
        let mode = self.wanted_mode(&file).await;
        let got = match self.state.open_file(id, mode) {
            Ok(got) => got,
            Err(error) => {
                self.give_back(mode);
                let known = error.kind() != io::ErrorKind::NotFound;
                return Err(if known { FsError::State(error) } else { FsError::Stale });
            }
        };
        if got != mode {
            // Somebody else opened it meanwhile, with an id of their own.
            self.give_back(mode);
        }
        Ok(opened(got))
    }

    /// The mode for a file that is not open yet.
    async fn wanted_mode(self: &Arc<Self>, file: &Arc<OpenFile>) -> IoMode {
        let now = self.started.elapsed().as_millis() as u64;
        let OpenFile::Whole { object, .. } = &**file else { return IoMode::Cached };
        if object.size() < PASSTHROUGH_FROM
            || object.file().is_none()
            || now < self.passthrough_from.load(Ordering::Relaxed)
        {
            return IoMode::Cached;
        }
        let (backings, object) = (Arc::clone(&self.backings), object.clone());
        let registered = self.requests.runtime().spawn_blocking(move || match object.file() {
            Some(file) => backings.open(file.as_fd()),
            None => Err(io::ErrorKind::Unsupported.into()),
        });
        match registered.await {
            Ok(Ok(id)) => IoMode::Passthrough(id),
            Ok(Err(error)) => {
                tracing::debug!(%error, "no passthrough");
                let until = now + PASSTHROUGH_PAUSE.as_millis() as u64;
                self.passthrough_from.store(until, Ordering::Relaxed);
                IoMode::Cached
            }
            Err(_) => IoMode::Cached,
        }
    }

    /// Closes a backing id that nobody uses.
    fn give_back(&self, mode: IoMode) {
        if let IoMode::Passthrough(id) = mode {
            let backings = Arc::clone(&self.backings);
            self.requests.runtime().spawn_blocking(move || backings.close(id));
        }
    }

    fn ended(&self, what: &str, result: io::Result<Option<IoMode>>) {
        match result {
            Ok(Some(mode)) => self.give_back(mode),
            Ok(None) => {}
            Err(error) => self.requests.note(what, &FsError::State(error).to_string()),
        }
    }
}

fn opened(mode: IoMode) -> Opened {
    let mode = match mode {
        IoMode::Cached => OpenMode::Cached,
        IoMode::Passthrough(id) => OpenMode::Passthrough(id),
    };
    Opened { handle: COUNTED, mode }
}

impl FileSystem for CvmfsFs {
    fn lookup(&self, _caller: Caller, parent: NodeId, name: &OsStr, reply: Reply<Entry>) {
        let (shared, name) = (Arc::clone(&self.shared), name.as_bytes().to_vec());
        let work = async move { shared.lookup(parent.0, &name).await };
        self.shared.requests.answer(Operation::Lookup, reply, work);
    }

    fn forget(&self, node: NodeId, count: u64) {
        let shared = &self.shared;
        let result = shared.state.forget(node.0, count);
        if matches!(result, Ok(Some(_))) {
            shared.files.remove(node.0);
        }
        shared.ended("forget", result);
    }

    fn getattr(&self, _caller: Caller, node: NodeId, reply: Reply<(Attr, Duration)>) {
        let shared = Arc::clone(&self.shared);
        let work = async move { shared.getattr(node.0).await };
        self.shared.requests.answer(Operation::Getattr, reply, work);
    }

    fn readlink(&self, _caller: Caller, node: NodeId, reply: Reply<Vec<u8>>) {
        let shared = Arc::clone(&self.shared);
        let work = async move { shared.readlink(node.0).await };
        self.shared.requests.answer(Operation::Readlink, reply, work);
    }

    fn open(&self, _caller: Caller, node: NodeId, flags: i32, reply: Reply<Opened>) {
        let shared = Arc::clone(&self.shared);
        let work = async move { shared.open(node.0, flags).await };
        self.shared.requests.answer(Operation::Open, reply, work);
    }

    fn read(
        &self,
        _caller: Caller,
        node: NodeId,
        _handle: u64,
        offset: u64,
        size: u32,
        reply: Reply<Vec<u8>>,
    ) {
        let begun = Instant::now();
        if let Some(file) = self.shared.files.get(node.0)
            && let Some(result) = file.try_read(offset, size)
        {
            self.shared.requests.finish(Operation::Read, begun, reply, result);
            return;
        }
        let shared = Arc::clone(&self.shared);
        let work = async move { shared.file(node.0).await?.read(offset, size).await };
        self.shared.requests.answer(Operation::Read, reply, work);
    }

    fn release(&self, node: NodeId, handle: u64) {
        let shared = &self.shared;
        let result = if handle == COUNTED { shared.state.close_file(node.0) } else { Ok(None) };
        if handle == UNCOUNTED || matches!(result, Ok(Some(_))) {
            // Another opener that is not counted finds the content again.
            shared.files.remove(node.0);
        }
        shared.ended("release", result);
    }

    fn opendir(&self, _caller: Caller, node: NodeId, reply: Reply<Opened>) {
        let shared = Arc::clone(&self.shared);
        let work = async move { directories::open(&shared, node.0).await };
        self.shared.requests.answer(Operation::Opendir, reply, work);
    }

    fn readdir(
        &self,
        _caller: Caller,
        node: NodeId,
        handle: u64,
        offset: u64,
        plus: bool,
        buffer: DirectoryBuffer,
        reply: Reply<DirectoryBuffer>,
    ) {
        let shared = Arc::clone(&self.shared);
        let from = directories::From { node: node.0, handle, offset, plus };
        let work = async move { directories::read(&shared, from, buffer).await };
        self.shared.requests.answer(Operation::Readdir, reply, work);
    }

    fn releasedir(&self, node: NodeId, handle: u64) {
        let closed = self.shared.state.close_directory(node.0, handle);
        self.shared.ended("releasedir", closed.map(|()| None));
    }

    fn getxattr(&self, _caller: Caller, node: NodeId, name: &OsStr, reply: Reply<Vec<u8>>) {
        let (shared, name) = (Arc::clone(&self.shared), name.as_bytes().to_vec());
        let work = async move { xattrs::get(&shared, node.0, &name).await };
        self.shared.requests.answer(Operation::Xattr, reply, work);
    }

    fn listxattr(&self, _caller: Caller, node: NodeId, reply: Reply<Vec<u8>>) {
        let shared = Arc::clone(&self.shared);
        let work = async move { xattrs::list(&shared, node.0).await };
        self.shared.requests.answer(Operation::Xattr, reply, work);
    }

    fn statfs(&self, _caller: Caller, _node: NodeId, reply: Reply<Statfs>) {
        let begun = Instant::now();
        let result = Ok(statistics::statfs(&self.shared));
        self.shared.requests.finish(Operation::Statfs, begun, reply, result);
    }
}
