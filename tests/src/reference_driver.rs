//! The CSI driver on the reference backend, as a process of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::Running;
use crate::wait;

/// The password that its calls must carry.
pub const PASSWORD: &str = "sesame";

/// A running `reference-driver` with directories of its own.
pub struct ReferenceDriver {
    program: PathBuf,
    dir: TempDir,
    running: Option<Running>,
}

impl ReferenceDriver {
    /// Starts `program` and waits until its socket answers.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(program: &Path) -> ReferenceDriver {
        let dir = tempfile::Builder::new().prefix("reference-").tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join("kubelet")).expect("an empty directory takes entries");
        let mut driver = ReferenceDriver { program: program.to_owned(), dir, running: None };
        driver.launch();
        driver
    }

    /// Starts it (again).
    ///
    /// # Panics
    /// When it does not come up; the text has its log.
    pub fn launch(&mut self) {
        let mut command = Command::new(&self.program);
        command.args([self.socket(), self.path("data"), self.kubelet_dir()]).arg(PASSWORD);
        let mut running = Running::start(&mut command, &self.path("log"));
        let socket = self.socket();
        wait::until_true("the reference driver answers", || {
            assert!(running.ended().is_none(), "the reference driver ended:\n{}", self.log());
            UnixStream::connect(&socket).is_ok()
        });
        self.running = Some(running);
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// A path in its directory.
    pub fn path(&self, part: &str) -> PathBuf {
        self.dir.path().join(part)
    }

    /// Its CSI socket.
    pub fn socket(&self) -> PathBuf {
        self.path("csi.sock")
    }

    /// What it takes for kubelet's directory.
    pub fn kubelet_dir(&self) -> PathBuf {
        self.path("kubelet")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Where anything of its directory is mounted.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = host::mountinfo::MountTable::own().expect("the own mount table can be read");
        let below = table.entries().iter().filter(|entry| entry.mountpoint.starts_with(self.dir.path()));
        below.map(|entry| entry.mountpoint.clone()).collect()
    }

    /// Loop devices on its images.
    pub fn loop_devices(&self) -> Vec<String> {
        let listed =
            Command::new("losetup").args(["--noheadings", "--list", "--output", "NAME,BACK-FILE"]).output();
        let listed = listed.expect("losetup runs").stdout;
        let own = self.dir.path().to_string_lossy().into_owned();
        let lines = String::from_utf8_lossy(&listed).into_owned();
        let devices = lines.lines().filter(|line| line.contains(&own));
        devices.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    }
}

impl Drop for ReferenceDriver {
    fn drop(&mut self) {
        self.kill();
        for mountpoint in self.mounts().iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(mountpoint).output();
        }
        for device in self.loop_devices() {
            let _ = Command::new("losetup").args(["--detach", &device]).output();
        }
    }
}
