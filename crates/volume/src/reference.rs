//! Who uses a mount.

use std::fmt;
use std::str::FromStr;

/// The door through which a reference came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Frontend {
    /// The Docker engine, over the volume-plugin socket.
    Docker,
    /// Podman, over the same socket. It counts itself and keeps its count over restarts, so its references are
    /// never taken for forgotten ones (facts: docker-plugin 2.7).
    Podman,
    /// Kubernetes FlexVolume.
    Flexvolume,
    /// Kubernetes CSI.
    Csi,
    /// `volplane mount` by hand.
    Cli,
}

impl Frontend {
    /// The name in keys, logs and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Frontend::Docker => "docker",
            Frontend::Podman => "podman",
            Frontend::Flexvolume => "flexvolume",
            Frontend::Csi => "csi",
            Frontend::Cli => "cli",
        }
    }
}

/// One use of one volume: frontend, volume (or target path) and the caller's own id.
///
/// Two requests with equal `RefId`s are the same use, however often they come. Docker ids repeat over volumes
/// (Podman uses one constant for all), so the volume is part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefId {
    /// The door.
    pub frontend: Frontend,
    /// Volume name or target path, at most 4096 bytes.
    pub scope: String,
    /// The caller's id, at most 4096 bytes; may be empty.
    pub id: String,
}

/// A text is no reference id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no reference: it has the form frontend|scope|id")]
pub struct RefIdError(pub String);

impl fmt::Display for RefId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}|{}", self.frontend.as_str(), self.scope.replace('|', "%7c"), self.id)
    }
}

impl FromStr for RefId {
    type Err = RefIdError;

    fn from_str(text: &str) -> Result<Self, RefIdError> {
        let error = || RefIdError(text.to_owned());
        let mut parts = text.splitn(3, '|');
        let mut next = || parts.next().ok_or_else(error);
        let frontend = match next()? {
            "docker" => Frontend::Docker,
            "podman" => Frontend::Podman,
            "flexvolume" => Frontend::Flexvolume,
            "csi" => Frontend::Csi,
            "cli" => Frontend::Cli,
            _ => return Err(error()),
        };
        let scope = next()?.replace("%7c", "|");
        let id = next()?.to_owned();
        Ok(RefId { frontend, scope, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_survives_a_round_trip() {
        for (scope, id) in [("cms.cern.ch", "ab12"), ("/a|b", "x|y"), ("v", "")] {
            let reference = RefId { frontend: Frontend::Docker, scope: scope.into(), id: id.into() };
            assert_eq!(reference.to_string().parse::<RefId>().unwrap(), reference);
        }
        assert!("docker|x".parse::<RefId>().is_err());
        assert!("qemu|x|y".parse::<RefId>().is_err());
    }
}
