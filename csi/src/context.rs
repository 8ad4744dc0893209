//! What comes with a publish beside the volume itself: options, who wrote them, and secrets.

use std::collections::HashMap;

use tonic::Status;
use volume::{Caller, Frontend, OptionMap};

use crate::request;

/// Bytes of a context. The specification allows 4 KiB for what a driver makes; Kubernetes adds tokens and facts about the
/// pod, and an admin's client configuration may be longer.
const CONTEXT_LIMIT: usize = 256 << 10;

/// Keys that Kubernetes adds to a volume's context; none of them is an option.
const RESERVED: [&str; 2] = ["csi.storage.k8s.io/", "storage.kubernetes.io/"];
/// Whether the volume is an inline one (CSIDriver with podInfoOnMount).
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// JSON with tokens of the pod's service account; newer kubelets send it in `secrets`.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Context and secrets of a call, sorted out.
#[derive(Debug)]
pub(crate) struct Context {
    /// Options for the backend.
    pub(crate) options: OptionMap,
    /// Whose options these are, with the call's secrets.
    pub(crate) caller: Caller,
}

impl Context {
    /// `staged`: whether the caller named a staging path. This driver stages, so kubelet does for every
    /// PersistentVolume, and for no inline volume; it decides although `ephemeral` says the same, because a CSIDriver
    /// without podInfoOnMount sends no `ephemeral`, and a pod's author could write the key as an attribute then.
    pub(crate) fn read(
        volume_id: &str,
        context: HashMap<String, String>,
        secrets: HashMap<String, String>,
        staged: bool,
    ) -> Result<Context, Status> {
        let context = request::map_within("volume_context", context, CONTEXT_LIMIT)?;
        let mut secrets = secrets;
        let mut options = OptionMap::new();
        let mut ephemeral = false;
        for (key, value) in context {
            if key == TOKENS {
                secrets.entry(key).or_insert(value);
            } else if key == EPHEMERAL {
                ephemeral = value == "true";
            } else if !RESERVED.iter().any(|prefix| key.starts_with(prefix)) {
                options.insert(key, value);
            }
        }
        let admin = staged && !ephemeral && !is_inline(volume_id);
        let caller = if admin { Caller::admin(Frontend::Csi) } else { Caller::pod(Frontend::Csi) };
        Ok(Context { options, caller: caller.with_secrets(request::secrets(secrets)?) })
    }

    /// Adds what ControllerPublishVolume answered, for backends that have it; it wins.
    pub(crate) fn publish(&mut self, context: HashMap<String, String>) -> Result<(), Status> {
        self.options.extend(request::map_within("publish_context", context, CONTEXT_LIMIT)?);
        Ok(())
    }
}

/// Whether kubelet made the id, as it does for inline volumes: `csi-` and a SHA-256 in hex.
fn is_inline(volume_id: &str) -> bool {
    let digest = volume_id.strip_prefix("csi-").unwrap_or_default();
    digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use volume::Author;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn keys_of_kubernetes_are_no_options_and_tokens_are_secrets() {
        let context = map(&[
            ("repository", "cms.cern.ch"),
            ("csi.storage.k8s.io/pod.name", "p"),
            ("csi.storage.k8s.io/pv/name", "pv"),
            ("storage.kubernetes.io/csiProvisionerIdentity", "1-2-cvmfs"),
            (TOKENS, "{\"aud\":{\"token\":\"t0p\"}}"),
        ]);
        let read = Context::read("pvc-1", context, map(&[("password", "hunter2")]), true).unwrap();
        assert_eq!(read.options.keys().collect::<Vec<_>>(), ["repository"]);
        assert_eq!(read.caller.secrets.names().collect::<Vec<_>>(), [TOKENS, "password"]);
        assert_eq!(read.caller.author, Author::Admin);
        let shown = format!("{read:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("t0p"), "{shown}");
    }

    #[test]
    fn inline_volumes_are_the_pods_authors_whatever_the_context_says() {
        let author = |id: &str, context: &[(&str, &str)], staged| {
            Context::read(id, map(context), HashMap::new(), staged).unwrap().caller.author
        };
        let inline = format!("csi-{}", "0f".repeat(32));
        assert_eq!(author("pv", &[(EPHEMERAL, "true")], true), Author::Pod);
        assert_eq!(author("pv", &[(EPHEMERAL, "false")], false), Author::Pod);
        assert_eq!(author(&inline, &[], true), Author::Pod);
        assert_eq!(author("csi-of-the-admin", &[(EPHEMERAL, "false")], true), Author::Admin);
    }
}
