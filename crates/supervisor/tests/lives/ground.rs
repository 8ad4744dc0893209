//! What the tests stand on: directories, pools, readers in processes of their own, and the certainty that nothing
//! stays mounted.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use supervisor::{Limits, Pool, PoolConfig, Program, WorkerUser};
use tempfile::TempDir;
use volume::{Driver, LaunchRequest, MountKey, WorkerPool, WorkerReport};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Ground {
    pub directory: TempDir,
    pub runtime: tokio::runtime::Runtime,
    pub notify_socket: Option<PathBuf>,
    pub nursery: Option<PathBuf>,
    seen: RefCell<Vec<i32>>,
}

impl Ground {
    pub fn new() -> Ground {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["run", "mnt", "cache"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Ground { directory, runtime, notify_socket: None, nursery: None, seen: RefCell::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn mountpoint(&self) -> PathBuf {
        self.path("mnt")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.mountpoint().join(name)
    }

    pub fn key() -> MountKey {
        MountKey::new("test.example").unwrap()
    }

    pub fn config(&self) -> PoolConfig {
        PoolConfig {
            run_dir: self.path("run"),
            program: Program { path: std::env::current_exe().unwrap(), arguments: vec!["worker".into()] },
            user: Some(WorkerUser::find(None).unwrap()),
            nursery: self.nursery.clone(),
            notify_socket: self.notify_socket.clone().map(Into::into),
            limits: Limits {
                hang: Duration::from_secs(2),
                ask_every: Duration::from_secs(1),
                ..Limits::default()
            },
        }
    }

    pub fn pool(&self) -> Arc<Pool> {
        let pool = Pool::open(self.config(), Vec::new()).unwrap();
        self.runtime.block_on(pool.survivors(Driver::Cvmfs));
        pool
    }

    pub fn request(&self, payload: serde_json::Value) -> LaunchRequest {
        LaunchRequest {
            key: Ground::key(),
            driver: Driver::Cvmfs,
            mountpoint: self.mountpoint(),
            payload,
            writable: vec![self.path("cache/own")],
            readable: Vec::new(),
            suid: false,
            fs_name: "test.example".into(),
        }
    }

    pub fn launch(&self, pool: &Pool, payload: serde_json::Value) -> WorkerReport {
        let report = self.runtime.block_on(pool.launch(self.request(payload))).unwrap().report;
        self.seen.borrow_mut().push(report.pid);
        report
    }

    pub fn report(&self, pool: &Pool) -> Option<Result<WorkerReport, volume::Fault>> {
        self.runtime.block_on(pool.report(&Ground::key()))
    }

    pub fn stop(&self, pool: &Pool) -> Result<(), volume::Fault> {
        self.runtime.block_on(pool.stop(&Ground::key(), &self.mountpoint()))
    }

    /// Waits for a live worker with another pid.
    pub fn wait_for_successor(&self, pool: &Pool, of: i32) -> WorkerReport {
        wait_for("a new worker", || {
            self.report(pool).and_then(Result::ok).filter(|report| report.pid != of && report.pid != 0)
        })
    }

    pub fn is_mounted(&self) -> bool {
        let table = host::MountTable::own().unwrap();
        table.at(&self.mountpoint()).is_some()
    }

    /// A process that reads a whole file and prints it.
    pub fn reader(&self, name: &str) -> Child {
        Command::new("timeout")
            .args(["-s", "KILL", "20", "cat"])
            .arg(self.file(name))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn read(&self, name: &str) -> Output {
        self.reader(name).wait_with_output().unwrap()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // A worker that a failed test left stopped would hold the test's output open.
        for pid in self.seen.borrow().iter().filter(|pid| is_worker(**pid)) {
            kill(*pid);
        }
        let mountpoint = self.mountpoint();
        let Ok(table) = host::MountTable::own() else { return };
        while let Some(entry) = host::MountTable::own().ok().and_then(|table| table.at(&mountpoint).cloned())
        {
            let _ = host::mount::abort_fuse(entry.device.minor);
            if host::mount::detach(&mountpoint).is_err() {
                break;
            }
        }
        drop(table);
        let _ = Command::new("umount").args(["-R", "-l", "-q"]).arg(self.directory.path()).status();
    }
}

/// Whether the process is (still) a worker: pids are used again.
fn is_worker(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"volplane\0worker\0"))
}

pub fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn right_content(bytes: &[u8]) -> bool {
    bytes.len() as u64 == crate::memory::SIZE
        && bytes.iter().enumerate().all(|(offset, byte)| *byte == crate::memory::byte_at(offset as u64))
}

pub fn status_line(pid: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
