//! What every user of a mount sees.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::stat::{Mode, SFlag};

use fuse::{Connection, FileSystem, MountOptions, OpenMode, SessionConfig};

use crate::memory_fs::{Body, MemoryFs};
use crate::mounted::{Mounted, eventually};
use crate::roles;

fn file(content: &[u8]) -> Body {
    Body::File { content: content.to_vec(), mode: OpenMode::Cached }
}

fn big(seed: u8, size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 4096) as u8 ^ seed).collect()
}

#[test]
fn stat_list_read_readlink() {
    let fs = Arc::new(MemoryFs::new(vec![
        ("hello", file(b"hello, world")),
        ("big", file(&big(1, 5_000_001))),
        ("direct", Body::File { content: big(2, 3_000_000), mode: OpenMode::Direct }),
        ("link", Body::Symlink(b"hello".to_vec())),
    ]));
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    let stat = fs::symlink_metadata(mounted.file("hello")).unwrap();
    assert_eq!((stat.len(), stat.ino(), stat.uid(), stat.gid()), (12, 1002, 12, 34));
    assert_eq!(stat.mode(), 0o100_644);
    assert_eq!(stat.modified().unwrap(), SystemTime::UNIX_EPOCH + Duration::new(1_600_000_000, 123_456_789));
    assert!(!stat.file_type().is_char_device());
    let mut names: Vec<_> = fs::read_dir(mounted.path())
        .unwrap()
        .map(|row| row.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["big", "direct", "hello", "link"]);
    assert_eq!(fs::read(mounted.file("hello")).unwrap(), b"hello, world");
    assert!(fs::read(mounted.file("big")).unwrap() == big(1, 5_000_001));
    assert!(fs::read(mounted.file("direct")).unwrap() == big(2, 3_000_000));
    assert_eq!(fs::read_link(mounted.file("link")).unwrap(), Path::new("hello"));
    assert_eq!(fs::read(mounted.file("link")).unwrap(), b"hello, world");
    let statfs = nix::sys::statvfs::statvfs(mounted.path()).unwrap();
    assert_eq!((statfs.blocks(), statfs.files(), statfs.name_max()), (1000, 77, 255));
    assert_eq!(statfs.files_free(), 7);
    assert_eq!(mounted.connection.device_number().map(u64::from), Some(nix::sys::stat::minor(stat.dev())));
    fs.await_seen("all files released", |seen| seen.open_handles.is_empty());
    eventually("nothing in flight", || session.in_flight() == 0);
}

