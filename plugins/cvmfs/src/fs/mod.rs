//! The file system over the client: what the kernel asks, answered from verified catalogs and objects.
//!
//! - [`state`]: what a worker leaves to the next one: the nodes that the kernel knows.
//! - `identity`, `place`: what a node id is made of, and how a catalog is named in the state.
//! - `served`: an open repository, and how a node finds its entry in it; `view`: owners, sizes, targets, times.
//! - `all`: the tree of all repositories.
//! - `filesystem`: the operations; `requests` answers them at once or in a task; `files`, `directories`, `xattrs` and
//!   `statistics` hold what they show.
//! - `updates`: new revisions, and what the kernel must forget then.

mod all;
mod directories;
mod error;
mod files;
mod filesystem;
mod identity;
mod place;
mod requests;
mod served;
pub mod state;
mod statistics;
mod updates;
mod view;
mod xattrs;

pub(crate) use all::{All, Opener};
pub(crate) use filesystem::{CvmfsFs, Shared, Tree};
pub(crate) use requests::Requests;
pub(crate) use served::{About, Served};
pub(crate) use updates::{Updates, keep_revision, kept_repositories, kept_revision};
pub(crate) use view::View;
