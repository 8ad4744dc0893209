//! The daemon's settings: one TOML file, some flags that win over it, and defaults.
//!
//! What was typed ([`FileConfig`], [`Overrides`]) and what it resolves to ([`Config`]) are two types; every path that the
//! daemon uses follows from the five directories, so several daemons run side by side with nothing shared.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

/// Where the file is looked for when no `--config` names one; it may be missing.
pub(crate) const DEFAULT_FILE: &str = "/etc/volplane/volplane.toml";
/// The default run directory; clients look for the control socket there.
pub(crate) const DEFAULT_RUN_DIR: &str = "/run/volplane";

/// Everything that can be set, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    /// What must survive a reboot: the journal of volumes and references.
    pub(crate) state_dir: PathBuf,
    /// What lives as long as the machine runs: mounts, workers' sockets, the control socket.
    pub(crate) run_dir: PathBuf,
    /// The Docker frontend; `None` is off.
    pub(crate) docker: Option<DockerConfig>,
    /// CernVM-FS.
    pub(crate) cvmfs: CvmfsConfig,
    /// User that workers run as; `None` is `volplane` if it exists, else a fixed number.
    pub(crate) worker_user: Option<String>,
    /// Where metrics are served; `None` is nowhere.
    pub(crate) metrics: Option<Listen>,
    /// How logs look.
    pub(crate) log: LogConfig,
}

/// The Docker frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DockerConfig {
    /// Directory of the plugin socket `cvmfs.sock`.
    pub(crate) socket_dir: PathBuf,
    /// How long a reference lives that Docker does not renew and whose mount no process sees.
    pub(crate) forgotten_after: Duration,
}

/// CernVM-FS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CvmfsConfig {
    /// The site's client configuration, as the C++ client reads it.
    pub(crate) config_dir: PathBuf,
    /// The cache that all repositories of the node share.
    pub(crate) cache_dir: PathBuf,
    /// Size of the cache in MiB where the site's CVMFS_QUOTA_LIMIT does not say; `None` is the client's default.
    pub(crate) quota_mib: Option<u64>,
    /// The longest time that a system call on a mount waits.
    pub(crate) deadline: Duration,
}

/// An address that only this machine reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// A unix socket.
    Unix(PathBuf),
    /// A loopback address and port.
    Tcp(std::net::SocketAddr),
}

/// Logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// Lines for people or for programs.
    pub(crate) format: LogFormat,
    /// Filter as of `RUST_LOG`, which wins: `info`, `warn,cvmfs=debug`.
    pub(crate) level: Option<String>,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The directories as flags; each wins over the file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Overrides {
    /// Journal of volumes and references [default: /var/lib/volplane]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Mounts, workers, control socket [default: /run/volplane]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Directory of the Docker plugin socket cvmfs.sock [default: /run/docker/plugins]
    #[arg(long, value_name = "DIR")]
    pub(crate) docker_socket_dir: Option<PathBuf>,
    /// CernVM-FS client configuration of the site [default: /etc/cvmfs]
    #[arg(long, value_name = "DIR")]
    pub(crate) cvmfs_config_dir: Option<PathBuf>,
    /// CernVM-FS cache [default: /var/cache/volplane/cvmfs]
    #[arg(long, value_name = "DIR")]
    pub(crate) cvmfs_cache_dir: Option<PathBuf>,
}

