//! Landlock: which files a worker can reach, beyond what its user could anyway.
//!
//! It writes only below its own directories and reads only what name resolution, TLS and the run time need. The whole of
//! /etc is readable (as far as its permissions allow a user without rights): resolv.conf and its like are replaced by
//! rename, and a rule for the single file would stay with the old one.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};

use crate::privileges::{PrivilegeError, step};

/// What every worker may read.
const SYSTEM: &[&str] = &[
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/locale",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/run/NetworkManager",
    "/run/connman",
    "/proc/self",
    "/proc/sys",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/cpuinfo",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/dev/urandom",
    "/dev/random",
];

/// Single files that a worker may write as well.
const DEVICES: &[&str] = &["/dev/null", "/dev/fuse"];

/// Closes the file system for this process (thread and its descendants) except for the given paths. A kernel without
/// Landlock is logged and leaves it open.
pub(crate) fn confine_files(writable: &[PathBuf], readable: &[PathBuf]) -> Result<(), PrivilegeError> {
    let abi = ABI::V6;
    let everything = AccessFs::from_all(abi) & !AccessFs::Execute;
    let read = AccessFs::from_read(abi) & !AccessFs::Execute;
    let build = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::BindTcp)?
            .scope(Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(SYSTEM.iter().map(Path::new), read))?
            .add_rules(path_beneath_rules(DEVICES.iter().map(Path::new), everything))?
            .add_rules(path_beneath_rules(readable, read))?
            .add_rules(path_beneath_rules(writable, everything))?
            .restrict_self()
    };
    let status = build().map_err(step::<landlock::RulesetError>("close the file system"))?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => {}
        RulesetStatus::PartiallyEnforced => {
            tracing::debug!("this kernel enforces a part of the Landlock rules");
        }
        RulesetStatus::NotEnforced => {
            tracing::info!("this kernel has no Landlock; the worker is confined by its user and by seccomp");
        }
    }
    Ok(())
}
