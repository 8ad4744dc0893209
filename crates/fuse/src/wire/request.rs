//! Requests: from the bytes of one read(2) to typed operations.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{IN_HEADER_BYTES, opcode};
use crate::{Caller, NodeId};

/// struct fuse_in_header, as far as it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Operation code.
    pub(crate) opcode: u32,
    /// Id that the answer must echo, with its top bit (FUSE_UNIQUE_RESEND) if that is set.
    pub(crate) unique: u64,
    /// The inode the operation is about.
    pub(crate) node: NodeId,
    /// Who asks.
    pub(crate) caller: Caller,
}

/// What the kernel wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    Lookup {
        name: &'a OsStr,
    },
    Forget {
        count: u64,
    },
    BatchForget(Forgets<'a>),
    Getattr,
    Readlink,
    Open {
        flags: i32,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Release {
        handle: u64,
    },
    Opendir,
    Readdir {
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    },
    Releasedir {
        handle: u64,
    },
    Getxattr {
        size: u32,
        name: &'a OsStr,
    },
    Listxattr {
        size: u32,
    },
    Statfs,
    Interrupt {
        target: u64,
    },
    Destroy,
    /// Something that would change the file system.
    Write,
    /// Expects no answer and needs none.
    Silent,
    /// Not offered here; the kernel stops asking or falls back by itself.
    Unsupported,
}

/// The pairs of a BATCH_FORGET.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forgets<'a> {
    pairs: &'a [u8],
}

impl Iterator for Forgets<'_> {
    type Item = (NodeId, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let mut fields = Fields(self.pairs);
        let (node, count) = (fields.u64().ok()?, fields.u64().ok()?);
        self.pairs = fields.0;
        Some((NodeId(node), count))
    }
}

/// Bytes that are no FUSE request. The kernel never sends such; if it does, the request is refused and the session goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    /// Shorter than a header, or not as long as the header says: whom to answer is not known.
    #[error("{got} bytes do not hold the request of {said} bytes that the header announces")]
    Length { got: usize, said: usize },
    /// The header is sound, the rest is too short.
    #[error("the arguments of operation {opcode} end early")]
    Arguments { opcode: u32, unique: u64 },
}

/// Takes the header and the arguments apart.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Header, Operation<'_>), ParseError> {
    let short = |said| ParseError::Length { got: bytes.len(), said };
    let mut fields = Fields(bytes);
    let mut head = || -> Result<(usize, Header, usize), End> {
        let said = fields.u32()? as usize;
        let opcode = fields.u32()?;
        let unique = fields.u64()?;
        let node = NodeId(fields.u64()?);
        let caller = Caller { uid: fields.u32()?, gid: fields.u32()?, pid: fields.u32()? };
        let extension = usize::from(fields.u16()?) * 8; // total_extlen is in units of 8 bytes
        let _padding = fields.u16()?;
        Ok((said, Header { opcode, unique, node, caller }, extension))
    };
    let (said, header, extension) = head().map_err(|End| short(IN_HEADER_BYTES))?;
    if said != bytes.len() {
        return Err(short(said));
    }
    let ends_early = ParseError::Arguments { opcode: header.opcode, unique: header.unique };
    let arguments = fields.0;
    let arguments = arguments.len().checked_sub(extension).map(|end| &arguments[..end]).ok_or(ends_early)?;
    let operation = operation(header.opcode, Fields(arguments)).map_err(|End| ends_early)?;
    Ok((header, operation))
}

fn operation(code: u32, mut f: Fields<'_>) -> Result<Operation<'_>, End> {
    Ok(match code {
        opcode::LOOKUP => Operation::Lookup { name: f.name()? },
        opcode::FORGET => Operation::Forget { count: f.u64()? },
        opcode::BATCH_FORGET => {
            let count = f.u32()? as usize;
            f.skip(4)?;
            Operation::BatchForget(Forgets { pairs: f.bytes(count.checked_mul(16).ok_or(End)?)? })
        }
        opcode::GETATTR => Operation::Getattr,
        opcode::READLINK => Operation::Readlink,
        opcode::OPEN => Operation::Open { flags: f.i32()? },
        opcode::OPENDIR => Operation::Opendir,
        opcode::READ => Operation::Read { handle: f.u64()?, offset: f.u64()?, size: f.u32()? },
        opcode::READDIR | opcode::READDIRPLUS => Operation::Readdir {
            handle: f.u64()?,
            offset: f.u64()?,
            size: f.u32()?,
            plus: code == opcode::READDIRPLUS,
        },
        opcode::RELEASE => Operation::Release { handle: f.u64()? },
        opcode::RELEASEDIR => Operation::Releasedir { handle: f.u64()? },
        opcode::GETXATTR => {
            let size = f.u32()?;
            f.skip(4)?;
            Operation::Getxattr { size, name: f.name()? }
        }
        opcode::LISTXATTR => Operation::Listxattr { size: f.u32()? },
        opcode::STATFS => Operation::Statfs,
        opcode::INTERRUPT => Operation::Interrupt { target: f.u64()? },
        opcode::DESTROY => Operation::Destroy,
        opcode::NOTIFY_REPLY => Operation::Silent,
        opcode::SETATTR
        | opcode::SYMLINK
        | opcode::MKNOD
        | opcode::MKDIR
        | opcode::UNLINK
        | opcode::RMDIR
        | opcode::RENAME
        | opcode::LINK
        | opcode::WRITE
        | opcode::SETXATTR
        | opcode::REMOVEXATTR
        | opcode::CREATE
        | opcode::FALLOCATE
        | opcode::RENAME2
        | opcode::COPY_FILE_RANGE
        | opcode::COPY_FILE_RANGE_64
        | opcode::TMPFILE => Operation::Write,
        // FLUSH, ACCESS, FSYNC, FSYNCDIR, LSEEK, STATX, IOCTL, POLL, BMAP, locks, SYNCFS, and whatever comes later.
        _ => Operation::Unsupported,
    })
}

/// The bytes ended before the field.
#[derive(Debug)]
struct End;

/// Fields that have not been read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], End> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(End)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], End> {
        let (head, rest) = self.0.split_first_chunk().ok_or(End)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, End> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Result<u32, End> {
        self.array().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Result<i32, End> {
        self.array().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, End> {
        self.array().map(u64::from_ne_bytes)
    }

    fn skip(&mut self, count: usize) -> Result<(), End> {
        self.bytes(count).map(|_| ())
    }

    /// A name that ends with a NUL byte.
    fn name(&mut self) -> Result<&'a OsStr, End> {
        let length = self.0.iter().position(|&byte| byte == 0).ok_or(End)?;
        let name = self.bytes(length)?;
        self.skip(1)?;
        Ok(OsStr::from_bytes(name))
    }
}

#[cfg(test)]
mod tests;