#[test]
fn the_mount_is_read_only() {
    let fs = Arc::new(MemoryFs::new(vec![("hello", file(b"hello"))]));
    let (mounted, _session) = Mounted::serve(&fs, SessionConfig::default());
    assert_eq!(File::create(mounted.file("new")).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::remove_file(mounted.file("hello")).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    let append = File::options().append(true).open(mounted.file("hello"));
    assert_eq!(append.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    let statvfs = nix::sys::statvfs::statvfs(mounted.path()).unwrap();
    let flags = nix::sys::statvfs::FsFlags::ST_RDONLY | nix::sys::statvfs::FsFlags::ST_NOSUID;
    assert!(statvfs.flags().contains(flags));
}

#[test]
fn a_missing_name_is_asked_for_once() {
    let fs = Arc::new(MemoryFs::new(vec![]));
    let (mounted, _session) = Mounted::serve(&fs, SessionConfig::default());
    for _ in 0..3 {
        assert_eq!(fs::metadata(mounted.file("missing")).unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(fs.with_seen(|seen| seen.names_looked_up.len()), 1);
}

#[test]
fn a_kept_file_is_read_once() {
    let fs = Arc::new(MemoryFs::new(vec![("kept", file(&big(3, 2 << 20)))]));
    let (mounted, _session) = Mounted::serve(&fs, SessionConfig::default());
    assert!(fs::read(mounted.file("kept")).unwrap() == big(3, 2 << 20));
    let reads = fs.with_seen(|seen| seen.reads);
    assert!(reads <= 8, "2 MiB took {reads} reads: the readahead of 1 MiB is not in force");
    assert!(fs::read(mounted.file("kept")).unwrap() == big(3, 2 << 20));
    assert_eq!(fs.with_seen(|seen| seen.reads), reads);
}

#[test]
fn extended_attributes_have_sizes_and_values() {
    let fs = Arc::new(MemoryFs::new(vec![("hello", file(b"hello"))]));
    let (mounted, _session) = Mounted::serve(&fs, SessionConfig::default());
    let path = CString::new(mounted.file("hello").as_os_str().as_bytes()).unwrap();
    let get = |name: &str, buffer: &mut [u8]| {
        let name = CString::new(name).unwrap();
        // SAFETY: both names end with NUL, the buffer has the length given.
        let got = unsafe {
            libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
        };
        usize::try_from(got).map_err(|_| std::io::Error::last_os_error().raw_os_error().unwrap())
    };
    let mut buffer = [0; 64];
    assert_eq!(get("user.colour", &mut []), Ok(4));
    assert_eq!(get("user.colour", &mut buffer), Ok(4));
    assert_eq!(&buffer[..4], b"grey");
    assert_eq!(get("user.colour", &mut buffer[..3]), Err(libc::ERANGE));
    assert_eq!(get("user.size", &mut buffer), Err(libc::ENODATA));
    // SAFETY: the path ends with NUL, the buffer has the length given.
    let listed = unsafe { libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) };
    assert_eq!(&buffer[..usize::try_from(listed).unwrap()], b"user.colour\0user.shape\0");
}

#[test]
fn a_panic_or_a_lost_reply_is_eio_and_nothing_more() {
    let fs = Arc::new(MemoryFs::new(vec![
        ("panics", Body::Panicking),
        ("forgets", Body::Forgetful),
        ("hello", file(b"hello")),
    ]));
    let config = SessionConfig { threads: 1, ..SessionConfig::default() };
    let (mounted, session) = Mounted::serve(&fs, config);
    for _ in 0..3 {
        for name in ["panics", "forgets"] {
            assert_eq!(fs::read(mounted.file(name)).unwrap_err().raw_os_error(), Some(libc::EIO));
        }
    }
    assert_eq!(fs::read(mounted.file("hello")).unwrap(), b"hello");
    eventually("nothing in flight", || session.in_flight() == 0);
}

#[test]
fn many_readers_at_once_see_their_own_bytes() {
    let names: Vec<_> = (0..8).map(|n| format!("file{n}")).collect();
    let body = |n: u8| match n % 3 {
        0 => file(&big(n, 1_500_000)),
        1 => Body::File { content: big(n, 1_500_000), mode: OpenMode::Direct },
        _ => Body::Elsewhere { content: big(n, 1_500_000) },
    };
    let tree = names.iter().zip(0..).map(|(name, n)| (name.as_str(), body(n))).collect();
    let fs = Arc::new(MemoryFs::new(tree));
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    thread::scope(|scope| {
        for (name, n) in names.iter().zip(0..) {
            let path = mounted.file(name);
            scope.spawn(move || {
                let expected = big(n, 1_500_000);
                let file = File::open(path).unwrap();
                for at in (0..1_400_000).step_by(77_777) {
                    let mut buffer = vec![0; 60_000];
                    file.read_exact_at(&mut buffer, at as u64).unwrap();
                    assert!(buffer == expected[at..at + 60_000]);
                }
            });
        }
    });
    eventually("nothing in flight", || session.in_flight() == 0);
}

#[test]
fn the_kernel_offers_what_we_build_on() {
    let mounted = Mounted::new();
    let negotiated = mounted.connection.negotiated().unwrap();
    assert!(negotiated.abi >= (7, 31), "{negotiated:?}");
    assert!(negotiated.readdirplus, "{negotiated:?}");
    // Where the kernel tells the device number in fdinfo, it is the same.
    let fd = mounted.connection.try_clone().unwrap().into_fd();
    let adopted = Connection::from_fd(fd);
    eprintln!("{negotiated:?} {:?}", adopted.device_number());
    assert!(adopted.device_number().is_none_or(|number| Some(number) == mounted.connection.device_number()));
    assert!(mounted.connection.device_number().is_some());
}

#[test]
fn a_mount_that_cannot_be_says_why() {
    let error = Connection::mount(&MountOptions::new("/nonexistent/mountpoint", "test")).unwrap_err();
    assert!(matches!(error, fuse::MountError::Mount { .. }), "{error:?}");
    let mut options = MountOptions::new("/tmp", "test");
    options.subtype = "a,b".into();
    assert!(matches!(Connection::mount(&options), Err(fuse::MountError::Option(_))));
}

#[test]
fn the_way_of_ordinary_users_mounts_and_unmounts() {
    let directory = tempfile::tempdir().unwrap();
    let (connection, guard) =
        Connection::mount_unprivileged(&MountOptions::new(directory.path(), "test")).unwrap();
    let fs = Arc::new(MemoryFs::new(vec![("hello", file(b"hello"))]));
    fn start<F: FileSystem>(fs: &Arc<F>, connection: Connection) -> fuse::Session {
        fuse::Session::start(Arc::clone(fs), connection, SessionConfig::default()).unwrap()
    }
    let session = start(&fs, connection);
    assert_eq!(fs::read(directory.path().join("hello")).unwrap(), b"hello");
    drop(guard);
    session.wait();
    assert!(!directory.path().join("hello").exists());
}

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    for program in ["fusermount3", "unshare", "setpriv"] {
        if std::process::Command::new(program).arg("--version").output().is_err() {
            return eprintln!("skipped: there is no {program}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let (mountpoint, device) = (directory.path().join("mountpoint"), directory.path().join("fuse"));
    fs::create_dir(&mountpoint).unwrap();
    std::os::unix::fs::chown(&mountpoint, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let number = nix::sys::stat::makedev(10, 229);
    nix::sys::stat::mknod(&device, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), number).unwrap();
    fs::set_permissions(&device, fs::Permissions::from_mode(0o666)).unwrap();
    let output = roles::ordinary_user(&mountpoint, &device);
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("unmounted"), "{said}\n{complaint}");
}
