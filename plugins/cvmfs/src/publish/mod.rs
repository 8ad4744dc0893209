//! Writes CernVM-FS repositories: from a directory tree to signed, content-addressed objects that any client reads.
//!
//! A repository is a directory of plain files behind any web server. [`Publisher`] is the only writer of it: a publication
//! scans a tree, stores what is not stored yet (compressing and hashing on all cores), writes the catalogs that
//! changed, and replaces the manifest last, after everything it refers to is on the disk. A reader, or a writer that
//! died half-way, never finds a manifest whose objects are missing.
//!
//! The reference server tools keep a writable overlay and publish its difference. Here a publication is a function of the tree
//! it is given: the same tree gives the same repository, a tree restored from a backup or made by a build is as good
//! as one that was edited in place, and nothing needs to be mounted. The price is that the whole tree is looked at each
//! time; [`Detection::Times`] makes that a matter of `lstat`.
//!
//! ```text
//! scan -> Tree -> nesting -> content (threads) -> catalogs, leaves first -> history, certificate, metainfo -> manifest
//! ```
//!
//! [`serve`] offers such directories over HTTP.

mod catalogs;
mod certificate;
mod chunker;
mod content;
mod counters;
mod database;
mod error;
#[cfg(any(test, feature = "forge"))]
pub mod forge;
mod history;
mod image;
mod keys;
mod nesting;
mod options;
mod previous;
mod publisher;
mod scan;
pub mod serve;
mod signed;
mod store;
mod tags;
#[cfg(test)]
mod tests;
mod whitelist;

pub use error::PublishError;
pub use history::Tag;
pub use keys::SigningKeys;
pub use options::{
    Chunking, CreateOptions, Detection, Nesting, NewTag, Ownership, Phase, Progress, PublishOptions,
};
pub use publisher::{Publication, Publisher};
