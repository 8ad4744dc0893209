//! Workers are killed again and again under readers, who notice nothing.
//!
//! The worker and the readers are processes of their own: this test's binary, told by its environment what to be. The parent
//! holds the connection and no file of the mount, as the daemon does.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmfs::payload::{AllSetup, Kind, Owner, Payload};
use cvmfs::worker::{self, ServeContext};
use fuse::{Connection, DeviceBackings, MountOptions};

use crate::can_mount;
use crate::harness::{Watchdog, wait_until};
use crate::published::{Published, noise};

const ROLE: &str = "CVMFS_TEST_ROLE";
const DIRECTORY: &str = "CVMFS_TEST_DIRECTORY";
const MANY: usize = 1500;

fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY).unwrap().into()
}

/// Not a test of its own: what the child processes run.
#[test]
fn role() {
    match std::env::var(ROLE).as_deref() {
        Ok("worker") => serve(false),
        Ok("adopter") => serve(true),
        Ok("reader") => read(),
        _ => {}
    }
}

pub(crate) fn child(role: &str, directory: &Path, stdin: Stdio) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "adoption::role", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(DIRECTORY, directory)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn serve(adopted: bool) {
    let payload = std::fs::read(directory().join("payload.json")).unwrap();
    let prepared = worker::prepare(serde_json::from_slice(&payload).unwrap(), adopted).unwrap();
    let connection = Connection::from_fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let backings = Arc::new(DeviceBackings::new(connection.try_clone().unwrap()));
    let state = File::options().read(true).write(true).open(directory().join("state")).unwrap();
    let serving = prepared.serve(ServeContext { connection, adopted, state, backings }).unwrap();
    println!("\nSERVING");
    serving.wait();
}

/// Reads everything in many ways until told to stop; one wrong byte or error ends it with a panic.
fn read() {
    let directory = directory();
    let mount = directory.join("mount");
    let names: BTreeSet<String> = (0..MANY).map(|n| format!("name-{n:04}")).collect();
    let large = noise(100, 700 << 10);
    let chunked = noise(200, 3 << 20);
    // Held open over all deaths.
    let held = File::open(mount.join("large")).unwrap();
    let held_chunked = File::open(mount.join("chunked")).unwrap();
    let mut rounds = 0_u64;
    while !directory.join("stop").exists() {
        rounds += 1;
        let n = rounds % 40;
        let small = std::fs::read(mount.join(format!("small/{n}"))).unwrap();
        assert_eq!(small, noise(n, 2000));
        let mut bytes = vec![0; 10_000];
        let at = (rounds * 7919) % (600 << 10);
        held.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, large[at as usize..at as usize + 10_000]);
        let at = (rounds * 104_729) % (2 << 20);
        held_chunked.read_exact_at(&mut bytes, at).unwrap();
        assert_eq!(bytes, chunked[at as usize..at as usize + 10_000]);
        assert_eq!(std::fs::read(mount.join("large")).unwrap(), large);
        let mut whole = Vec::new();
        File::open(mount.join("chunked")).unwrap().read_to_end(&mut whole).unwrap();
        assert!(whole == chunked);
        let mut seen = BTreeSet::new();
        for entry in std::fs::read_dir(mount.join("many")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(seen.insert(name.clone()), "{name} twice");
        }
        assert_eq!(seen, names);
        assert_eq!(std::fs::read_link(mount.join("link")).unwrap(), Path::new("small/1"));
        let output = Command::new(mount.join("bin/true")).status().unwrap();
        assert!(output.success());
    }
    println!("\nREAD {rounds}");
}

/// Waits for a line of the child's, and returns it.
pub(crate) fn line(child: &mut Child, beginning: &str) -> Option<String> {
    let output = BufReader::new(child.stdout.as_mut().unwrap());
    output.lines().map_while(Result::ok).find(|line| line.starts_with(beginning))
}

