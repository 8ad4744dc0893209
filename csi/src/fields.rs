//! Volume ids and paths of the Node service, checked before anything else looks at them. An error names the field.

use std::path::{Component, Path, PathBuf};

use tonic::Status;
use tracing::{Span, field};

use crate::request;
use crate::status::invalid;

/// Longest id in bytes. The specification allows 128; an admin's PersistentVolume may say anything.
const ID_LIMIT: usize = 1024;
/// Longest path in bytes: the kernel's PATH_MAX without its zero byte.
const PATH_LIMIT: usize = 4095;
/// How much of a text that a peer sent is logged.
const SHOWN: usize = 160;

/// Puts a text of a peer on the span of the call, cut short and with control characters escaped.
pub(crate) fn show(name: &'static str, text: &str) {
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_default).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    Span::current().record(name, field::display(shown));
}

/// The required `volume_id`, which also goes on the span.
pub(crate) fn volume_id(text: &str) -> Result<&str, Status> {
    show("volume", text);
    request::bounded("volume_id", text, ID_LIMIT)?.ok_or_else(|| invalid("volume_id", "is missing"))
}

/// A required path in kubelet's directory, without doubled slashes, `.` or a slash at the end, so that equal places have
/// equal texts. Symbolic links are the registry's to refuse.
pub(crate) fn path(name: &str, text: &str, beneath: &Path) -> Result<PathBuf, Status> {
    let path = plain(name, text)?;
    if path == beneath || !path.starts_with(beneath) {
        let detail = format_args!(
            "is not in kubelet's directory {}; if kubelet has another --root-dir, set kubelet_dir",
            beneath.display()
        );
        return Err(invalid(name, detail));
    }
    Ok(path)
}

fn plain(name: &str, text: &str) -> Result<PathBuf, Status> {
    if text.is_empty() {
        return Err(invalid(name, "is missing"));
    }
    if text.len() > PATH_LIMIT {
        return Err(invalid(name, format_args!("has {} bytes; {PATH_LIMIT} is the limit", text.len())));
    }
    let path = Path::new(text);
    if !path.is_absolute()
        || text.contains('\0')
        || path.components().any(|part| part == Component::ParentDir)
    {
        return Err(invalid(name, "is not an absolute path without `..`"));
    }
    Ok(path.components().collect())
}

/// A required path that is only looked up among those that are in use, so it may be any.
pub(crate) fn looked_up(name: &str, text: &str) -> Result<String, Status> {
    if text.is_empty() {
        return Err(invalid(name, "is missing"));
    }
    if text.len() > PATH_LIMIT {
        return Err(invalid(name, format_args!("has {} bytes; {PATH_LIMIT} is the limit", text.len())));
    }
    Ok(plain(name, text).map_or_else(|_| text.to_owned(), |path| path.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_beneath_kubelets_directory() {
        let kubelet = Path::new("/var/lib/kubelet");
        let good = path("target_path", "/var/lib/kubelet//pods/./a/mount/", kubelet).unwrap();
        assert_eq!(good, Path::new("/var/lib/kubelet/pods/a/mount"));
        for bad in [
            "",
            "pods/a",
            "/etc",
            "/var/lib/kubelet",
            "/var/lib/kubelet/../../../etc",
            "/var/lib/kubelet2/a",
            "/var/lib/kubelet/a\0b",
            &format!("/var/lib/kubelet/{}", "a".repeat(5000)),
        ] {
            let refused = path("target_path", bad, kubelet).unwrap_err();
            assert!(refused.message().starts_with("target_path: "), "{bad:?}: {refused}");
        }
    }

    #[test]
    fn ids_are_bounded() {
        assert_eq!(volume_id("pvc-1").unwrap(), "pvc-1");
        for bad in ["", "a\nb", &"x".repeat(1 << 20)] {
            assert!(volume_id(bad).is_err());
        }
    }
}
