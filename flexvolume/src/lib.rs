//! Frontend: Kubernetes FlexVolume.

#![forbid(unsafe_code)]
