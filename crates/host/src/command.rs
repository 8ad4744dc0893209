//! The one door through which other programs are run: with a deadline, capped output, arguments that can be hidden
//! from the log, and the whole process group killed when it is over.
//!
//! It blocks the thread it runs on, for at most the deadline (and a second to reap): use [`crate::blocking::run`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How much of each output stream is kept, in bytes; the rest is read and dropped.
pub const OUTPUT_LIMIT: usize = 64 * 1024;

/// A program to run.
#[derive(Clone)]
pub struct Command {
    program: OsString,
    arguments: Vec<Argument>,
    environment: Vec<(OsString, OsString)>,
}

#[derive(Clone)]
enum Argument {
    Shown(OsString),
    Hidden(OsString),
}

/// What a program left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// At most [`OUTPUT_LIMIT`] bytes of its standard output.
    pub stdout: Vec<u8>,
    /// At most [`OUTPUT_LIMIT`] bytes of its standard error.
    pub stderr: Vec<u8>,
}

/// A program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("{command}: {source}")]
    Start {
        /// The program with its shown arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It ran too long; it and all processes of its group were killed.
    #[error("{command}: did not end within {} s and was killed", deadline.as_secs_f32())]
    Deadline {
        /// The program with its shown arguments.
        command: String,
        /// The bound.
        deadline: Duration,
    },
    /// Its output could not be read or its end not be waited for.
    #[error("{command}: {source}")]
    Io {
        /// The program with its shown arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The program with its arguments, for the log; hidden ones are shown as `***`.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.display())?;
        for argument in &self.arguments {
            match argument {
                Argument::Shown(text) => write!(f, " {}", text.display())?,
                Argument::Hidden(_) => write!(f, " ***")?,
            }
        }
        Ok(())
    }
}

impl Command {
    /// A program by its absolute path, or by a name that is looked up in our own PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Command { program: program.as_ref().to_owned(), arguments: Vec::new(), environment: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(Argument::Shown(argument.as_ref().to_owned()));
        self
    }

    /// Adds an argument that the log does not show. Other users see it in the process list all the same: never a secret.
    #[must_use]
    pub fn hidden_arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(Argument::Hidden(argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable. Beside these the program gets PATH alone, and `LC_ALL=C`.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Runs it to its end, or kills its process group at the deadline. A status other than success is no error here.
    pub fn run(&self, deadline: Duration) -> Result<Output, CommandError> {
        let end = Instant::now() + deadline;
        let started = Instant::now();
        let failed = |source| CommandError::Io { command: self.to_string(), source };
        let mut command = std::process::Command::new(&self.program);
        command.args(self.arguments.iter().map(|argument| match argument {
            Argument::Shown(text) | Argument::Hidden(text) => text,
        }));
        command.env_clear().env("LC_ALL", "C");
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child =
            command.spawn().map_err(|source| CommandError::Start { command: self.to_string(), source })?;
        let mut group = Group(child);
        let collected = collect(&mut group.0, end);
        group.kill();
        let status = group.0.wait().map_err(failed)?;
        let output = match collected.map_err(failed)? {
            Some((stdout, stderr)) => Ok(Output { status, stdout, stderr }),
            None => Err(CommandError::Deadline { command: self.to_string(), deadline }),
        };
        tracing::debug!(command = %self, %status, milliseconds = started.elapsed().as_millis(), "program ended");
        output
    }
}

/// The process group of a child that has not been reaped: its number cannot be anybody else's.
struct Group(Child);

impl Group {
    fn kill(&mut self) {
        // ESRCH: all have ended.
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            self.kill();
            let _ = self.0.wait();
        }
    }
}

type Streams = (Vec<u8>, Vec<u8>);

/// Reads both streams until the process ends; `None` at the deadline. A grandchild that keeps a stream open does not
/// hold it up.
fn collect(child: &mut Child, end: Instant) -> io::Result<Option<Streams>> {
    let process = pidfd(child.id())?;
    let mut streams = [
        Stream::new(child.stdout.take().map(OwnedFd::from))?,
        Stream::new(child.stderr.take().map(OwnedFd::from))?,
    ];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut waiting = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        waiting.extend(
            streams.iter().filter_map(|s| Some(PollFd::new(s.file.as_ref()?.as_fd(), PollFlags::POLLIN))),
        );
        match poll(&mut waiting, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = waiting.first().and_then(PollFd::any).unwrap_or(false);
        for stream in &mut streams {
            stream.drain()?;
        }
        if ended {
            let [stdout, stderr] = streams;
            return Ok(Some((stdout.kept, stderr.kept)));
        }
    }
}

struct Stream {
    file: Option<std::fs::File>,
    kept: Vec<u8>,
}

impl Stream {
    fn new(fd: Option<OwnedFd>) -> io::Result<Stream> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        if let Some(fd) = &fd {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Stream { file: fd.map(std::fs::File::from), kept: Vec::new() })
    }

    /// Reads what is there now, at most a megabyte at a time so that a flood cannot hold up the deadline.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..64 {
            let Some(file) = &mut self.file else { return Ok(()) };
            match file.read(&mut buffer) {
                Ok(0) => self.file = None,
                Ok(count) => {
                    let room = OUTPUT_LIMIT.saturating_sub(self.kept.len());
                    self.kept.extend(buffer.iter().take(count.min(room)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call with two plain numbers; the answer is a new descriptor or -1.
    let answer = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made by the kernel for us, and owned nowhere else.
    Ok(unsafe { OwnedFd::from_raw_fd(answer as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        Command::new("/bin/sh").arg("-c").arg(script)
    }

    #[test]
    fn output_and_status_come_back() {
        let output = shell("echo out; echo err >&2; exit 3").run(LONG).unwrap();
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_flood_is_capped() {
        let output = shell("head -c 3000000 /dev/zero").run(LONG).unwrap();
        assert_eq!(output.stdout.len(), OUTPUT_LIMIT);
        assert!(output.status.success());
    }

    #[test]
    fn the_whole_group_is_killed_at_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
        let error = shell(&script).run(Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, CommandError::Deadline { .. }), "{error}");
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let end = Instant::now() + LONG;
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        while state().contains(") S") {
            assert!(Instant::now() < end, "the grandchild lives");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_grandchild_that_keeps_the_pipe_does_not_hold_it_up() {
        let started = Instant::now();
        shell("sleep 1000 & exit 0").run(LONG).unwrap();
        assert!(started.elapsed() < LONG);
    }

    #[test]
    fn hidden_arguments_are_not_shown_and_the_environment_is_clean() {
        let command = shell("echo $1$HOME$X").arg("sh").hidden_arg("token").env("X", "x");
        assert_eq!(command.to_string(), "/bin/sh -c echo $1$HOME$X sh ***");
        assert_eq!(command.run(LONG).unwrap().stdout, b"tokenx\n");
        let error = Command::new("/nonexistent/program").run(LONG).unwrap_err();
        assert!(matches!(error, CommandError::Start { .. }));
    }
}
