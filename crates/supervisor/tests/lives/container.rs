//! PID and mount namespaces of their own, as a container has them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::ground::{kill, wait_for};

/// A process with everything below it in namespaces of its own, as in a container: killing it kills all.
pub struct Container {
    outer: Child,
}

impl Container {
    pub fn start(propagation: &str, script: &str) -> Container {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", propagation]);
        let outer = command.args(["sh", "-ec", script]).stdin(Stdio::null()).spawn().unwrap();
        Container { outer }
    }

    /// The first process of its PID namespace, by its number here.
    pub fn first(&self) -> Option<i32> {
        let pid = self.outer.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    }

    /// The number here of a process with that number there.
    pub fn outside(&self, inside: i32) -> i32 {
        let own = namespace(self.first().unwrap());
        let mut pids = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let found = pids.find(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inner = inner.and_then(|line| line.split_whitespace().last()?.parse::<i32>().ok());
            inner == Some(inside) && namespace(*pid) == own
        });
        found.unwrap_or_else(|| panic!("no process {inside} in the container"))
    }

    /// Waits for its own end.
    pub fn ended_well(&mut self) {
        let ended = wait_for("the container's end", || self.outer.try_wait().unwrap());
        assert!(ended.success());
    }

    pub fn kill(&mut self) {
        // Not the outer one: what it has forked would stay.
        if let Some(first) = self.first() {
            kill(first);
        }
        self.outer.wait().unwrap();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.outer.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.kill();
        }
    }
}

fn namespace(pid: i32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}
