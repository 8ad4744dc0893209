//! The `volplane` binary.
fn main() {}
