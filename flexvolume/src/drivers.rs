//! What each driver tells kubelet, and which calls it has.

use std::ffi::OsStr;
use std::path::Path;

use volume::Driver;

use crate::call::Verb;
use crate::status::Capabilities;

/// The driver as which the executable was started: its own name, or the last part of its directory `VENDOR~DRIVER`.
pub(crate) fn of_program(program: &Path) -> Option<Driver> {
    let named = |name: &OsStr| name.to_str()?.parse::<Driver>().ok();
    program.file_name().and_then(named).or_else(|| {
        let directory = program.parent()?.file_name()?.to_str()?;
        directory.rsplit_once('~')?.1.parse().ok()
    })
}

/// What `init` tells.
pub(crate) fn capabilities(driver: Driver) -> Capabilities {
    let file_system = Capabilities {
        attach: false,
        selinux_relabel: false,
        supports_metrics: true,
        fs_group: false,
        requires_fs_resize: false,
    };
    match driver {
        // Files belong to who published or wrote them, whatever group a pod would like.
        Driver::Cvmfs | Driver::Eos => file_system,
        Driver::Rbd => {
            Capabilities { selinux_relabel: true, fs_group: true, requires_fs_resize: true, ..file_system }
        }
    }
}

/// Whether the driver has the call. Those that it has not are answered `Not supported`, and kubelet does its default.
pub(crate) fn has(driver: Driver, verb: Verb) -> bool {
    match (driver, verb) {
        (_, Verb::Init | Verb::Mount | Verb::Unmount) => true,
        // The daemon maps an image when it is mounted, so nothing is attached from outside. A driver that is to be attached
        // or grown by kubelet gets its row here and its arm in `answer`.
        (
            Driver::Cvmfs | Driver::Eos | Driver::Rbd,
            Verb::GetVolumeName
            | Verb::Attach
            | Verb::WaitForAttach
            | Verb::IsAttached
            | Verb::MountDevice
            | Verb::UnmountDevice
            | Verb::Detach
            | Verb::ExpandVolume
            | Verb::ExpandFs,
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_is_the_driver() {
        let of = |path: &str| of_program(Path::new(path));
        assert_eq!(of("/usr/libexec/x/cern~cvmfs/cvmfs"), Some(Driver::Cvmfs));
        assert_eq!(of("rbd"), Some(Driver::Rbd));
        assert_eq!(of("/x/cern~eos/volplane-flexvolume"), Some(Driver::Eos));
        assert_eq!(of("/x/target/volplane-flexvolume"), None);
        assert_eq!(of("/x/cern~nfs/nfs"), None);
        assert_eq!(of(""), None);
    }
}
