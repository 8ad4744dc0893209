//! What engines get back.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use volume::{Fault, VolumeInfo};

/// The media type of the API's version 1.1, which every engine takes.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";

/// An error on its way to an engine: a text for the user who typed the command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    text: String,
    /// Whether the connection is of no use any more (the request was not read to its end).
    close: bool,
}

impl Refusal {
    pub(crate) fn new(text: String) -> Self {
        Refusal { text, close: false }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn and_close(mut self) -> Self {
        self.close = true;
        self
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal::new(fault.to_string())
    }
}

/// A successful answer. `Err` is always there and empty, as engines' own helpers do it.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(crate) struct Answer {
    #[serde(rename = "Implements", skip_serializing_if = "Option::is_none")]
    pub(crate) implements: Option<[&'static str; 1]>,
    #[serde(rename = "Capabilities", skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
    #[serde(rename = "Mountpoint", skip_serializing_if = "Option::is_none")]
    pub(crate) mountpoint: Option<String>,
    #[serde(rename = "Volume", skip_serializing_if = "Option::is_none")]
    pub(crate) volume: Option<Volume>,
    #[serde(rename = "Volumes", skip_serializing_if = "Option::is_none")]
    pub(crate) volumes: Option<Vec<Volume>>,
    #[serde(rename = "Err")]
    pub(crate) err: &'static str,
}

/// `local`: a volume exists on each node by itself.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Capabilities {
    #[serde(rename = "Scope")]
    pub(crate) scope: &'static str,
}

/// A volume as `docker volume inspect` shows it.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Volume {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Mountpoint")]
    mountpoint: String,
    #[serde(rename = "CreatedAt")]
    created_at: String,
    #[serde(rename = "Status")]
    status: BTreeMap<String, String>,
}

impl From<&VolumeInfo> for Volume {
    fn from(info: &VolumeInfo) -> Self {
        let created = UNIX_EPOCH + Duration::from_secs(info.created_at);
        let mountpoint = info.mountpoint.as_ref().and_then(|path| path.to_str()).unwrap_or_default();
        Volume {
            name: info.name.to_string(),
            mountpoint: mountpoint.to_owned(),
            created_at: humantime::format_rfc3339_seconds(created).to_string(),
            status: status(info),
        }
    }
}

/// The Status map: what a user wants to know when a volume is ill.
fn status(info: &VolumeInfo) -> BTreeMap<String, String> {
    let mut status = BTreeMap::new();
    let Some(mount) = &info.mount else {
        status.insert("state".to_owned(), "absent".to_owned());
        return status;
    };
    status.extend(mount.details.clone());
    status.insert("state".to_owned(), mount.state.as_str().to_owned());
    status.insert("health".to_owned(), mount.health.clone());
    status.insert("references".to_owned(), mount.references.len().to_string());
    if let Some(revision) = &mount.revision {
        status.insert("revision".to_owned(), revision.clone());
    }
    if let Some(error) = &mount.last_error {
        status.insert("last_error".to_owned(), error.clone());
    }
    status
}

/// The HTTP response of a call's outcome. Errors are 500 with `Err`, whatever they are (Podman takes 200 for success).
pub(crate) fn response(outcome: Result<Answer, Refusal>) -> Response<Full<Bytes>> {
    let (code, close, body) = match outcome {
        Ok(answer) => (StatusCode::OK, false, serde_json::to_vec(&answer)),
        Err(refusal) => {
            let body = serde_json::to_vec(&serde_json::json!({ "Err": refusal.text }));
            (StatusCode::INTERNAL_SERVER_ERROR, refusal.close, body)
        }
    };
    let body = body.expect("answers hold only strings and maps with string keys");
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    if close {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
