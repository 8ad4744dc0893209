//! What this crate's publisher writes, mounted on the real kernel through the real worker code.
//!
//! Unlike `mounted`, nothing in this process looks into a mount: a reader of its own does, so that a server that hangs or dies on an
//! insane repository fails a test instead of wedging it. Needs root (mount(2)) and /dev/fuse; without them the tests
//! are skipped and say so.

#![allow(clippy::unwrap_used)] // an integration test: its helper functions are tests as well

#[path = "../mounted/harness.rs"]
mod harness;

mod cycle;
mod forged;
mod random;
mod reader;

/// Whether mounts can be made here.
fn can_mount() -> bool {
    let can = nix::unistd::geteuid().is_root() && std::path::Path::new("/dev/fuse").exists();
    if !can {
        eprintln!("skipped: needs root and /dev/fuse");
    }
    can
}
