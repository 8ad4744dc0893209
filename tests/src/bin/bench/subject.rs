//! Who is measured: volplane through a daemon of its own, the published crate `cvmfs`, and the plain tree on a disk.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use system_tests::daemon::{Daemon, Scene};
use system_tests::process::{self, Running};
use system_tests::wait;

/// The repository's name.
pub(crate) const REPO: &str = "bench.example.org";

/// What there is to mount.
///
/// Caches are kept until the end: ext4 does not give out the inodes of files that were deleted in the last minutes, and looks
/// at each of them in vain when the next cache is filled.
pub(crate) struct Repository {
    /// URL of the repository on a loopback server.
    pub(crate) url: String,
    /// Its public master key.
    pub(crate) key: PathBuf,
    /// The plain tree.
    pub(crate) plain: PathBuf,
    /// Places of former measurements.
    pub(crate) used: RefCell<Vec<Scene>>,
}

/// Somebody who shows the tree.
pub(crate) trait Subject {
    /// Shows the tree from a fresh cache, calls `work` with its root and the milliseconds that mounting took, and takes
    /// everything away again.
    fn fresh(&self, work: &mut dyn FnMut(&Path, f64)) -> Result<(), String>;
}

/// The plain tree: nothing to mount.
pub(crate) struct Plain<'a>(pub(crate) &'a Repository);

impl Subject for Plain<'_> {
    fn fresh(&self, work: &mut dyn FnMut(&Path, f64)) -> Result<(), String> {
        work(&self.0.plain, 0.0);
        Ok(())
    }
}

/// volplane, mounted with `volplane mount` through a daemon.
pub(crate) struct Volplane<'a>(pub(crate) &'a Repository);

impl Volplane<'_> {
    /// A daemon of its own with an empty cache.
    pub(crate) fn with_daemon(&self, work: &mut dyn FnMut(&Scene, &Daemon<'_>)) {
        self.with_settings(&|_| Vec::new(), work);
    }

    /// The same with further arguments of `volplane serve`.
    pub(crate) fn with_settings(
        &self,
        arguments: &dyn Fn(&Scene) -> Vec<String>,
        work: &mut dyn FnMut(&Scene, &Daemon<'_>),
    ) {
        let scene = Scene::new();
        scene.configure(REPO, &self.0.url, &self.0.key, "");
        let arguments = arguments(&scene);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let daemon = Daemon::start_with(&scene, &arguments);
        work(&scene, &daemon);
        drop(daemon);
        self.0.used.borrow_mut().push(scene);
    }
}

/// `volplane mount`, timed from outside, in milliseconds with the start of the program.
pub(crate) fn mount(daemon: &Daemon<'_>, target: &Path) -> f64 {
    let begun = Instant::now();
    process::run(daemon.command(&["mount", REPO]).arg(target));
    begun.elapsed().as_secs_f64() * 1e3
}

/// `volplane umount`, and the end of the worker.
pub(crate) fn unmount(daemon: &Daemon<'_>, target: &Path) {
    process::run(daemon.command(&["umount"]).arg(target));
    wait::until_true("the mount goes with its last user", || daemon.mount(REPO).is_none());
}

impl Subject for Volplane<'_> {
    fn fresh(&self, work: &mut dyn FnMut(&Path, f64)) -> Result<(), String> {
        self.with_daemon(&mut |scene, daemon| {
            let target = scene.path("tree");
            let _ = fs::create_dir(&target);
            let milliseconds = mount(daemon, &target);
            work(&target, milliseconds);
            unmount(daemon, &target);
        });
        Ok(())
    }
}

/// The published crate `cvmfs`: its program `cvmfs-cli URL MOUNTPOINT CACHE`.
pub(crate) struct Peer<'a> {
    /// What to mount.
    pub(crate) repository: &'a Repository,
    /// The program.
    pub(crate) program: PathBuf,
}

impl Subject for Peer<'_> {
    fn fresh(&self, work: &mut dyn FnMut(&Path, f64)) -> Result<(), String> {
        let scene = Scene::new();
        let (target, cache, log) = (scene.path("tree"), scene.path("peer-cache"), scene.path("log/peer"));
        for directory in [&target, &cache] {
            fs::create_dir_all(directory).map_err(|error| error.to_string())?;
        }
        let begun = Instant::now();
        let mut running = Running::start(
            Command::new(&self.program).arg(&self.repository.url).arg(&target).arg(&cache),
            &log,
        );
        while connection(&target).is_none() {
            if running.ended().is_some() || begun.elapsed() > wait::LONG {
                return Err(format!("cvmfs-cli does not mount: {}", scene.log("peer")));
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        work(&target, milliseconds);
        let _ = Command::new("umount").arg("-l").arg(&target).status();
        running.kill();
        self.repository.used.borrow_mut().push(scene);
        Ok(())
    }
}

/// The number of the FUSE connection mounted at a path (or below it, for the daemon's own place).
pub(crate) fn connection(target: &Path) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().rev().find_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let here = fields.get(4).is_some_and(|place| Path::new(place) == target) && line.contains(" - fuse");
        here.then(|| fields.get(2)?.split_once(':').map(|(_, minor)| minor.to_owned())).flatten()
    })
}

/// A number of `/proc/PID/status`, such as `VmRSS` (KiB) or `Threads`.
pub(crate) fn of_process(pid: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// One call to the Docker plugin socket, as the engine makes it: milliseconds and the answer.
pub(crate) fn docker_call(socket: &Path, call: &str, body: &str) -> Result<(f64, String), String> {
    let begun = Instant::now();
    let exchange = || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(wait::LONG))?;
        write!(
            stream,
            "POST /VolumeDriver.{call} HTTP/1.1\r\nHost: plugin\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| format!("{call}: {error}"))?;
    let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
    if answer.starts_with("HTTP/1.1 200") {
        Ok((milliseconds, answer))
    } else {
        Err(format!("{call}: {answer}"))
    }
}
