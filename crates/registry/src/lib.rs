//! Who uses which mount: the one implementation of [`volume::VolumeService`].
//!
//! A mount has a *set* of references, never a count, because engines repeat, reorder and lose what they say about
//! them. A release is a claim, not a proof: before a mount is taken down, all mount namespaces are asked who sees it
//! (`kernel`). What must survive the daemon is in a journal (`journal`) that is written before a side effect and
//! settled after it; at start it is compared with the mount table and with what the backends kept alive (`reconcile`).
//!
//! The way of a request: a frontend's call enters the *lane* of its volume (order of arrival), becomes a task that the
//! caller's hanging up does not kill half-way (`delivery`), takes the guard of its mount's key, and walks the state
//! table (`state`) until the mount is what was asked for (`acquire`, `release`). Behind that, a sweeper takes away
//! what nobody uses any more and a refresher looks at every mount (`sweep`).

#![forbid(unsafe_code)]

mod acquire;
mod bind;
mod claim;
mod config;
mod core;
mod define;
mod delivery;
mod guard;
mod journal;
mod kernel;
mod mounting;
mod nominal;
mod publish;
mod reconcile;
mod registry;
mod release;
mod schema;
mod state;
mod status;
mod sweep;
mod table;
mod volume_on_node;
mod warm;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod model;
#[cfg(test)]
mod scenarios;

pub use config::RegistryConfig;
pub use registry::Registry;
