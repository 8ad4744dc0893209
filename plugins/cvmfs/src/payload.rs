//! What the daemon hands to a worker process.
//!
//! The daemon reads the node's configuration and key files (as root); the worker has no file system rights for that. So the
//! payload holds texts, not paths: effective parameters with their origins, master keys as PEM, the blacklist and id
//! maps. For all of /cvmfs the configuration directory itself is readable to the worker, because which
//! repositories are wanted is known only at their first lookup.

use std::path::PathBuf;
use std::time::Duration;

use volume::{OptionMap, Revision};

use crate::client::config::{ClientConfig, IdMap, ParameterError, Parameters};

/// All that a worker needs to serve a mount. No secrets.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Payload {
    /// What is served.
    pub kind: Kind,
    /// The cache that the workers of a node share.
    pub cache_dir: PathBuf,
    /// How long one FUSE request may take, in milliseconds.
    pub deadline_ms: u64,
    /// Who files belong to when the configuration claims them all for one user.
    pub owner: Owner,
}

impl Payload {
    /// How long one FUSE request may take.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// One repository or all.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One repository.
    One(Box<RepositorySetup>),
    /// Every repository that the node's configuration can reach.
    All(AllSetup),
}

/// A user and group as `stat` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Everything known about one repository before its first byte is fetched.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RepositorySetup {
    /// Fully qualified name.
    pub repository: String,
    /// Which revision is served.
    pub revision: Revision,
    /// Effective parameters. Also what variables in symlinks see ([`Parameters::environment`]).
    pub parameters: Parameters,
    /// Master keys; the whitelist must be signed by one of them. Never empty.
    pub master_keys: Vec<KeyText>,
    /// Text of the blacklist, empty without one.
    pub blacklist: String,
    /// Text of `CVMFS_UID_MAP`'s file, empty without one.
    pub uid_map: String,
    /// Text of `CVMFS_GID_MAP`'s file, empty without one.
    pub gid_map: String,
}

/// A public key as text.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyText {
    /// File that it came from, or `built-in`; for messages.
    pub origin: String,
    /// PEM, `PUBLIC KEY`.
    pub pem: String,
}

impl RepositorySetup {
    /// The parameters as types.
    ///
    /// # Errors
    /// A value that is not of its parameter's type.
    pub fn client_config(&self) -> Result<ClientConfig, ParameterError> {
        ClientConfig::from_parameters(&self.parameters)
    }

    /// What user and group ids of catalogs become, in this order.
    ///
    /// # Errors
    /// A line that is no rule.
    pub fn id_maps(&self) -> Result<(IdMap, IdMap), ParameterError> {
        let map = |name: &str, text: &str| {
            text.parse().map_err(|error: crate::client::config::ids::IdMapError| {
                self.parameters.error(name, error.to_string())
            })
        };
        Ok((map("CVMFS_UID_MAP", &self.uid_map)?, map("CVMFS_GID_MAP", &self.gid_map)?))
    }
}

/// What is known about all of /cvmfs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AllSetup {
    /// The node's configuration; readable to the worker.
    pub config_dir: PathBuf,
    /// What the volume sets for every repository (`CVMFS_…`).
    pub overrides: OptionMap,
    /// Keys that the volume names; used instead of the configuration's when there are any.
    pub master_keys: Vec<KeyText>,
    /// Repositories that `ls` shows although nobody opened them yet (`CVMFS_REPOSITORIES` and files in `config.d`), sorted.
    pub configured: Vec<String>,
}
