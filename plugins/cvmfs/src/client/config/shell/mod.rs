//! The shell that configuration files are written in, as far as they use it.
//!
//! Files of `/etc/cvmfs` are fragments of shell text. A real shell, run as root on each mount, is a large thing to
//! trust and to wait for; nearly all files use the same small part of it. This evaluates that part: assignments, quoting,
//! expansions of variables, `if` with tests, `&&`, `||`, `.`, `export`, `readonly`, simple arithmetic and a few
//! commands that only look (`uname`, `hostname`, `cat`, `grep -q`). Anything else is an error with file and line,
//! when it is reached; it is never passed over, because a value that is silently wrong is worse than none.
//!
//! Meaning follows the POSIX shell (IEEE Std 1003.1, chapter 2).

mod arithmetic;
mod builtins;
mod evaluate;
mod parser;
mod syntax;
mod word;

pub use evaluate::{Assigned, Files, Shell};

/// A text that cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct ShellError {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// What is wrong or not supported there.
    pub what: String,
}

/// A problem at a line, before it is known in which file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Trouble {
    line: u32,
    what: String,
}

impl Trouble {
    fn new(line: u32, what: impl Into<String>) -> Self {
        Trouble { line, what: what.into() }
    }
}

/// Most bytes of one file or one value.
const TEXT_LIMIT: usize = 1 << 20;
/// Most bytes that all expansions of a script may make together: texts come from authors of pods, too, and
/// `A=$A$A` grows fast.
const EXPANDED_LIMIT: usize = 16 << 20;
/// Deepest nesting of `if`, of expansions within expansions, and of files that read files.
const DEPTH_LIMIT: usize = 32;
/// Most commands that are run for one file.
const STEP_LIMIT: usize = 100_000;

#[cfg(test)]
mod tests;
