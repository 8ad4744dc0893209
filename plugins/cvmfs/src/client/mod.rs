//! The client proper: from a site's configuration and a server's bytes to verified directory entries and contents.
//!
//! Nothing here knows FUSE or the daemon, so all of it is tested without a mount.

pub mod blacklist;
pub mod cache;
pub mod catalog;
pub mod certificate;
pub mod config;
pub mod fetch;
pub mod fqrn;
pub mod hash;
pub mod history;
pub mod letter;
pub mod manifest;
pub mod repository;
mod selection;
pub mod snapshot;
pub mod symlink;
pub mod trust;
pub mod update;
pub mod upstream;
pub mod whitelist;
pub mod xattr;
