//! Bad input and faults against the real daemon: each gives a clear error to the one who asked, leaves nothing behind,
//! and disturbs no other volume.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod calm;
mod content;
mod crash;
mod disk;
mod doors;
mod frozen;
mod health;
mod refused;
mod words;
