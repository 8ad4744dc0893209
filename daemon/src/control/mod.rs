//! The door for the command line.

pub(crate) mod client;
pub(crate) mod protocol;
pub(crate) mod server;
