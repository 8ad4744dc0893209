//! Loop devices and file systems, by the programs that come with util-linux, e2fsprogs and xfsprogs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::mountinfo::MountTable;
use volume::{Fault, FaultKind};

use super::failed;

/// Longest time of one program.
const LIMIT: Duration = Duration::from_secs(30);

/// CAP_SYS_RESOURCE, which ext4 wants for online growing (capability.h).
const SYS_RESOURCE: u32 = 24;

/// What a volume can be formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// The one that can grow while it is mounted on this machine.
    pub(super) fn growable() -> Option<FileSystem> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
        if bits >> SYS_RESOURCE & 1 == 1 && is_there("resize2fs") {
            return Some(FileSystem::Ext4);
        }
        (is_there("mkfs.xfs") && is_there("xfs_growfs")).then_some(FileSystem::Xfs)
    }

    pub(super) fn of(name: &str) -> Option<FileSystem> {
        [FileSystem::Ext4, FileSystem::Xfs].into_iter().find(|one| one.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    pub(super) fn format(self, device: &Path) -> Result<(), Fault> {
        match self {
            FileSystem::Ext4 => run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=1"], &[device]),
            FileSystem::Xfs => run("mkfs.xfs", &["-q"], &[device]),
        }
        .map(drop)
    }

    /// Options that a mount needs whatever the user wants: a copy of an XFS has the uuid of its origin.
    pub(super) fn options(self) -> &'static [&'static str] {
        match self {
            FileSystem::Ext4 => &[],
            FileSystem::Xfs => &["nouuid"],
        }
    }

    /// Fills its device, mounted.
    pub(super) fn grow(self, device: &Path, mountpoint: &Path) -> Result<(), Fault> {
        match self {
            FileSystem::Ext4 => run("resize2fs", &[], &[device]),
            FileSystem::Xfs => run("xfs_growfs", &["-d"], &[mountpoint]),
        }
        .map(drop)
    }
}

/// Whether a program can be found.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a program that must succeed; answers what it printed.
pub(super) fn run(program: &str, arguments: &[&str], paths: &[&Path]) -> Result<String, Fault> {
    let mut command = host::command::Command::new(program);
    for argument in arguments.iter().map(OsStr::new).chain(paths.iter().map(|path| path.as_os_str())) {
        command = command.arg(argument);
    }
    let output = command
        .run(LIMIT)
        .map_err(|error| Fault::new(FaultKind::Unsupported, "run", program, error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let detail = format!("{command}: {}: {}", output.status, text(&output.stderr));
    Err(Fault::new(FaultKind::Internal, "run", program, detail))
}

/// The loop device of an image, if it has one.
pub(super) fn loop_of(image: &Path) -> Result<Option<PathBuf>, Fault> {
    let found = run("losetup", &["--noheadings", "--output", "NAME", "--associated"], &[image])?;
    Ok(found.lines().next().map(|line| PathBuf::from(line.trim())))
}

/// The loop device of an image, made if it has none.
pub(super) fn attach(image: &Path) -> Result<PathBuf, Fault> {
    match loop_of(image)? {
        Some(device) => Ok(device),
        None => run("losetup", &["--find", "--show"], &[image]).map(PathBuf::from),
    }
}

/// Gives the loop device of an image back.
pub(super) fn detach(image: &Path) -> Result<(), Fault> {
    match loop_of(image)? {
        Some(device) => run("losetup", &["--detach"], &[&device]).map(drop),
        None => Ok(()),
    }
}

/// Lets a loop device see that its image has grown.
pub(super) fn refresh(device: &Path) -> Result<(), Fault> {
    run("losetup", &["--set-capacity"], &[device]).map(drop)
}

/// What is on a device; `None`: nothing that is known.
pub(super) fn content(device: &Path) -> Option<String> {
    // Its status tells "nothing" and "cannot be read" not apart; a device that cannot be read fails at the next step.
    let probed = run("blkid", &["--probe", "--output", "value", "--match-tag", "TYPE"], &[device]);
    probed.ok().filter(|name| !name.is_empty())
}

/// A mounted image whose file system holds still, until it is dropped.
pub(super) struct Frozen(Option<PathBuf>);

impl Frozen {
    /// Freezes the file system of an image, if it is mounted.
    pub(super) fn of(image: &Path) -> Result<Frozen, Fault> {
        let Some(device) = loop_of(image)? else { return Ok(Frozen(None)) };
        let table = MountTable::own().map_err(|error| failed("freeze", error))?;
        let entry = table.entries().iter().find(|entry| Path::new(&entry.source) == device);
        let Some(mountpoint) = entry.map(|entry| entry.mountpoint.clone()) else {
            run("blockdev", &["--flushbufs"], &[&device])?;
            return Ok(Frozen(None));
        };
        run("fsfreeze", &["--freeze"], &[&mountpoint])?;
        Ok(Frozen(Some(mountpoint)))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Some(mountpoint) = &self.0 {
            let _ = run("fsfreeze", &["--unfreeze"], &[mountpoint]);
        }
    }
}
