//! The INIT handshake: what is asked of the kernel, and what it agreed to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use fuser::{Config, Filesystem, InitFlags, KernelConfig, MountOption, Session, SessionACL};

use crate::MountOptions;
use crate::wire::MAX_TRANSFER_BYTES;

/// Requests the kernel may have in flight that nobody waits for in a system call (readahead mostly).
const MAX_BACKGROUND: u16 = 256;

/// What the kernel agreed to at INIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Negotiated {
    /// Major and minor version of the kernel's ABI.
    pub abi: (u32, u32),
    /// Open files can be read by the kernel itself (Linux 6.9, CONFIG_FUSE_PASSTHROUGH).
    pub passthrough: bool,
    /// Requests of a dead server can be resent to the next (Linux 6.9).
    pub resend: bool,
    /// Listings come with attributes.
    pub readdirplus: bool,
    /// All granted bits (FUSE_* of include/uapi/linux/fuse.h).
    pub flags: u64,
}

/// A file system that does nothing but shake hands.
#[derive(Debug)]
pub(crate) struct Handshake {
    outcome: Arc<Mutex<Option<Negotiated>>>,
}

impl Handshake {
    /// Shakes hands on a mounted device.
    pub(crate) fn over(fd: OwnedFd) -> io::Result<(OwnedFd, Negotiated)> {
        let outcome = Arc::default();
        let handshake = Self { outcome: Arc::clone(&outcome) };
        let session = Session::from_fd(handshake, fd, SessionACL::All, Config::default())?;
        let fd = session.as_fd().try_clone_to_owned()?;
        give_memory_back();
        drop(session); // closes its handle only: the mount is not its own, and `fd` keeps the connection
        Ok((fd, taken(&outcome)?))
    }

    /// Mounts through fusermount3 (as root: by itself) and shakes hands. The session unmounts when dropped.
    pub(crate) fn through_fusermount(
        options: &MountOptions,
        subtype: &str,
    ) -> io::Result<(Session<Self>, OwnedFd, Negotiated)> {
        let mut config = Config::default();
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        config.mount_options = vec![
            MountOption::FSName(options.fs_name.clone()),
            MountOption::Subtype(subtype.to_owned()),
            MountOption::RO,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::DefaultPermissions,
            MountOption::CUSTOM(format!("max_read={MAX_TRANSFER_BYTES}")),
        ];
        let outcome = Arc::default();
        let handshake = Self { outcome: Arc::clone(&outcome) };
        let session = Session::new(handshake, &options.mountpoint, &config)?;
        give_memory_back();
        let fd = session.as_fd().try_clone_to_owned()?;
        let negotiated = taken(&outcome)?;
        Ok((session, fd, negotiated))
    }
}

fn taken(outcome: &Mutex<Option<Negotiated>>) -> io::Result<Negotiated> {
    let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    outcome.ok_or_else(|| io::Error::other("the kernel sent no INIT"))
}

/// fuser takes 16 MiB for the one message it reads. Freed, glibc would keep them for the next mount, and clear and thereby
/// touch them all then.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers; may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

impl Filesystem for Handshake {
    fn init(&mut self, _request: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        let asked = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_CACHE_SYMLINKS
            // Content of an inode never changes here, so a changed size or time is no reason to drop pages.
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_ABORT_ERROR
            | InitFlags::FUSE_HAS_RESEND
            | InitFlags::FUSE_HAS_EXPIRE_ONLY
            // Lets files that are opened past the page cache be mapped shared as well.
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_PASSTHROUGH;
        let granted = offered & asked;
        let refused = |what| io::Error::other(format!("the kernel's INIT does not go with our {what}"));
        config.add_capabilities(granted).map_err(|_| refused("flags"))?;
        if granted.contains(InitFlags::FUSE_PASSTHROUGH) {
            // 1: backing files on a file system that is not stacked itself; and overlayfs may be stacked on this mount.
            config.set_max_stack_depth(1).map_err(|_| refused("stack depth"))?;
        }
        config.set_max_background(MAX_BACKGROUND).map_err(|_| refused("background"))?;
        // fuser derives the pages per request from this, so it bounds reads too.
        config.set_max_write(MAX_TRANSFER_BYTES).map_err(|_| refused("transfer size"))?;
        if let Err(most) = config.set_max_readahead(MAX_TRANSFER_BYTES) {
            config.set_max_readahead(most.max(1)).map_err(|_| refused("readahead"))?;
        }
        let version = config.kernel_abi();
        let outcome = Negotiated {
            abi: (version.0, version.1),
            passthrough: granted.contains(InitFlags::FUSE_PASSTHROUGH),
            resend: granted.contains(InitFlags::FUSE_HAS_RESEND),
            readdirplus: granted.contains(InitFlags::FUSE_DO_READDIRPLUS),
            flags: granted.bits(),
        };
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        Ok(())
    }
}
