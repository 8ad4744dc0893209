//! A site's configuration, from files to types.
//!
//! A file of `/etc/cvmfs` is shell text. Feeding it to a shell as root is what the C++ client does; here a small
//! evaluator of the subset that real files use stands in its place. The result is [`Parameters`]: every value with the file
//! and line it came from. [`ClientConfig`] is the same as types, made in one place, so that nothing below looks
//! at text again.

mod builtin;
pub mod chain;
pub mod client;
pub mod ids;
pub mod parameters;
pub mod proxies;
pub mod servers;
pub mod setup;
pub mod shell;
pub mod tree;
pub mod values;

pub use chain::ConfigError;
pub use client::{ClientConfig, External, Ownership, Transfer};
pub use ids::IdMap;
pub use parameters::{Origin, ParameterError, Parameters, Setting};
pub use proxies::{Proxy, ProxyGroups};
pub use servers::{Scheme, ServerList, ServerUrl};
pub use setup::read_setup;
pub use tree::{ConfigTree, SYSTEM_DIR};
pub use values::{IpFamily, Quota, XattrVisibility};
