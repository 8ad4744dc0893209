//! What kubelet reads: one JSON object.

use serde::Serialize;

/// Kubelet puts the message into an event, which takes 1024 bytes with its own words.
const MESSAGE_LIMIT: usize = 800;

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Status {
    /// It is done.
    Success,
    /// It is not; kubelet tries again later.
    Failure,
    /// The driver does not have this call. Kubelet remembers that until the next `init` and does its own default instead.
    #[serde(rename = "Not supported")]
    NotSupported,
}

/// What a driver can do, told by `init`. Kubelet takes what is missing for true (but `supportsMetrics`), so all are
/// always told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Capabilities {
    /// Volumes are attached to nodes by calls of their own.
    pub(crate) attach: bool,
    /// Kubelet labels the files for SELinux.
    pub(crate) selinux_relabel: bool,
    /// statfs on the target says how full the volume is.
    pub(crate) supports_metrics: bool,
    /// Kubelet changes the group of all files to the pod's fsGroup.
    #[serde(rename = "fsGroup")]
    pub(crate) fs_group: bool,
    /// The file system is grown by a call of its own.
    #[serde(rename = "requiresFSResize")]
    pub(crate) requires_fs_resize: bool,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
}

impl Reply {
    /// It is done.
    pub(crate) fn success() -> Reply {
        Reply { status: Status::Success, message: None, capabilities: None }
    }

    /// The answer of `init`.
    pub(crate) fn initialised(capabilities: Capabilities) -> Reply {
        Reply { capabilities: Some(capabilities), ..Reply::success() }
    }

    /// It is not done; the text says why and what to do.
    pub(crate) fn failure(message: impl Into<String>) -> Reply {
        Reply { status: Status::Failure, message: Some(bounded(message.into())), capabilities: None }
    }

    /// There is no such call.
    pub(crate) fn not_supported(message: impl Into<String>) -> Reply {
        Reply { status: Status::NotSupported, ..Reply::failure(message) }
    }
}

fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE_LIMIT {
        let end = (0..=MESSAGE_LIMIT).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_kubelets_form() {
        let text = |reply: &Reply| serde_json::to_string(reply).unwrap();
        assert_eq!(text(&Reply::success()), r#"{"status":"Success"}"#);
        assert_eq!(text(&Reply::failure("x")), r#"{"status":"Failure","message":"x"}"#);
        assert_eq!(text(&Reply::not_supported("x")), r#"{"status":"Not supported","message":"x"}"#);
    }

    #[test]
    fn messages_fit_into_an_event() {
        let long = Reply::failure("ä".repeat(4000)).message.unwrap();
        assert!(long.len() < MESSAGE_LIMIT + 8 && long.ends_with('…'), "{}", long.len());
    }
}
