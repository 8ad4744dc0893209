//! Logs on stderr: text for people and journald, or JSON lines.
//!
//! A worker serves one mount, on many threads and in libraries that know nothing of it: its name is put into every line
//! here, at the one place where lines leave.

use std::io::{self, IsTerminal, Stderr, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Sets the process's log up; `mount` is named in every line. A filter that cannot be read becomes `info`, with a warning.
pub(crate) fn start(format: LogFormat, level: &str, mount: Option<&str>) {
    let filter = EnvFilter::try_new(level);
    let unreadable = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = Lines { format, mount: mount.map(str::to_owned) };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    // journald stamps each line itself.
    let stamped = std::env::var_os("JOURNAL_STREAM").is_none();
    let result = match (format, stamped) {
        (LogFormat::Json, _) => builder.json().flatten_event(true).with_current_span(true).try_init(),
        (LogFormat::Text, true) => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        (LogFormat::Text, false) => builder.with_ansi(false).without_time().try_init(),
    };
    if let Err(error) = result {
        eprintln!("volplane: the log cannot be set up: {error}");
    }
    if let Some(error) = unreadable {
        tracing::warn!(level, error, "the log level cannot be read; `info` is used");
    }
}

/// Makes the writer of one line.
struct Lines {
    format: LogFormat,
    mount: Option<String>,
}

/// Gets one whole line per write.
struct Line<'a> {
    lines: &'a Lines,
    out: Stderr,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, out: io::stderr() }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.lines.named(line) {
            Some(named) => self.out.write_all(&named)?,
            None => self.out.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Lines {
    /// The line with the mount's name in it. Names of mounts need no quoting: see [`volume::MountKey`].
    fn named(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mount = self.mount.as_ref()?;
        match (self.format, line) {
            (LogFormat::Json, [b'{', rest @ ..]) => {
                Some([format!("{{\"mount\":\"{mount}\",").as_bytes(), rest].concat())
            }
            (LogFormat::Text, [text @ .., b'\n']) => {
                Some([text, format!(" mount={mount}\n").as_bytes()].concat())
            }
            (LogFormat::Json | LogFormat::Text, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_in_every_line() {
        let lines = |format| Lines { format, mount: Some("cms.cern.ch".into()) };
        assert_eq!(lines(LogFormat::Text).named(b"INFO a\n").unwrap(), b"INFO a mount=cms.cern.ch\n");
        let json = lines(LogFormat::Json).named(b"{\"level\":\"INFO\"}\n").unwrap();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["mount"], "cms.cern.ch");
    }
}
