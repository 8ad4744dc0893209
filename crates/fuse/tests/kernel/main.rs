//! Sessions against the real kernel, as root: everything goes through a mount in a temporary directory.

#![expect(clippy::unwrap_used, reason = "tests, also where clippy does not see that they are")]

mod adoption;
mod basics;
mod interrupt;
mod listing;
mod memory_fs;
mod mounted;
mod notify;
mod passthrough;
mod roles;
mod stopping;
