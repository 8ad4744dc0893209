//! A repository, its web server, and a daemon with directories of its own; all ended and unmounted when dropped.

use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_volplane");
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Ground {
    directory: TempDir,
    config_file: String,
    server: Child,
    content: Vec<u8>,
    notify: Option<UnixDatagram>,
}

/// A daemon that is killed when dropped.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn end(&mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        let child = &mut self.0;
        wait_for("the daemon's end", || child.try_wait().unwrap());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Ground {
    pub(crate) const NAME: &str = "sw.example.org";

    pub(crate) fn new() -> Option<Ground> {
        if !nix::unistd::Uid::effective().is_root() || !Path::new("/dev/fuse").exists() {
            println!("skipped: needs root and /dev/fuse");
            return None;
        }
        let directory = TempDir::with_prefix("volplane-").unwrap();
        let path = |name: &str| directory.path().join(name);
        let content: Vec<u8> =
            (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::create_dir_all(path("src/sub")).unwrap();
        std::fs::write(path("src/a.txt"), "hello\n").unwrap();
        std::fs::write(path("src/sub/big"), &content).unwrap();
        let mut publish = Command::new(BINARY);
        publish.args(["cvmfs", "publish", Self::NAME]).arg(path("src")).arg("--quiet");
        publish.arg("--repository-dir").arg(path("www/sw.example.org")).arg("--keys-dir").arg(path("keys"));
        assert!(publish.status().unwrap().success());
        let mut serve = Command::new(BINARY);
        serve
            .args(["cvmfs", "serve"])
            .arg(path("www"))
            .args(["--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped());
        let mut server = serve.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        let keys = path("etc/keys/example.org");
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::copy(path("keys/sw.example.org.pub"), keys.join("sw.example.org.pub")).unwrap();
        let settings = format!(
            "CVMFS_SERVER_URL={url}@fqrn@\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_KEYS_DIR={}\nCVMFS_REPOSITORIES={}\n",
            keys.display(),
            Self::NAME
        );
        std::fs::write(path("etc/default.local"), settings).unwrap();
        let show = |name: &str| path(name).display().to_string();
        let config = format!(
            "state_dir = \"{}\"\nrun_dir = \"{}\"\n[docker]\nsocket_dir = \"{}\"\n[cvmfs]\nconfig_dir = \"{}\"\n\
             cache_dir = \"{}\"\n",
            show("state"),
            show("run"),
            show("plugins"),
            show("etc"),
            show("cache")
        );
        std::fs::write(path("volplane.toml"), config).unwrap();
        let config_file = show("volplane.toml");
        Some(Ground { directory, config_file, server, content, notify: None })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config_file(&self) -> &str {
        &self.config_file
    }

    pub(crate) fn add_config(&self, text: &str) {
        File::options().append(true).open(&self.config_file).unwrap().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn daemon_command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--config", &self.config_file]).args(more).stdin(Stdio::null());
        command
    }

    /// Starts a daemon and waits until it answers.
    pub(crate) fn start_daemon(&self, more: &[&str]) -> Daemon {
        self.start(self.daemon_command(more))
    }

    /// Starts a daemon with a descriptor from the store, inherited by its number, as fd 3.
    pub(crate) fn start_daemon_with(&self, fd: i32, name: &str) -> Daemon {
        let mut command = Command::new("sh");
        let script =
            "exec 3<&$4; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=$1 exec \"$2\" serve --config \"$3\"";
        command
            .args(["-c", script, "sh", name, BINARY, &self.config_file, &fd.to_string()])
            .stdin(Stdio::null());
        let daemon = self.start(command);
        nix::unistd::close(fd).unwrap();
        daemon
    }

    fn start(&self, mut command: Command) -> Daemon {
        let log = File::options().append(true).create(true).open(self.path("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log).env_remove("NOTIFY_SOCKET");
        if self.notify.is_some() {
            command.env("NOTIFY_SOCKET", self.path("notify.sock"));
        }
        let mut daemon = Daemon(command.spawn().unwrap());
        wait_for("the daemon", || {
            assert!(daemon.0.try_wait().unwrap().is_none(), "the daemon ended: {}", self.log());
            self.cli(&["status"]).ok()
        });
        daemon
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Creates and mounts the volume through the plugin socket.
    pub(crate) fn mount(&self, id: &str) {
        let created = self.plugin("VolumeDriver.Create", &format!(r#"{{"Name":"{}"}}"#, Self::NAME));
        assert!(created.contains(r#""Err":"""#), "{created}");
        let mounted =
            self.plugin("VolumeDriver.Mount", &format!(r#"{{"Name":"{}","ID":"{id}"}}"#, Self::NAME));
        assert!(mounted.contains(self.mountpoint().to_str().unwrap()), "{mounted}\n{}", self.log());
    }

    pub(crate) fn plugin(&self, call: &str, body: &str) -> String {
        http(&self.path("plugins/cvmfs.sock"), "POST", &format!("/{call}"), body)
    }

    pub(crate) fn mountpoint(&self) -> PathBuf {
        self.path("run/mounts").join(Self::NAME)
    }

    pub(crate) fn is_mounted(&self) -> bool {
        host::MountTable::own().unwrap().at(&self.mountpoint()).is_some()
    }

    /// Reads in another process, with a deadline.
    fn read(&self) -> Output {
        let file = self.mountpoint().join("sub/big");
        Command::new("timeout").args(["-s", "KILL", "20", "cat"]).arg(file).output().unwrap()
    }

    pub(crate) fn content_is_right(&self) -> bool {
        self.read().stdout == self.content
    }

    /// A process that goes on looking at the mount for a second and fails at the first error.
    pub(crate) fn slow_reader(&self) -> Child {
        let script = "cd \"$1\" && for i in 1 2 3 4 5 6 7 8 9 10; do cksum sub/big >/dev/null && ls >/dev/null || exit 1; sleep 0.1; done";
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "20", "sh", "-c", script, "sh"]).arg(self.mountpoint()).spawn().unwrap()
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.cli(&["status", "--json"]).unwrap()).unwrap()
    }

    /// Pid of the worker; 0 while it is being replaced.
    pub(crate) fn worker(&self) -> i32 {
        let pid = &self.status()["mounts"][0]["worker_pid"];
        i32::try_from(pid.as_i64().unwrap_or(0)).unwrap()
    }

    /// Runs the binary; the exit code and stderr on failure.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, (i32, String)> {
        let output = Command::new(BINARY).args(arguments).output().unwrap();
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout).unwrap());
        }
        Err((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// The same, with this daemon.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String, (i32, String)> {
        let run_dir = self.path("run").display().to_string();
        let mut all = arguments.to_vec();
        all.extend(["--run-dir", &run_dir]);
        self.run(&all)
    }

    /// From now on daemons are told of a service manager with an fd store.
    pub(crate) fn keep_descriptors(&mut self) {
        let socket = UnixDatagram::bind(self.path("notify.sock")).unwrap();
        std::fs::set_permissions(self.path("notify.sock"), Permissions::from_mode(0o600)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.notify = Some(socket);
    }

    /// Number and name of the next descriptor that is stored; child processes inherit it.
    pub(crate) fn stored_descriptor(&self) -> (String, i32) {
        use std::os::fd::AsRawFd;
        let socket = self.notify.as_ref().unwrap();
        loop {
            let mut bytes = [0u8; 4096];
            let mut space = nix::cmsg_space!([i32; 1]);
            let mut slices = [std::io::IoSliceMut::new(&mut bytes)];
            let flags = nix::sys::socket::MsgFlags::empty();
            let message =
                nix::sys::socket::recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)
                    .unwrap();
            let fds: Vec<i32> = message
                .cmsgs()
                .unwrap()
                .filter_map(|control| match control {
                    nix::sys::socket::ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                })
                .collect();
            let length = message.bytes;
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if let (Some(fd), Some(name)) =
                (fds.first(), text.lines().find_map(|line| line.strip_prefix("FDNAME=")))
            {
                return (name.to_owned(), *fd);
            }
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log\n{}", self.log());
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
        for _ in 0..16 {
            let Ok(table) = host::MountTable::own() else { return };
            let ours = |entry: &&host::MountEntry| entry.mountpoint.starts_with(self.directory.path());
            let Some(entry) = table.entries().iter().rev().find(ours) else { return };
            // Without the daemon the worker ends with its mount.
            let _ = host::mount::abort_fuse(entry.device.minor);
            let _ = host::mount::detach(&entry.mountpoint);
        }
    }
}

pub(crate) fn http(socket: &Path, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn kill(pid: i32) {
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
