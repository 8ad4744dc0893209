//! File descriptors that the service manager handed over: listening sockets and the fd store
//! (protocol: sd_listen_fds_with_names(3)).
//!
//! They are numbers in the environment, so taking them can be sound only once in a process's life and before anything
//! else could have used those numbers; [`take`] holds both rules.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The first number that is used.
const FIRST: RawFd = 3;

/// More than systemd's own bound for one service's store that we ask for; a larger number is a mistake.
const LIMIT: usize = 4096;

/// The environment variables of the protocol. Child processes must not inherit them.
pub const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

static TAKEN: AtomicBool = AtomicBool::new(false);

/// A descriptor with the name it was stored or configured under (`unknown` if it had none). Names may repeat.
#[derive(Debug)]
pub struct InheritedFd {
    /// At most 255 characters; the rule for what it means is the storer's.
    pub name: String,
    /// Close-on-exec is set.
    pub fd: OwnedFd,
}

/// Why the descriptors cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InheritedError {
    /// A variable has not the form of the protocol.
    #[error("environment variable {variable} has the value {value:?}, which is not of the protocol")]
    Variable {
        /// Which.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// Number of names and of descriptors differ.
    #[error("LISTEN_FDNAMES has {names} names for {fds} descriptors")]
    Names {
        /// How many names.
        names: usize,
        /// How many descriptors.
        fds: usize,
    },
    /// A descriptor that was announced is not open.
    #[error("descriptor {0} was announced by LISTEN_FDS but is not open")]
    Closed(RawFd),
    /// It was called before in this process.
    #[error("inherited descriptors were taken before")]
    TakenBefore,
}

/// Takes all descriptors meant for this process; empty if there are none. Works once.
///
/// Call it first thing in `main`, before any file is opened.
pub fn take() -> Result<Vec<InheritedFd>, InheritedError> {
    let variable = |name: &str| std::env::var(name).ok();
    let names = match announced(variable, std::process::id())? {
        names if names.is_empty() => return Ok(Vec::new()),
        names => names,
    };
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Err(InheritedError::TakenBefore);
    }
    let numbers = FIRST..FIRST + names.len() as RawFd;
    for number in numbers.clone() {
        // SAFETY: only looked at; a number that is not open gives EBADF.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
        fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|_| InheritedError::Closed(number))?;
    }
    let own = |(number, name)| {
        // SAFETY: open (checked above), announced as ours for this very process id, and owned once: TAKEN was false.
        InheritedFd { name, fd: unsafe { OwnedFd::from_raw_fd(number) } }
    };
    Ok(numbers.zip(names).map(own).collect())
}

/// The names of all descriptors announced to process `pid`.
fn announced(variable: impl Fn(&str) -> Option<String>, pid: u32) -> Result<Vec<String>, InheritedError> {
    let bad =
        |variable: &'static str, value: &str| InheritedError::Variable { variable, value: value.to_owned() };
    let (Some(for_pid), Some(count)) = (variable("LISTEN_PID"), variable("LISTEN_FDS")) else {
        return Ok(Vec::new());
    };
    if for_pid.parse::<u32>().map_err(|_| bad("LISTEN_PID", &for_pid))? != pid {
        // Inherited from a parent for whom they were meant.
        return Ok(Vec::new());
    }
    let fds =
        count.parse::<usize>().ok().filter(|fds| *fds <= LIMIT).ok_or_else(|| bad("LISTEN_FDS", &count))?;
    let names: Vec<String> = match variable("LISTEN_FDNAMES") {
        Some(names) if fds > 0 => names.split(':').map(str::to_owned).collect(),
        _ => vec!["unknown".to_owned(); fds],
    };
    if names.len() != fds {
        return Err(InheritedError::Names { names: names.len(), fds });
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pid: &str, fds: &str, names: Option<&str>) -> Result<Vec<String>, InheritedError> {
        let look = |name: &str| match name {
            "LISTEN_PID" => Some(pid.to_owned()),
            "LISTEN_FDS" => Some(fds.to_owned()),
            _ => names.map(str::to_owned),
        };
        announced(look, 42)
    }

    #[test]
    fn names_belong_to_descriptors_in_order() {
        assert_eq!(
            names("42", "3", Some("docker:mount-a:mount-a")).unwrap(),
            ["docker", "mount-a", "mount-a"]
        );
        assert_eq!(names("42", "2", None).unwrap(), ["unknown", "unknown"]);
        assert!(names("42", "0", Some("")).unwrap().is_empty());
    }

    #[test]
    fn those_of_another_process_are_left_alone() {
        assert!(names("41", "3", None).unwrap().is_empty());
        assert!(announced(|_| None, 42).unwrap().is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(
            names("x", "1", None),
            Err(InheritedError::Variable { variable: "LISTEN_PID", .. })
        ));
        for count in ["-1", "4097", "many", "99999999999999999999"] {
            assert!(matches!(names("42", count, None), Err(InheritedError::Variable { .. })), "{count}");
        }
        assert_eq!(names("42", "2", Some("one")), Err(InheritedError::Names { names: 1, fds: 2 }));
    }
}
