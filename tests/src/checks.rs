//! Programs of others that check ours: csi-sanity and helm.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory with `csi-sanity`, `helm` and the official `csi.proto`. They are built when they are not there yet, which
/// takes minutes once.
///
/// # Errors
/// A sentence for the list of skipped tests where they can neither be had nor built.
pub fn programs() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("checks/build");
    let output = Command::new(&script).output().map_err(|error| format!("{}: {error}", script.display()))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(said(&output.stdout).into());
    }
    let errors = said(&output.stderr);
    Err(errors.lines().last().unwrap_or("tests/checks/build says nothing").to_owned())
}
