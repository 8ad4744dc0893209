//! The tables `[csi]` and `[csi.DRIVER]`, and the flags that win over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use csi::{DriverName, NodeId, Role, Roles};
use serde::{Deserialize, Deserializer};
use volume::Driver;

use crate::config::ConfigError;

/// All CSI drivers of this process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Csi {
    /// Who this node is; not given: `NODE_NAME` of the environment, else the host's name.
    #[serde(deserialize_with = "optional")]
    pub(crate) node_id: Option<NodeId>,
    #[serde(deserialize_with = "roles")]
    pub(crate) roles: Roles,
    /// Whether drivers make themselves known to kubelet.
    pub(crate) register: bool,
    /// Where this node is; keys without `/` are below `topology.<driver name>/`.
    pub(crate) topology: BTreeMap<String, String>,
    /// Volumes that the scheduler may give this node; 0: as many as it likes.
    pub(crate) max_volumes: u32,
    pub(crate) cvmfs: CsiDriver,
    pub(crate) eos: CsiDriver,
    pub(crate) rbd: CsiDriver,
}

/// One driver; off without an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CsiDriver {
    #[serde(deserialize_with = "optional")]
    pub(crate) endpoint: Option<Endpoint>,
    /// Name in Kubernetes; not given: the usual one.
    #[serde(deserialize_with = "optional")]
    pub(crate) name: Option<DriverName>,
    /// The endpoint's path as kubelet sees it; not given: as we do.
    pub(crate) kubelet_endpoint: Option<PathBuf>,
}

/// A unix socket, written `unix:///path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(pub(crate) PathBuf);

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
        match path.map(Path::new) {
            Some(path) if path.is_absolute() => Ok(Endpoint(path.to_owned())),
            Some(_) | None => Err(format!("{text:?} is no endpoint; it has the form unix:///path/csi.sock")),
        }
    }
}

impl Default for Csi {
    fn default() -> Self {
        Csi {
            node_id: None,
            roles: Roles::ALL,
            register: true,
            topology: BTreeMap::new(),
            max_volumes: 0,
            cvmfs: CsiDriver::default(),
            eos: CsiDriver::default(),
            rbd: CsiDriver::default(),
        }
    }
}

impl Csi {
    /// The table of a driver.
    pub(crate) fn driver(&self, driver: Driver) -> &CsiDriver {
        match driver {
            Driver::Cvmfs => &self.cvmfs,
            Driver::Eos => &self.eos,
            Driver::Rbd => &self.rbd,
        }
    }

    fn driver_mut(&mut self, driver: Driver) -> &mut CsiDriver {
        match driver {
            Driver::Cvmfs => &mut self.cvmfs,
            Driver::Eos => &mut self.eos,
            Driver::Rbd => &mut self.rbd,
        }
    }

    /// Drivers with an endpoint.
    pub(crate) fn switched_on(&self) -> impl Iterator<Item = (Driver, &Endpoint)> {
        Driver::ALL.into_iter().filter_map(|driver| Some((driver, self.driver(driver).endpoint.as_ref()?)))
    }

    /// What the types cannot say.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let refuse = |detail: String| Err(ConfigError::Csi(detail));
        for driver in Driver::ALL {
            let settings = self.driver(driver);
            if let Some(path) = settings.kubelet_endpoint.as_ref().filter(|path| !path.is_absolute()) {
                let (path, word) = (path.display(), "which is not an absolute path");
                return refuse(format!("csi.{driver}.kubelet_endpoint is {path}, {word}"));
            }
            match driver {
                Driver::Cvmfs => {}
                Driver::Eos | Driver::Rbd if settings.endpoint.is_none() => {}
                Driver::Eos | Driver::Rbd => {
                    let what = format!("this build has no backend for {driver}");
                    return refuse(format!("csi.{driver}.endpoint: {what}; take the endpoint out"));
                }
            }
        }
        for (key, value) in &self.topology {
            let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let good_value = (1..=63).contains(&value.len()) && value.chars().all(word);
            if !good_value || key.is_empty() || !key.chars().all(|c| word(c) || c == '/') {
                return refuse(format!(
                    "csi.topology: {key} = {value:?} is no label of Kubernetes (letters, digits, `-`, `_`, `.`; \
                     at most 63 in the value)"
                ));
            }
        }
        Ok(())
    }
}

