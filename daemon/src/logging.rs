//! Structured logs on standard error: one line per event, the request's span in each.
//!
//! Under journald (which sets JOURNAL_STREAM) lines have no time stamp of their own and carry the priority as a `<N>` prefix would;
//! elsewhere they begin with the time.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogConfig, LogFormat};

/// Starts logging. `RUST_LOG` wins over the configured level; a filter that cannot be parsed is reported and replaced by `info`.
pub(crate) fn start(config: &LogConfig) {
    let wanted = std::env::var("RUST_LOG").ok().or_else(|| config.level.clone()).unwrap_or_default();
    let wanted = if wanted.is_empty() { "info".to_owned() } else { wanted };
    let (filter, complaint) = match EnvFilter::try_new(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error.to_string())),
    };
    let base = fmt::Subscriber::builder()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let journald = std::env::var_os("JOURNAL_STREAM").is_some();
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match (config.format, journald) {
        (LogFormat::Json, _) => tracing::subscriber::set_global_default(base.json().finish()),
        (LogFormat::Text, true) => tracing::subscriber::set_global_default(base.without_time().finish()),
        (LogFormat::Text, false) => tracing::subscriber::set_global_default(base.finish()),
    };
    if let Some(complaint) = complaint {
        tracing::warn!(filter = wanted, error = complaint, "the log filter cannot be used; using `info`");
    }
}
