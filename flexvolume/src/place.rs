//! What is mounted at a pod's directory, from the mount table alone.
//!
//! The directory itself is never looked at: a dead mount answers with an error, a hung one not at all.

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{UnmountFlags, unmount};

/// The file system type of our mounts (`crates/registry/src/bind.rs`).
const FS_TYPE: &str = "fuse.volplane";

/// Mounts on top of each other that are taken away at most.
const LAYERS: usize = 16;

/// The type of the uppermost file system mounted at exactly this path; `None`: it is no mountpoint.
pub(crate) fn mounted(target: &str) -> io::Result<Option<String>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(find(&table, &real(target)))
}

/// Whether the directory, which is no mountpoint, holds anything. Kubelet makes it empty for the call.
pub(crate) fn is_occupied(target: &str) -> bool {
    std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some())
}

/// Takes away what a call has left behind that cannot end as it should: mounts of ours, also dead ones. What is not ours
/// stays.
pub(crate) fn clear(target: &str) -> io::Result<()> {
    let place = real(target);
    for _ in 0..LAYERS {
        if mounted(target)?.as_deref() != Some(FS_TYPE) {
            return Ok(());
        }
        unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    }
    Ok(())
}

/// The path as the mount table has it: kubelet's root directory may be reached through links.
fn real(target: &str) -> PathBuf {
    let target = Path::new(target);
    let parent = target.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, target.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => target.to_owned(),
    }
}

/// Fields of a line: id, parent, device, root, place, options, optional ones, `-`, type, source, super options
/// (proc(5)). A later line lies upon an earlier one.
fn find(table: &[u8], place: &Path) -> Option<String> {
    let wanted = place.as_os_str().as_encoded_bytes();
    let of_line = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let there = unescaped(fields.nth(4)?);
        let fs_type = fields.skip_while(|field| *field != b"-").nth(1)?;
        (there == wanted).then(|| String::from_utf8_lossy(fs_type).into_owned())
    };
    table.split(|byte| *byte == b'\n').filter_map(of_line).next_back()
}

/// Blanks, tabs, line ends and backslashes are written as `\` and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match octal {
            Some(digits) => {
                let value = digits.iter().fold(0_u32, |sum, digit| sum * 8 + u32::from(digit - b'0'));
                plain.push(u8::try_from(value).unwrap_or(b'?'));
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 0:21 / /proc rw,nosuid - proc proc rw\n\
        30 1 0:40 / /var/lib/kubelet/pods/a/volumes/cern~cvmfs/b rw - tmpfs tmpfs rw\n\
        31 30 0:41 / /var/lib/kubelet/pods/a/volumes/cern~cvmfs/b ro shared:5 master:1 - fuse.volplane volplane ro\n\
        32 1 0:42 / /with\\040blank\\134 rw - ext4 /dev/x rw\nbroken line\n";

    #[test]
    fn the_table_tells_what_is_uppermost() {
        let at = |place: &str| find(TABLE, Path::new(place));
        assert_eq!(at("/var/lib/kubelet/pods/a/volumes/cern~cvmfs/b").as_deref(), Some(FS_TYPE));
        assert_eq!(at("/with blank\\").as_deref(), Some("ext4"));
        assert_eq!(at("/var/lib/kubelet"), None);
        assert_eq!(mounted("/proc").unwrap().as_deref(), Some("proc"));
        assert_eq!(mounted("/proc/self/nowhere/at/all").unwrap(), None);
    }

    #[test]
    fn an_empty_directory_is_not_occupied() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        assert!(!is_occupied(place) && !is_occupied("/nonexistent"));
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert!(is_occupied(place));
    }

    #[test]
    fn what_is_not_ours_is_not_cleared() {
        clear("/proc").unwrap();
        assert!(Path::new("/proc/self").exists());
    }
}