/// Kills what is left when a test panics.
pub(crate) struct Children(pub(crate) Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A directory with what a worker needs, and a mount in it that nobody serves yet.
pub(crate) fn mount_for(payload: Vec<u8>) -> (tempfile::TempDir, Connection, Watchdog) {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().join("mount");
    std::fs::create_dir(&mount).unwrap();
    File::create(directory.path().join("state")).unwrap();
    std::fs::write(directory.path().join("payload.json"), payload).unwrap();
    let connection = Connection::mount(&MountOptions::new(&mount, "own")).unwrap();
    (directory, connection, Watchdog(mount))
}

/// Reads in a process of its own, which a dead server may hold up.
fn cat(path: &Path) -> Vec<u8> {
    Command::new("timeout").args(["-s", "KILL", "20", "cat"]).arg(path).output().unwrap().stdout
}

#[test]
fn a_revision_that_comes_while_no_worker_lives_is_seen() {
    if !can_mount() {
        return;
    }
    let published = Published::new();
    published.write("file", "one");
    published.write("sub/.cvmfscatalog", "");
    published.write("sub/file", "one");
    published.publish();
    let (directory, connection, watchdog) =
        mount_for(serde_json::to_vec(&published.setup().payload()).unwrap());
    let mount = watchdog.0.clone();
    let device = || Stdio::from(connection.try_clone().unwrap().into_fd());
    let mut worker = Children(vec![child("worker", directory.path(), device())]);
    line(&mut worker.0[0], "SERVING").expect("the first worker serves");
    // The kernel keeps these for an hour.
    assert_eq!(cat(&mount.join("file")), b"one");
    assert_eq!(cat(&mount.join("sub/file")), b"one");
    assert_eq!(cat(&mount.join("added")), b"");
    worker.0[0].kill().unwrap();
    worker.0[0].wait().unwrap();
    published.write("file", "two");
    published.write("sub/file", "two");
    published.write("added", "two");
    published.publish();
    worker.0[0] = child("adopter", directory.path(), device());
    line(&mut worker.0[0], "SERVING").expect("the next worker serves");
    for path in ["file", "sub/file", "added"] {
        wait_until(path, || cat(&mount.join(path)) == b"two");
    }
}

#[test]
fn readers_notice_no_death_of_a_worker() {
    if !can_mount() {
        return;
    }
    let published = Published::new();
    for n in 0..40 {
        published.write(&format!("small/{n}"), noise(n, 2000));
    }
    for n in 0..MANY {
        published.write(&format!("many/name-{n:04}"), "x");
    }
    published.write("large", noise(100, 700 << 10));
    published.write("chunked", noise(200, 3 << 20));
    std::os::unix::fs::symlink("small/1", published.tree().join("link")).unwrap();
    std::fs::create_dir_all(published.tree().join("bin")).unwrap();
    std::fs::copy("/bin/true", published.tree().join("bin/true")).unwrap();
    published.publish();

    let (directory, connection, _watchdog) =
        mount_for(serde_json::to_vec(&published.setup().payload()).unwrap());
    let device = || Stdio::from(connection.try_clone().unwrap().into_fd());

    let mut worker = Children(vec![child("worker", directory.path(), device())]);
    line(&mut worker.0[0], "SERVING").expect("the first worker serves");
    let mut readers = Children((0..4).map(|_| child("reader", directory.path(), Stdio::null())).collect());
    let begun = Instant::now();
    let mut deaths = 0;
    while begun.elapsed() < Duration::from_secs(12) || deaths < 20 {
        // A pause of changing length, so that death comes at different moments; not a synchronisation.
        std::thread::sleep(Duration::from_millis(20 + (deaths * 37) % 400));
        worker.0[0].kill().unwrap();
        worker.0[0].wait().unwrap();
        deaths += 1;
        worker.0[0] = child("adopter", directory.path(), device());
        line(&mut worker.0[0], "SERVING").expect("the next worker serves");
        for reader in &mut readers.0 {
            assert!(reader.try_wait().unwrap().is_none(), "a reader gave up after {deaths} deaths");
        }
    }
    File::create(directory.path().join("stop")).unwrap();
    let mut rounds = 0;
    for reader in &mut readers.0 {
        let line = line(reader, "READ ").expect("a reader that saw no error");
        rounds += line[5..].parse::<u64>().unwrap();
        assert!(reader.wait().unwrap().success());
    }
    println!("{deaths} deaths, {rounds} rounds of reading");
    assert!(rounds > 4);
}

#[test]
fn a_worker_takes_over_without_any_server() {
    if !can_mount() {
        return;
    }
    let mut published = Published::new();
    published.write("file", "content");
    published.write("large", noise(5, 500 << 10));
    published.write("sub/.cvmfscatalog", "");
    published.write("sub/file", "content");
    published.publish();
    let config = published.directory.path().join("config");
    std::fs::create_dir_all(config.join("config.d")).unwrap();
    let url = published.server.as_ref().unwrap().url("cvmfs/@fqrn@");
    let key = published.directory.path().join("key.pub");
    let text = format!("CVMFS_SERVER_URL={url}\nCVMFS_PUBLIC_KEY={}\n", key.display());
    std::fs::write(config.join("config.d/own.example.org.conf"), text).unwrap();
    let all = Payload {
        kind: Kind::All(AllSetup {
            config_dir: config,
            overrides: volume::OptionMap::new(),
            master_keys: Vec::new(),
            configured: Vec::new(),
        }),
        cache_dir: published.setup().cache,
        deadline_ms: 3000,
        owner: Owner { uid: 0, gid: 0 },
    };
    let one = serde_json::to_vec(&published.setup().payload()).unwrap();
    let mut mounts = Vec::new();
    for (payload, below) in [(one, ""), (serde_json::to_vec(&all).unwrap(), "own.example.org")] {
        let (directory, connection, watchdog) = mount_for(payload);
        let root = watchdog.0.join(below);
        let device = Stdio::from(connection.try_clone().unwrap().into_fd());
        let mut worker = Children(vec![child("worker", directory.path(), device)]);
        line(&mut worker.0[0], "SERVING").expect("the first worker serves");
        for path in ["file", "sub/file"] {
            assert_eq!(cat(&root.join(path)), b"content");
        }
        assert!(cat(&root.join("large")) == noise(5, 500 << 10));
        mounts.push((directory, connection, watchdog, root, worker));
    }
    published.server = None;
    for (directory, connection, _watchdog, root, worker) in &mut mounts {
        worker.0[0].kill().unwrap();
        worker.0[0].wait().unwrap();
        let device = Stdio::from(connection.try_clone().unwrap().into_fd());
        worker.0[0] = child("adopter", directory.path(), device);
        line(&mut worker.0[0], "SERVING").expect("the next worker serves");
        drop_kernel_caches();
        for path in ["file", "sub/file"] {
            assert_eq!(cat(&root.join(path)), b"content", "{root:?} {path}");
        }
        assert!(cat(&root.join("large")) == noise(5, 500 << 10));
        let listed = Command::new("ls").arg(&*root).output().unwrap();
        assert_eq!(listed.stdout, b"file\nlarge\nsub\n");
    }
}

/// Has the kernel forget what it can, so that the worker is asked again.
pub(crate) fn drop_kernel_caches() {
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "3");
}
