//! Logs on stderr: text for people and journald, or JSON lines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Sets the process's log up. A filter that cannot be read becomes `info`, with a warning.
pub(crate) fn start(format: LogFormat, level: &str) {
    let filter = EnvFilter::try_new(level);
    let unreadable = filter.as_ref().err().map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // journald stamps each line itself.
    let stamped = std::env::var_os("JOURNAL_STREAM").is_none();
    let result = match (format, stamped) {
        (LogFormat::Json, _) => builder.json().flatten_event(true).with_current_span(true).try_init(),
        (LogFormat::Text, true) => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        (LogFormat::Text, false) => builder.with_ansi(false).without_time().try_init(),
    };
    if let Err(error) = result {
        eprintln!("volplane: the log cannot be set up: {error}");
    }
    if let Some(error) = unreadable {
        tracing::warn!(level, error, "the log level cannot be read; `info` is used");
    }
}
