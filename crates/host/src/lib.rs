//! The edge to the kernel and to processes: what other crates may ask of the host without touching it themselves.
//!
//! Two rules run through all files. A mount may be dead, so nothing here calls `stat` on a path that could lead into
//! one: who sees what is read out of `/proc/*/mountinfo`, which is text that the kernel makes without asking the file
//! system. And a system call may block for ever all the same, so those that can run on threads of their own
//! ([`blocking::run`]) under a deadline, and hold no lock meanwhile.

pub mod atomic;
pub mod blocking;
pub mod boot;
pub mod command;
pub mod directory;
pub mod escape;
pub mod inherited;
pub mod mount;
pub mod mountinfo;
pub mod namespaces;

pub use mountinfo::{DeviceId, MountEntry, MountTable};