/// The file as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileConfig {
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    docker: DockerSection,
    cvmfs: CvmfsSection,
    worker: WorkerSection,
    metrics: MetricsSection,
    log: LogConfig,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DockerSection {
    enabled: Option<bool>,
    socket_dir: Option<PathBuf>,
    forgotten_after_seconds: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CvmfsSection {
    config_dir: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    quota_mib: Option<u64>,
    deadline_seconds: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WorkerSection {
    user: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MetricsSection {
    listen: Option<String>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}; name an existing file with --config")]
    Read { path: PathBuf, error: std::io::Error },
    /// The file is no TOML of this form. The text of the parser names line, key and the keys that exist.
    #[error("{path}: {error}")]
    Parse { path: PathBuf, error: Box<toml::de::Error> },
    /// A value is out of its range.
    #[error("{key} = {value:?}: {rule}")]
    Value { key: &'static str, value: String, rule: &'static str },
}

impl Config {
    /// Reads the file (the default one may be missing), lays the flags over it and fills in the defaults.
    pub(crate) fn load(file: Option<&Path>, flags: &Overrides) -> Result<Config, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::Read { path: path.to_owned(), error }),
        };
        let parsed = toml::from_str(&text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), error: Box::new(error) })?;
        Config::resolve(parsed, flags)
    }

    fn resolve(file: FileConfig, flags: &Overrides) -> Result<Config, ConfigError> {
        let directory = |key, flag: &Option<PathBuf>, value: Option<PathBuf>, default: &str| {
            let chosen = flag.clone().or(value).unwrap_or_else(|| default.into());
            // A daemon's working directory is nobody's business.
            let absolute =
                if flag.is_some() { std::path::absolute(&chosen).unwrap_or(chosen) } else { chosen };
            if absolute.is_absolute() {
                return Ok(absolute);
            }
            let value = absolute.display().to_string();
            Err(ConfigError::Value { key, value, rule: "must be an absolute path" })
        };
        let seconds = |key, value: Option<u64>, default, allowed: std::ops::RangeInclusive<u64>, rule| {
            let value = value.unwrap_or(default);
            if allowed.contains(&value) {
                return Ok(Duration::from_secs(value));
            }
            Err(ConfigError::Value { key, value: value.to_string(), rule })
        };
        let socket_dir = directory(
            "docker.socket_dir",
            &flags.docker_socket_dir,
            file.docker.socket_dir,
            "/run/docker/plugins",
        )?;
        let forgotten_after = seconds(
            "docker.forgotten_after_seconds",
            file.docker.forgotten_after_seconds,
            600,
            1..=86_400,
            "must be 1 to 86400",
        )?;
        let docker = DockerConfig { socket_dir, forgotten_after };
        Ok(Config {
            state_dir: directory("state_dir", &flags.state_dir, file.state_dir, "/var/lib/volplane")?,
            run_dir: directory("run_dir", &flags.run_dir, file.run_dir, DEFAULT_RUN_DIR)?,
            docker: file.docker.enabled.unwrap_or(true).then_some(docker),
            cvmfs: CvmfsConfig {
                config_dir: directory(
                    "cvmfs.config_dir",
                    &flags.cvmfs_config_dir,
                    file.cvmfs.config_dir,
                    "/etc/cvmfs",
                )?,
                cache_dir: directory(
                    "cvmfs.cache_dir",
                    &flags.cvmfs_cache_dir,
                    file.cvmfs.cache_dir,
                    "/var/cache/volplane/cvmfs",
                )?,
                quota_mib: file.cvmfs.quota_mib,
                deadline: seconds(
                    "cvmfs.deadline_seconds",
                    file.cvmfs.deadline_seconds,
                    10,
                    1..=600,
                    "must be 1 to 600",
                )?,
            },
            worker_user: file.worker.user,
            metrics: file.metrics.listen.map(listen).transpose()?,
            log: file.log,
        })
    }

    /// The socket that `volplane status` and its like speak to.
    pub(crate) fn control_socket(&self) -> PathBuf {
        control_socket(&self.run_dir)
    }
}

/// The control socket of the daemon with this run directory.
pub(crate) fn control_socket(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

fn listen(text: String) -> Result<Listen, ConfigError> {
    let rule = "must be unix:/absolute/path or a loopback address with a port, as 127.0.0.1:9100";
    let parsed = match text.strip_prefix("unix:") {
        Some(path) if path.starts_with('/') => Some(Listen::Unix(path.into())),
        Some(_) => None,
        None => text
            .parse()
            .ok()
            .filter(|address: &std::net::SocketAddr| address.ip().is_loopback())
            .map(Listen::Tcp),
    };
    parsed.ok_or(ConfigError::Value { key: "metrics.listen", value: text, rule })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, flags: &Overrides) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path()), flags)
    }

    #[test]
    fn an_empty_file_gives_the_defaults_and_flags_win_over_the_file() {
        let config = load("", &Overrides::default()).unwrap();
        assert_eq!(config.run_dir, Path::new("/run/volplane"));
        assert_eq!(config.docker.unwrap().socket_dir, Path::new("/run/docker/plugins"));
        let text = "state_dir = \"/a\"\nrun_dir = \"/b\"\n[docker]\nsocket_dir = \"/c\"\n\
                    [cvmfs]\nconfig_dir = \"/d\"\ncache_dir = \"/e\"\n";
        let flags = Overrides { run_dir: Some("/flag".into()), ..Overrides::default() };
        let config = load(text, &flags).unwrap();
        assert_eq!(config.state_dir, Path::new("/a"));
        assert_eq!(config.run_dir, Path::new("/flag"));
        assert_eq!(config.cvmfs.config_dir, Path::new("/d"));
        assert_eq!(config.cvmfs.cache_dir, Path::new("/e"));
        assert_eq!(config.control_socket(), Path::new("/flag/control.sock"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("statedir = \"/a\"", "statedir"),
            ("[cvmfs]\ncache = \"/a\"", "cache_dir"),
            ("run_dir = \"relative\"", "absolute"),
            ("[metrics]\nlisten = \"0.0.0.0:9100\"", "loopback"),
            ("[cvmfs]\ndeadline_seconds = 0", "1 to 600"),
            ("[log]\nformat = \"xml\"", "xml"),
            ("run_dir = ", "run_dir"),
        ] {
            let error = load(text, &Overrides::default()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let missing = Config::load(Some(Path::new("/nonexistent/volplane.toml")), &Overrides::default());
        assert!(missing.unwrap_err().to_string().contains("/nonexistent/volplane.toml"));
    }

    #[test]
    fn the_shipped_file_is_valid() {
        let text = include_str!("../../packaging/volplane.toml");
        let shown: String = text.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
        let config = load(shown.split_once("\n\n").unwrap().1, &Overrides::default()).unwrap();
        assert_eq!(config, load("", &Overrides::default()).unwrap(), "the shown values are the defaults");
    }
}
