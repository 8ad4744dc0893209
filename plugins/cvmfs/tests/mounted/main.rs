//! Real repositories, mounted on the real kernel through the real worker code.
//!
//! Needs root (mount(2)) and /dev/fuse; without them the tests are skipped and say so.

#![allow(clippy::unwrap_used)] // an integration test: all of it is test code

mod adoption;
mod all;
mod behaviour;
mod harness;
mod hostile;
mod listings;
mod measure;
mod published;
mod updates;

/// Whether mounts can be made here.
fn can_mount() -> bool {
    let can = nix::unistd::geteuid().is_root() && std::path::Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    can
}
