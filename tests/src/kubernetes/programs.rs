//! Where the cluster's programs are.

use std::path::PathBuf;

/// The directory with kubelet and the rest, as `tests/kubernetes-current/build` prints it; `Err` says why there is none.
///
/// # Errors
/// A sentence for the list of skipped tests.
pub fn programs() -> Result<PathBuf, String> {
    let Some(dir) = std::env::var_os("VOLPLANE_KUBERNETES_DIR").map(PathBuf::from) else {
        return Err("VOLPLANE_KUBERNETES_DIR is not set (make test-kubernetes sets it)".to_owned());
    };
    let kubelet = dir.join("kubelet");
    if kubelet.exists() { Ok(dir) } else { Err(format!("{} is missing", kubelet.display())) }
}
