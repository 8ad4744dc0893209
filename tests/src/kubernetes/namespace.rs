//! Namespaces that hold a whole node, and programs in them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::process::Running;
use crate::wait;

/// Mount, process and network namespaces with a first process; all in them ends when this is dropped.
pub struct Namespace {
    unshare: Running,
    /// Process id, outside, of the first process.
    first: u32,
    search: OsString,
}

impl Namespace {
    /// Runs `tests/kubernetes-current/node` for the directory `dir` and waits until it is done with its preparations.
    ///
    /// # Panics
    /// When it does not get there; the text has its output.
    pub fn start(dir: &Path, programs: &Path) -> Namespace {
        let ready = dir.join("run/ready");
        let _ = fs::remove_file(&ready);
        let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("kubernetes-current/node");
        let log = dir.join("run/node.log");
        // The test may be killed itself: then the kernel ends this process and with it the namespace.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "-mpnf", "--kill-child", "--mount-proc"]);
        let mut unshare = Running::start(command.arg(node).arg(dir), &log);
        wait::until_true("the node's namespace is ready", || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(unshare.ended().is_none(), "the node's first process ended: {said}");
            ready.exists()
        });
        let first = child_of(unshare.pid()).expect("unshare waits for its child");
        let search = std::env::var_os("PATH").unwrap_or_default();
        let places = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&search));
        let search = std::env::join_paths(places).expect("no directory has a colon in its name");
        Namespace { unshare, first, search }
    }

    /// A command that runs inside.
    pub fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.first.to_string(), "-m", "-p", "-n", "--"]).args(line);
        command.env("PATH", &self.search);
        command
    }

    /// Starts a program inside with its output in `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_program(&self, line: &[String], environment: &[(&str, &str)], log: &Path) -> Inside {
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let mut command = self.command(&line);
        command.envs(environment.iter().copied());
        let outer = Running::start(&mut command, log);
        let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Inside { outer, pid: None, name }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.unshare.kill();
        // Its child was killed with it; the namespace is gone when that process is.
        let first = PathBuf::from(format!("/proc/{}", self.first));
        wait::until_true("the node's first process is gone", || !first.exists());
    }
}

/// A program in a namespace, killed when dropped.
pub struct Inside {
    /// `nsenter`, which waits for the program and ends as it does.
    outer: Running,
    pid: Option<u32>,
    name: String,
}

impl Inside {
    /// The name of its log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.outer.ended()
    }

    /// The program's process id as seen from outside; `None` once it has ended.
    pub fn pid(&mut self) -> Option<u32> {
        if self.pid.is_none() {
            self.pid = wait::until("nsenter has started the program", || {
                if self.outer.ended().is_some() { Some(None) } else { child_of(self.outer.pid()).map(Some) }
            });
        }
        self.pid
    }

    /// Kills it with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        if self.outer.ended().is_none()
            && let Some(pid) = self.pid()
        {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).output();
            self.outer.wait();
        }
    }

    /// Asks it to end (SIGTERM) and waits until it did.
    pub fn stop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).output();
            self.outer.wait();
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The first child of a process with one thread.
fn child_of(pid: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
