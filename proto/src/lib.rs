//! Generated code of `csi.proto` and `pluginregistration.proto`.

#![forbid(unsafe_code)]

/// Package `pluginregistration`: how a plugin makes itself known to kubelet.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}

/// Package `csi.v1`: the Container Storage Interface 1.13.0.
///
/// Messages with a field that the specification marks `csi_secret` have a `Debug` that does not show its values
/// (`build.rs` writes it).
pub mod csi {
    /// Version 1 of the interface.
    #[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
    pub mod v1 {
        tonic::include_proto!("csi.v1");
        include!(concat!(env!("OUT_DIR"), "/csi.v1.debug.rs"));
    }
}

#[cfg(test)]
mod tests;
