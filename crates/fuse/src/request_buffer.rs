//! The memory that a session's thread reads requests into.

use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::wire::REQUEST_BUFFER_BYTES;

/// The smallest page of all architectures.
const PAGE_BYTES: usize = 4096;

/// Enough for the longest request that a read-only mount sends: headers and two names.
const RESIDENT_PAGES: usize = 4;

/// A mapping of its own and not a part of the heap: the kernel wants room for more than a megabyte and fills a page of it,
/// and memory that the allocator hands out a second time would be resident in full.
#[derive(Debug)]
pub(crate) struct RequestBuffer {
    start: NonNull<u8>,
}

// SAFETY: the mapping belongs to this value alone and is not tied to the thread that made it.
unsafe impl Send for RequestBuffer {}

impl RequestBuffer {
    pub(crate) fn new() -> io::Result<Self> {
        let length = const { NonZeroUsize::new(REQUEST_BUFFER_BYTES).expect("is more than a megabyte") };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping where the kernel chooses touches no other memory.
        let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }?;
        let mut buffer = Self { start: start.cast() };
        buffer.make_resident();
        Ok(buffer)
    }

    /// Makes the part that requests of a read-only file system fill resident and writable. A process that is killed
    /// while the kernel copies a request into a page that is not there yet cannot fault it in any more: the kernel
    /// then fails that request with EIO instead of keeping it for the next server (fuse_dev_do_read in fs/fuse/dev.c).
    fn make_resident(&mut self) {
        for page in self.chunks_mut(PAGE_BYTES).take(RESIDENT_PAGES) {
            // Black-boxed: writing zeros into zeroed memory must not be left out.
            page[0] = std::hint::black_box(0);
        }
        std::hint::black_box(&self[0]);
    }
}

impl Deref for RequestBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, zeroed at first, has this length, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), REQUEST_BUFFER_BYTES) }
    }
}

impl DerefMut for RequestBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; it is writable, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), REQUEST_BUFFER_BYTES) }
    }
}

impl Drop for RequestBuffer {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped, to which no reference is left.
        let unmapped = unsafe { munmap(self.start.cast(), REQUEST_BUFFER_BYTES) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_written_to_its_end() {
        let mut buffer = RequestBuffer::new().unwrap();
        assert_eq!(buffer.len(), REQUEST_BUFFER_BYTES);
        *buffer.last_mut().unwrap() = 7;
        assert_eq!((buffer[0], buffer[REQUEST_BUFFER_BYTES - 1]), (0, 7));
    }
}
