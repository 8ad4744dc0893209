//! The door for the command line.

pub(crate) mod client;
mod connection;
pub(crate) mod protocol;
pub(crate) mod server;
