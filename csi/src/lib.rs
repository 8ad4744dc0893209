//! Frontend: the Container Storage Interface.

#![forbid(unsafe_code)]
