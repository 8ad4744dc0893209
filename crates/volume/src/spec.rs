//! What a volume is, as typed data.

use std::fmt;
use std::str::FromStr;

use crate::{Form, OptionMap};

/// The kinds of storage; also the names of the Docker drivers and of the FlexVolume and CSI drivers' last part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// CernVM-FS.
    Cvmfs,
    /// EOS over XRootD. This build has no backend for it yet.
    Eos,
    /// Ceph block images. This build has no backend for it yet.
    Rbd,
}

/// A text names no driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no driver; known: cvmfs, eos, rbd")]
pub struct UnknownDriver(pub String);

impl Driver {
    /// All of them.
    pub const ALL: [Driver; 3] = [Driver::Cvmfs, Driver::Eos, Driver::Rbd];

    /// The name as engines know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Driver::Cvmfs => "cvmfs",
            Driver::Eos => "eos",
            Driver::Rbd => "rbd",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Driver {
    type Err = UnknownDriver;

    fn from_str(text: &str) -> Result<Self, UnknownDriver> {
        match text {
            "cvmfs" => Ok(Driver::Cvmfs),
            "eos" => Ok(Driver::Eos),
            "rbd" => Ok(Driver::Rbd),
            _ => Err(UnknownDriver(text.to_owned())),
        }
    }
}

/// A volume, fully typed. Backends add their variants here and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum VolumeSpec {
    /// One CernVM-FS repository.
    Cvmfs(CvmfsSpec),
    /// All of /cvmfs in one file system.
    CvmfsAll(CvmfsAllSpec),
    /// A block image.
    Rbd(RbdSpec),
}

impl VolumeSpec {
    /// Whether its user gets the device itself and no file system.
    pub fn is_block(&self) -> bool {
        match self {
            VolumeSpec::Cvmfs(_) | VolumeSpec::CvmfsAll(_) => false,
            VolumeSpec::Rbd(rbd) => rbd.form == Form::Block,
        }
    }

    /// The driver that serves it.
    pub fn driver(&self) -> Driver {
        match self {
            VolumeSpec::Cvmfs(_) | VolumeSpec::CvmfsAll(_) => Driver::Cvmfs,
            VolumeSpec::Rbd(_) => Driver::Rbd,
        }
    }
}

/// One CernVM-FS repository at one revision.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CvmfsSpec {
    /// Fully qualified repository name, for example `cms.cern.ch`; checked by the backend that parsed it.
    pub repository: String,
    /// Which revision.
    pub revision: Revision,
    /// Client parameters that this volume sets over the site's configuration, by their own names (`CVMFS_…`).
    #[serde(default, skip_serializing_if = "OptionMap::is_empty")]
    pub parameters: OptionMap,
}

/// All repositories that the node's configuration can reach, opened at first lookup.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CvmfsAllSpec {
    /// Client parameters that this volume sets for every repository (`CVMFS_…`).
    #[serde(default, skip_serializing_if = "OptionMap::is_empty")]
    pub parameters: OptionMap,
}

/// A block image, with a file system on it or as the device itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RbdSpec {
    /// The provisioner's id of the volume.
    pub volume: String,
    /// File system or device.
    pub form: Form,
    /// What the provisioner says about the volume (CSI `volume_context`).
    #[serde(default, skip_serializing_if = "OptionMap::is_empty")]
    pub attributes: OptionMap,
}

/// Which revision of a repository is wanted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revision {
    /// The newest one, followed as it changes.
    Trunk,
    /// The one a named snapshot points to.
    Tag(String),
    /// The newest named snapshot at or before an ISO 8601 time in UTC, for example `2026-01-02T03:04:05Z`.
    Date(String),
    /// The one with this root catalog hash (hex, with algorithm tag where it is not SHA-1).
    Hash(String),
}

/// The identity of a mount: equal keys share one mount. Made by [`crate::Backend::resolve`].
///
/// 1 to 200 bytes of `[A-Za-z0-9_.@#+-]`, beginning with a letter or digit, no `..`: one safe path component.
/// Example: `cms.cern.ch`, `cms.cern.ch@v1`, `cms.cern.ch+3f2a…` (with the digest of per-volume parameters).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MountKey(String);

impl MountKey {
    /// Checks the form; `None` if the text does not have it.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.@#+-".contains(c);
        let good = !text.is_empty()
            && text.len() <= 200
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(allowed)
            && !text.contains("..");
        good.then_some(MountKey(text))
    }

    /// The key as text, usable as a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MountKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        MountKey::new(text.clone()).ok_or(format!("{text:?} is no mount key"))
    }
}

impl From<MountKey> for String {
    fn from(key: MountKey) -> String {
        key.0
    }
}
