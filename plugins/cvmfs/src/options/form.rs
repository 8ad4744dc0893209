//! How a volume is wanted: as a tree of files, with mount flags that a read-only FUSE mount can honour.
//!
//! `fsType` and the group of `fsGroup` mean nothing here and are let pass: kubelet sends the first from any
//! PersistentVolume, and a repository's files belong to whom the repository says. A flag that would be ignored is refused,
//! because somebody relies on it.

use volume::{Fault, nearest};
use volume::{Form, VolumeSpec};

use super::refused;

/// Flags that say what is so anyway.
const FLAGS: &[&str] = &["defaults", "ro", "nosuid", "nodev", "noatime", "relatime"];

/// Checks that a volume can be had in this form.
///
/// # Errors
/// It is wanted as a device, or with a mount flag that is not honoured; the fault names the flag.
pub fn check(form: &Form, spec: &VolumeSpec) -> Result<(), Fault> {
    let Form::Filesystem { mount_flags, fs_type: _, group: _ } = form else {
        let detail = "a CernVM-FS repository is a file system, not a block device; use volumeMode Filesystem";
        return Err(refused("", detail));
    };
    let parameters = match spec {
        VolumeSpec::Cvmfs(spec) => Some(&spec.parameters),
        VolumeSpec::CvmfsAll(spec) => Some(&spec.parameters),
        VolumeSpec::Rbd(_) => None,
    };
    let suid = parameters.and_then(|parameters| parameters.get("CVMFS_SUID"));
    let suid = suid.is_some_and(|value| {
        value.trim().parse::<crate::client::config::values::Switch>().is_ok_and(|switch| switch.0)
    });
    for flag in mount_flags.iter().flat_map(|flags| flags.split(',')).map(str::trim) {
        if flag == "nosuid" && suid {
            return Err(refused("suid", "contradicts the mount flag nosuid; give one of them"));
        }
        if !flag.is_empty() && !FLAGS.contains(&flag) {
            let short: String = flag.chars().take(80).collect();
            let hint = match nearest(&short, FLAGS.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known are {}", FLAGS.join(", ")),
            };
            let detail =
                format!("mount flag {short:?} is not honoured by a read-only CernVM-FS mount; {hint}");
            return Err(refused("", detail));
        }
    }
    Ok(())
}
