//! What one CSI driver is told by the daemon's configuration.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use volume::{Driver, Segments};

/// Settings of one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsiConfig {
    /// Whose volumes.
    pub driver: Driver,
    /// The name that Kubernetes knows the driver by.
    pub name: DriverName,
    /// This node, as NodeGetInfo says it and ControllerPublishVolume hears it.
    pub node_id: NodeId,
    /// Which services are offered.
    pub roles: Roles,
    /// Kubelet's root directory as this process sees it; nothing outside of it is ever mounted or removed.
    pub kubelet_dir: PathBuf,
    /// Where this node is, `key -> value`, keys in full (`topology.cvmfs.csi.cern.ch/site`); empty: nowhere special.
    pub topology: Segments,
    /// How many volumes the scheduler may give this node; 0: as many as it likes.
    pub max_volumes: u32,
    /// Version of the program, for GetPluginInfo.
    pub version: String,
}

impl CsiConfig {
    /// A driver with its usual name, all roles, and nothing else set.
    pub fn new(driver: Driver, node_id: NodeId) -> Self {
        CsiConfig {
            driver,
            name: DriverName::usual(driver),
            node_id,
            roles: Roles::ALL,
            kubelet_dir: "/var/lib/kubelet".into(),
            topology: Segments::new(),
            max_volumes: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A driver's name: at most 63 bytes of letters, digits, `-` and `.`, beginning and ending with a letter or digit (CSI,
/// GetPluginInfoResponse).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverName(String);

/// A text is no driver name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no CSI driver name: at most 63 letters, digits, `-` and `.`, beginning and ending with a letter or \
     digit, for example cvmfs.csi.cern.ch"
)]
pub struct DriverNameError(pub String);

impl DriverName {
    /// The name that a driver has unless it is configured.
    pub fn usual(driver: Driver) -> Self {
        DriverName(format!("{driver}.csi.cern.ch"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DriverName {
    type Err = DriverNameError;

    fn from_str(text: &str) -> Result<Self, DriverNameError> {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let inner = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.');
        let good = inner && text.len() <= 63 && edge(text.chars().next()) && edge(text.chars().last());
        if good { Ok(DriverName(text.to_owned())) } else { Err(DriverNameError(text.to_owned())) }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a node calls itself: 1 to 256 bytes without control characters (CSI, NodeGetInfoResponse).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(String);

/// A text is no node id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no node id: it has 1 to 256 bytes and no control characters")]
pub struct NodeIdError(pub String);

impl NodeId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let good = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
        if good { Ok(NodeId(text.to_owned())) } else { Err(NodeIdError(text.to_owned())) }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of the interface that a process can play.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Says who it is; every process does.
    Identity,
    /// Mounts on this node.
    Node,
    /// Makes volumes for the whole cluster: Controller, GroupController and SnapshotMetadata.
    Controller,
}

/// A text names no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; known: identity, node, controller")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        match text {
            "identity" => Ok(Role::Identity),
            "node" => Ok(Role::Node),
            "controller" => Ok(Role::Controller),
            _ => Err(UnknownRole(text.to_owned())),
        }
    }
}

/// Which services a process offers. Identity is always there: the specification asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Node.
    pub node: bool,
    /// Controller, GroupController, SnapshotMetadata.
    pub controller: bool,
}

impl Roles {
    /// Everything in one process.
    pub const ALL: Roles = Roles { node: true, controller: true };
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Roles { node: false, controller: false }, |known, role| match role {
            Role::Identity => known,
            Role::Node => Roles { node: true, ..known },
            Role::Controller => Roles { controller: true, ..known },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_the_specification_allows() {
        for good in ["cvmfs.csi.cern.ch", "a", "A-1.b"] {
            assert_eq!(good.parse::<DriverName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a.", "a/b", "a b", "\u{e9}", &"a".repeat(64)] {
            assert!(bad.parse::<DriverName>().is_err(), "{bad:?}");
        }
        assert_eq!(DriverName::usual(Driver::Rbd).as_str(), "rbd.csi.cern.ch");
    }

    #[test]
    fn a_node_has_an_id() {
        assert!("".parse::<NodeId>().is_err() && "a\n".parse::<NodeId>().is_err());
        assert!("n".repeat(257).parse::<NodeId>().is_err());
        assert_eq!("node-1.example.org".parse::<NodeId>().unwrap().to_string(), "node-1.example.org");
    }

    #[test]
    fn identity_is_always_there() {
        let roles: Roles = ["identity", "node"].iter().map(|text| text.parse::<Role>().unwrap()).collect();
        assert_eq!(roles, Roles { node: true, controller: false });
        assert!("Node".parse::<Role>().is_err());
    }
}
