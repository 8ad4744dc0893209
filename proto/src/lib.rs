//! Generated code of `csi.proto` and `pluginregistration.proto`.

#![forbid(unsafe_code)]

/// Package `pluginregistration`: how a plugin makes itself known to kubelet.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}
