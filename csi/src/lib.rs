//! The Container Storage Interface over [`volume::VolumeService`].
//!
//! This crate translates and nothing else: it knows how Kubernetes' kubelet and sidecars phrase their calls, when they
//! repeat them and what they make of each code, and has no idea what a mount is. One [`Server`] is one driver on one
//! socket. What shapes the code:
//!
//! - every call may come twice, also at the same time, and after a restart of kubelet for mounts that are in use;
//! - a caller that gives up (deadline, cancelled stream) drops the call's future; the registry takes back what it began;
//! - whether a failed publish is followed by an unpublish depends on its code ([`status`]);
//! - requests carry secrets, so no request is ever logged: only its method, volume id and paths are, cut short.

#![forbid(unsafe_code)]

mod authority;
mod config;
mod connections;
mod context;
mod controller;
mod deadline;
#[cfg(test)]
mod dial;
mod fields;
mod group;
mod health;
mod identity;
mod node;
mod registration;
mod request;
mod routes;
mod server;
mod snapshot_metadata;
mod statistics;
pub mod status;

use std::sync::Arc;

use volume::{Driver, VolumeService};

pub use config::{CsiConfig, DriverName, DriverNameError, NodeId, NodeIdError, Role, Roles, UnknownRole};
pub use registration::Registration;
pub use server::{Bounds, Server};
pub use statistics::CallStatistics;

/// What every gRPC service of a driver holds: the registry and the driver's settings.
#[derive(Clone)]
pub struct Service {
    /// The registry.
    pub volumes: Arc<dyn VolumeService>,
    /// Settings of this driver.
    pub config: Arc<CsiConfig>,
}

impl Service {
    /// The driver whose volumes it serves.
    pub fn driver(&self) -> Driver {
        self.config.driver
    }
}
