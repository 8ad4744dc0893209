//! The file system over the client: what the kernel asks, answered from verified catalogs and objects.
//!
//! - [`state`]: what a worker leaves to the next one.

pub mod state;
