//! The CSI driver of a real daemon, asked by what kubelet and the sidecars send.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod ground;
mod healing;
mod load;
mod metrics;
mod random;
mod registration;
mod sequences;
