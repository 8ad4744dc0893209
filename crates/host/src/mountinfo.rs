//! `/proc/PID/mountinfo` as data (format: proc(5)).
//!
//! Read as text, never by `stat`: a mount in it may be dead or hang.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::escape::unescape;

/// More than this is not read: 64 MiB are about 400,000 mounts.
const LIMIT_BYTES: u64 = 64 << 20;

/// A device number as mount tables show it; for FUSE the minor is also the name below `/sys/fs/fuse/connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId {
    /// 0 for file systems without a device.
    pub major: u32,
    /// Up to 20 bits.
    pub minor: u32,
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DeviceId {
    type Err = MountInfoError;

    fn from_str(text: &str) -> Result<Self, MountInfoError> {
        let numbers = text.split_once(':').and_then(|(major, minor)| {
            Some(DeviceId { major: major.parse().ok()?, minor: minor.parse().ok()? })
        });
        numbers.ok_or_else(|| MountInfoError::Line(text.to_owned()))
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountEntry {
    /// Unique among all mounts that exist now.
    pub mount_id: u64,
    /// The mount on which this one sits.
    pub parent_id: u64,
    /// The file system's device number.
    pub device: DeviceId,
    /// Which directory of the file system is the root of this mount; `/` unless it is a bind of a part.
    pub root: PathBuf,
    /// Where it is, as the process sees it.
    pub mountpoint: PathBuf,
    /// Options of this mount: `rw,nosuid`.
    pub options: String,
    /// Peer group that it shares events with (`shared:N`).
    pub shared: Option<u64>,
    /// Peer group that it receives events from (`master:N`).
    pub master: Option<u64>,
    /// File system type with subtype: `ext4`, `fuse.volplane`.
    pub fs_type: String,
    /// What was mounted: a device, a repository name.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

/// A mount table could not be read or understood.
#[derive(Debug, thiserror::Error)]
pub enum MountInfoError {
    /// The file could not be read. `NotFound`, or `ESRCH`: the process has gone.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that has not the form of proc(5).
    #[error("mount table line is not understood: {0:?}")]
    Line(String),
    /// More than 64 MiB.
    #[error("{0}: more than {LIMIT_BYTES} bytes")]
    TooLong(PathBuf),
}

/// All mounts of one mount namespace, in the kernel's order (a mount comes after its parent).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountTable {
    entries: Vec<MountEntry>,
}

impl MountTable {
    /// The table of this process.
    pub fn own() -> Result<Self, MountInfoError> {
        // "thread-self" would be another namespace only if a thread had left ours, which none of ours does.
        MountTable::read(Path::new("/proc/self/mountinfo"))
    }

    /// The table of a process. It sees a namespace through the process's root directory: what is outside of a
    /// chroot is missing.
    pub fn of_process(pid: i32) -> Result<Self, MountInfoError> {
        MountTable::read(Path::new(&format!("/proc/{pid}/mountinfo")))
    }

    fn read(path: &Path) -> Result<Self, MountInfoError> {
        let failed = |source| MountInfoError::Read { path: path.to_owned(), source };
        let mut text = Vec::new();
        File::open(path).map_err(failed)?.take(LIMIT_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > LIMIT_BYTES {
            return Err(MountInfoError::TooLong(path.to_owned()));
        }
        MountTable::parse(&text)
    }

    /// Reads the text form.
    pub fn parse(text: &[u8]) -> Result<Self, MountInfoError> {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let entries = lines
            .map(|line| {
                parse_line(line).ok_or_else(|| {
                    MountInfoError::Line(String::from_utf8_lossy(line).chars().take(200).collect())
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(MountTable { entries })
    }

    /// All entries.
    pub fn entries(&self) -> &[MountEntry] {
        &self.entries
    }

    /// The entry with this mount id.
    pub fn by_id(&self, mount_id: u64) -> Option<&MountEntry> {
        self.entries.iter().find(|entry| entry.mount_id == mount_id)
    }

    /// The topmost mount at exactly this path.
    pub fn at(&self, path: &Path) -> Option<&MountEntry> {
        let here: Vec<_> = self.entries.iter().filter(|entry| entry.mountpoint == path).collect();
        // Mounts that are stacked at one path are each the parent of the next.
        here.iter().rev().find(|entry| here.iter().all(|above| above.parent_id != entry.mount_id)).copied()
    }

    /// The mount in which this path lies (or which it is the root of). The path must be free of symbolic links.
    pub fn covering(&self, path: &Path) -> Option<&MountEntry> {
        path.ancestors().find_map(|ancestor| self.at(ancestor))
    }

    /// All mounts of one file system.
    pub fn of_device(&self, device: DeviceId) -> impl Iterator<Item = &MountEntry> {
        self.entries.iter().filter(move |entry| entry.device == device)
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut next = || fields.next();
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    let path = |field: &[u8]| PathBuf::from(OsString::from_vec(unescape(field)));
    let mount_id = number(next()?)?;
    let parent_id = number(next()?)?;
    let device = std::str::from_utf8(next()?).ok()?.parse().ok()?;
    let root = path(next()?);
    let mountpoint = path(next()?);
    let options = text(next()?);
    let (mut shared, mut master) = (None, None);
    loop {
        match next()? {
            b"-" => break,
            field => {
                if let Some(group) = field.strip_prefix(b"shared:") {
                    shared = Some(number(group)?);
                } else if let Some(group) = field.strip_prefix(b"master:") {
                    master = Some(number(group)?);
                }
            }
        }
    }
    let fs_type = text(next()?);
    let source = text(next()?);
    let super_options = text(next().unwrap_or_default());
    Some(MountEntry {
        mount_id,
        parent_id,
        device,
        root,
        mountpoint,
        options,
        shared,
        master,
        fs_type,
        source,
        super_options,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = br"22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
40 27 0:50 / /run/v/mounts/a\040b rw,nosuid shared:7 master:1 propagate_from:2 - fuse.volplane cms.cern.ch ro
41 40 0:51 / /run/v/mounts/a\040b rw - tmpfs none rw
42 27 0:50 /sub /mnt/x ro unbindable - fuse.volplane  ro
";

    #[test]
    fn every_field_is_read() {
        let table = MountTable::parse(TABLE).unwrap();
        assert_eq!(table.entries().len(), 5);
        let entry = table.by_id(40).unwrap();
        assert_eq!(entry.mountpoint, Path::new("/run/v/mounts/a b"));
        assert_eq!((entry.shared, entry.master), (Some(7), Some(1)));
        assert_eq!(entry.device, "0:50".parse().unwrap());
        assert_eq!((entry.fs_type.as_str(), entry.source.as_str()), ("fuse.volplane", "cms.cern.ch"));
        assert_eq!(table.by_id(42).unwrap().root, Path::new("/sub"));
        assert_eq!(table.of_device(entry.device).count(), 2);
    }

    #[test]
    fn the_topmost_of_stacked_mounts_is_found_in_any_order() {
        let table = MountTable::parse(TABLE).unwrap();
        assert_eq!(table.at(Path::new("/run/v/mounts/a b")).unwrap().mount_id, 41);
        let mut turned = table.clone();
        turned.entries.reverse();
        assert_eq!(turned.at(Path::new("/run/v/mounts/a b")).unwrap().mount_id, 41);
        assert_eq!(table.at(Path::new("/run")), None);
        assert_eq!(table.covering(Path::new("/run/v")).unwrap().mount_id, 27);
    }

    #[test]
    fn broken_lines_are_errors() {
        for bad in
            [&b"x"[..], b"1 2 3 / / rw - a b", b"1 2 0:1 / / rw shared:x - a b c", b"1 2 0:1 / / rw shared:1"]
        {
            assert!(matches!(MountTable::parse(bad), Err(MountInfoError::Line(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_own_table_has_a_proc() {
        let table = MountTable::own().unwrap();
        assert_eq!(table.at(Path::new("/proc")).unwrap().fs_type, "proc");
    }
}
