//! The bytes of the FUSE device, as in Linux include/uapi/linux/fuse.h (ABI 7.x, native byte order).
//!
//! Requests are parsed field by field with bounds checks ([`request`]), answers are built into small byte arrays
//! ([`answer`]); no struct is transmuted, so layout, padding and alignment are plain to see and nothing here is unsafe.

pub(crate) mod answer;
pub(crate) mod request;

/// Largest payload of one READ, and what the kernel is told as its largest WRITE (it derives its pages per request from
/// that). Bytes.
pub(crate) const MAX_TRANSFER_BYTES: u32 = 1 << 20;

/// Size of a buffer to read requests into. The kernel refuses reads smaller than header + largest WRITE, although no
/// WRITE ever comes on a read-only mount; the pages that are never filled are never resident. Bytes.
pub(crate) const REQUEST_BUFFER_BYTES: usize = MAX_TRANSFER_BYTES as usize + 4096;

/// sizeof(struct fuse_in_header)
pub(crate) const IN_HEADER_BYTES: usize = 40;
/// sizeof(struct fuse_out_header)
pub(crate) const OUT_HEADER_BYTES: usize = 16;

/// Operation codes (enum fuse_opcode). Those that write are named only by being refused.
pub(crate) mod opcode {
    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const FORGET: u32 = 2;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const READLINK: u32 = 5;
    pub(crate) const SYMLINK: u32 = 6;
    pub(crate) const MKNOD: u32 = 8;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const LINK: u32 = 13;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const SETXATTR: u32 = 21;
    pub(crate) const GETXATTR: u32 = 22;
    pub(crate) const LISTXATTR: u32 = 23;
    pub(crate) const REMOVEXATTR: u32 = 24;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const INTERRUPT: u32 = 36;
    pub(crate) const DESTROY: u32 = 38;
    pub(crate) const NOTIFY_REPLY: u32 = 41;
    pub(crate) const BATCH_FORGET: u32 = 42;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const READDIRPLUS: u32 = 44;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const COPY_FILE_RANGE: u32 = 47;
    pub(crate) const TMPFILE: u32 = 51;
    pub(crate) const COPY_FILE_RANGE_64: u32 = 53;
}

/// Flags of an answer to OPEN and OPENDIR (FOPEN_*).
pub(crate) mod fopen {
    pub(crate) const DIRECT_IO: u32 = 1 << 0;
    pub(crate) const KEEP_CACHE: u32 = 1 << 1;
    pub(crate) const CACHE_DIR: u32 = 1 << 3;
    pub(crate) const NOFLUSH: u32 = 1 << 5;
    pub(crate) const PASSTHROUGH: u32 = 1 << 7;
}

/// Notification codes (enum fuse_notify_code), sent in the error field of a header whose unique is 0.
pub(crate) mod notify {
    pub(crate) const INVAL_INODE: i32 = 2;
    pub(crate) const INVAL_ENTRY: i32 = 3;
    pub(crate) const RESEND: i32 = 7;
}
