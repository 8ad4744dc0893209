//! What the system tests share: the daemon under test, real engines, servers, and how to wait.
//!
//! Everything that is started here is stopped by pid when its value is dropped, also when a test panics, and lives
//! in directories of its own.

pub mod chart;
pub mod checks;
pub mod csi_node;
pub mod daemon;
pub mod document;
pub mod engine;
pub mod flexvolume;
pub mod image;
pub mod kubelet;
pub mod kubernetes;
pub mod plugin;
pub mod podman;
pub mod process;
pub mod reference;
pub mod reference_driver;
pub mod relay;
pub mod sanity;
pub mod site;
pub mod wait;