/// Flags of `serve` about CSI; each wins over the configuration file.
#[derive(Debug, clap::Args)]
pub(crate) struct CsiFlags {
    /// Serve a CSI driver on a socket, as cvmfs=unix:///path/csi.sock; may be repeated
    #[arg(long, value_name = "DRIVER=ENDPOINT", value_parser = driver_endpoint)]
    pub(crate) csi_endpoint: Vec<(Driver, Endpoint)>,
    /// Services of the CSI drivers: identity, node, controller [default: all]
    #[arg(long, value_name = "ROLES", value_delimiter = ',', value_parser = Role::from_str)]
    pub(crate) csi_roles: Option<Vec<Role>>,
    /// Whether CSI drivers make themselves known to kubelet; false where a registrar sidecar does [default: true]
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) csi_register: Option<bool>,
    /// Name of this node in Kubernetes [default: $NODE_NAME, else the host's name]
    #[arg(long, value_name = "ID", value_parser = NodeId::from_str)]
    pub(crate) node_id: Option<NodeId>,
}

impl CsiFlags {
    /// Puts what was given over the file's settings.
    pub(crate) fn apply(&self, csi: &mut Csi) {
        for (driver, endpoint) in &self.csi_endpoint {
            csi.driver_mut(*driver).endpoint = Some(endpoint.clone());
        }
        if let Some(roles) = &self.csi_roles {
            csi.roles = roles.iter().copied().collect();
        }
        if let Some(register) = self.csi_register {
            csi.register = register;
        }
        if self.node_id.is_some() {
            csi.node_id.clone_from(&self.node_id);
        }
    }
}

fn driver_endpoint(text: &str) -> Result<(Driver, Endpoint), String> {
    let (driver, endpoint) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} has not the form cvmfs=unix:///path/csi.sock"))?;
    Ok((driver.parse().map_err(|error: volume::UnknownDriver| error.to_string())?, endpoint.parse()?))
}

/// A text that is parsed, or nothing.
fn optional<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

fn roles<'de, D: Deserializer<'de>>(from: D) -> Result<Roles, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    words.iter().map(|word| word.parse::<Role>().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Csi, String> {
        let csi: Csi = toml::from_str(text).map_err(|error| error.to_string())?;
        csi.check().map_err(|error| error.to_string())?;
        Ok(csi)
    }

    #[test]
    fn a_driver_is_switched_on_by_its_endpoint() {
        assert_eq!(read("").unwrap().switched_on().count(), 0);
        let csi = read(
            "roles = ['controller']\nnode_id = 'n1'\nmax_volumes = 9\n[topology]\nsite = 'meyrin'\n[cvmfs]\n\
             endpoint = 'unix:///run/csi.sock'\nname = 'x.example.org'\n",
        )
        .unwrap();
        assert_eq!(csi.roles, Roles { node: false, controller: true });
        let on: Vec<_> = csi.switched_on().collect();
        assert_eq!(on, [(Driver::Cvmfs, &Endpoint("/run/csi.sock".into()))]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_key() {
        for (text, part) in [
            (
                "[rbd]\nendpoint = 'unix:///run/rbd.sock'",
                "csi.rbd.endpoint: this build has no backend for rbd",
            ),
            ("[cvmfs]\nendpoint = '/run/csi.sock'", "unix:///path/csi.sock"),
            ("[cvmfs]\nendpoint = 'unix://relative.sock'", "unix:///path/csi.sock"),
            ("[cvmfs]\nname = 'not/a/name'", "driver name"),
            ("[cvmfs]\nkubelet_endpoint = 'csi.sock'", "kubelet_endpoint"),
            ("roles = ['nodes']", "identity, node, controller"),
            ("node_id = ''", "node id"),
            ("[topology]\nsite = 'a b'", "csi.topology"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
