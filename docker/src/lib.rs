//! The Docker volume-plugin API (HTTP/JSON over a unix socket) over [`volume::VolumeService`].
//!
//! This crate translates and nothing else: it knows how engines phrase their requests and what they do with the
//! answers, and has no idea what a mount is. The traps it is built around were measured on Docker 20.10, 28 and 29
//! and Podman 4.3 and are told in `doc/docker.md`; the ones that shape the code:
//!
//! - every error is HTTP 500 with `Err`: Podman takes any 200 for success and would hand the container its own bundle
//!   directory;
//! - a successful Mount always carries an absolute path (an empty one gives the container the engine's files);
//! - Get answers from memory: an engine that hears an error there forgets the volume;
//! - a request whose client hung up is dropped with its connection; what it had begun is the registry's to undo.

#![forbid(unsafe_code)]

mod calls;
mod engine;
pub mod fuzz;
mod reply;
mod request;
mod server;

pub use server::{Server, ServerConfig};
