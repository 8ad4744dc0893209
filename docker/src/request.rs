//! What engines send, parsed.

use std::collections::BTreeMap;

use serde::Deserialize;
use volume::{OptionMap, VolumeName};

use crate::reply::Refusal;

/// The calls of the API, by URL path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Activate,
    Capabilities,
    Create,
    Get,
    List,
    Mount,
    Path,
    Unmount,
    Remove,
}

impl Call {
    /// The call of a URL path.
    pub(crate) fn of_path(path: &str) -> Result<Call, Refusal> {
        match path {
            "/Plugin.Activate" => Ok(Call::Activate),
            "/VolumeDriver.Capabilities" => Ok(Call::Capabilities),
            "/VolumeDriver.Create" => Ok(Call::Create),
            "/VolumeDriver.Get" => Ok(Call::Get),
            "/VolumeDriver.List" => Ok(Call::List),
            "/VolumeDriver.Mount" => Ok(Call::Mount),
            "/VolumeDriver.Path" => Ok(Call::Path),
            "/VolumeDriver.Unmount" => Ok(Call::Unmount),
            "/VolumeDriver.Remove" => Ok(Call::Remove),
            other => {
                let shown: String = other.chars().take(80).collect();
                Err(Refusal::new(format!("{shown:?} is no call of the Docker volume-plugin API")))
            }
        }
    }
}

/// The body of any call. Engines send `null` for absent options (Docker) or leave the field out (Podman); fields that
/// newer engines add are ignored.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Body {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "ID", default)]
    pub(crate) id: String,
    #[serde(rename = "Opts", default)]
    options: Option<BTreeMap<String, String>>,
}

/// Longest id accepted; engines send 64 hex digits.
const MAX_ID_BYTES: usize = 1024;

impl Body {
    /// Parses a body; an empty one has no fields.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Body, Refusal> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Body::default());
        }
        let body: Body = serde_json::from_slice(bytes).map_err(|error| {
            Refusal::new(format!("the request body is not the JSON of this call: {error}"))
        })?;
        if body.id.len() > MAX_ID_BYTES {
            return Err(Refusal::new(format!(
                "the ID has {} bytes; {MAX_ID_BYTES} is the limit",
                body.id.len()
            )));
        }
        Ok(body)
    }

    /// The volume name, checked.
    pub(crate) fn name(&self) -> Result<VolumeName, Refusal> {
        self.name.parse().map_err(|error: volume::NameError| Refusal::new(error.to_string()))
    }

    /// The options; absent ones are none.
    pub(crate) fn options(self) -> OptionMap {
        self.options.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_real_engines_parse() {
        let docker = Body::parse(b"{\"Name\":\"v1\",\"Opts\":null}\n").unwrap();
        assert_eq!(docker.name().unwrap().as_str(), "v1");
        assert!(docker.options().is_empty());
        assert_eq!(Body::parse(b"").unwrap(), Body::default());
        assert_eq!(Body::parse(b"{}").unwrap(), Body::default());
        let podman = Body::parse(br#"{"Name":"v","ID":"2f73"}"#).unwrap();
        assert_eq!(podman.id, "2f73");
        let opts = Body::parse(br#"{"Name":"v","Opts":{"tag":"x"}}"#).unwrap().options();
        assert_eq!(opts.get("tag").map(String::as_str), Some("x"));
    }

    #[test]
    fn garbage_is_refused_and_never_panics() {
        for bad in [&b"{"[..], b"[1]", b"\xff\xfe", br#"{"Name":3}"#, br#"{"Opts":{"a":1}}"#] {
            assert!(Body::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Body::parse(format!(r#"{{"ID":"{}"}}"#, "x".repeat(2000)).as_bytes()).is_err());
        assert!(Body::parse(br#"{"Name":"../x"}"#).unwrap().name().is_err());
        assert!(Call::of_path("/VolumeDriver.Format").is_err());
    }
}
