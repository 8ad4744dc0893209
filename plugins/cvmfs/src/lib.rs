//! CernVM-FS for volplane: a native read-only client, the file system over it, and a repository writer.
//!
//! Everything a repository or a server sends is hostile until verified, and a verified catalog is still not sane:
//! signed names, sizes and counts are bounded where they are read. The signature chain (master key, whitelist,
//! certificate, manifest, catalog, object) has no short cut.
//!
//! - [`publish`]: the repository writer and a server for what it writes.
//! - [`client`]: configuration, trust, objects, catalogs. No FUSE in it.
//! - [`fs`]: the file system over it.
//! - [`backend`]: the storage plugin as the registry sees it; [`options`] is what users type, [`identity`] which volumes
//!   share a mount.
//! - [`fuzz`]: every parser of outside bytes behind one kind of function.
//! - [`payload`]: what the daemon, which reads the configuration, hands to a worker, which may not.
//! - [`worker`]: what a worker process does with a payload.

#![forbid(unsafe_code)]

pub mod backend;
pub mod client;
pub mod fs;
pub mod fuzz;
pub mod identity;
pub mod options;
pub mod payload;
pub mod publish;
pub mod worker;
