//! Whether the signal that made the kernel interrupt a request is one to give up for.
//!
//! The kernel sends FUSE_INTERRUPT for any signal, also for a timer of a profiler, a child that ended or a Go runtime's
//! preemption. Programs do not expect EINTR from stat(2) or from reading a file, and no other file system on
//! Linux gives it to them: it waits, and lets only those go that are to die. We do the same, and besides let go who was
//! asked to end and has a handler for that (Ctrl-C in an interpreter). Which signals wait for a thread is told in
//! /proc/TID/status.

use nix::sys::signal::Signal;

use crate::Caller;

/// Signals that ask a process to end, whether it handles them or not.
const ASK_TO_END: u64 = bit(Signal::SIGKILL)
    | bit(Signal::SIGINT)
    | bit(Signal::SIGTERM)
    | bit(Signal::SIGHUP)
    | bit(Signal::SIGQUIT);

/// Signals that by default do not end a process (signal(7)).
const HARMLESS: u64 = bit(Signal::SIGCHLD)
    | bit(Signal::SIGCONT)
    | bit(Signal::SIGSTOP)
    | bit(Signal::SIGTSTP)
    | bit(Signal::SIGTTIN)
    | bit(Signal::SIGTTOU)
    | bit(Signal::SIGURG)
    | bit(Signal::SIGWINCH);

const fn bit(signal: Signal) -> u64 {
    1 << (signal as u32 - 1)
}

/// What the signals want that wait for a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// It is to end.
    End,
    /// Nothing of the kind.
    GoOn,
    /// That cannot be seen: the caller is in another PID namespace (as every container is, for a daemon in a container),
    /// it has gone, or /proc is hidden from us.
    Unknown,
}

/// Looks at the signals that wait for the caller.
pub(crate) fn wish(caller: Caller) -> Wish {
    let status = match caller.pid {
        0 => None,
        tid => std::fs::read_to_string(format!("/proc/{tid}/status")).ok(),
    };
    match status.map(|status| asks_to_end(&status)) {
        Some(true) => Wish::End,
        Some(false) => Wish::GoOn,
        None => Wish::Unknown,
    }
}

fn asks_to_end(status: &str) -> bool {
    let mask = |name: &str| {
        let field = status.lines().find_map(|line| line.strip_prefix(name));
        field.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
    };
    let masks = (mask("SigPnd:"), mask("ShdPnd:"), mask("SigBlk:"), mask("SigIgn:"), mask("SigCgt:"));
    let (Some(own), Some(shared), Some(blocked), Some(ignored), Some(caught)) = masks else { return true };
    // A signal that will end the process is turned into a SIGKILL for each of its threads, which nothing blocks.
    let pending = own | (shared & !blocked);
    let by_default = pending & !blocked & !ignored & !caught & !HARMLESS;
    pending & (!blocked | bit(Signal::SIGKILL)) & ASK_TO_END & !ignored != 0 || by_default != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, shared: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tcat\nSigQ:\t0/1\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn of_a_caller_in_another_pid_namespace_nothing_is_known() {
        let caller = |pid| Caller { uid: 0, gid: 0, pid };
        assert_eq!(wish(caller(0)), Wish::Unknown);
        assert_eq!(wish(caller(std::process::id())), Wish::GoOn);
    }

    #[test]
    fn only_signals_that_end_a_process_count() {
        let (kill, int, alarm) = (bit(Signal::SIGKILL), bit(Signal::SIGINT), bit(Signal::SIGALRM));
        let (child, segv) = (bit(Signal::SIGCHLD), bit(Signal::SIGSEGV));
        assert!(asks_to_end(&status(kill, 0, 0, 0, 0)));
        assert!(asks_to_end(&status(kill, 0, u64::MAX, 0, 0)), "nothing blocks SIGKILL");
        assert!(asks_to_end(&status(0, int, 0, 0, int)), "caught, but asked to end");
        assert!(asks_to_end(&status(0, segv, 0, 0, 0)));
        assert!(asks_to_end(&status(alarm, 0, 0, 0, 0)), "ends by default");
        assert!(!asks_to_end(&status(alarm, 0, 0, 0, alarm)), "caught");
        assert!(!asks_to_end(&status(0, int, int, 0, int)), "for another thread");
        assert!(!asks_to_end(&status(0, int, 0, int, 0)), "ignored");
        assert!(!asks_to_end(&status(0, child, 0, 0, 0)));
        assert!(!asks_to_end(&status(0, 0, 0, 0, 0)));
        assert!(asks_to_end("nothing to be read here"));
    }
}
