//! The daemon's configuration: one TOML file, and flags that win over it.
//!
//! Every path that the daemon uses follows from these keys, so that several daemons can run side by side.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cvmfs::options::{PodOptions, PodProxies, PodRepositories, PodServers};
use serde::Deserialize;

use crate::csi::settings::Csi;

/// Where the configuration is looked for without `--config`; it need not exist.
pub(crate) const DEFAULT_FILE: &str = "/etc/volplane/volplane.toml";

/// Largest configuration file.
const LIMIT: u64 = 1 << 20;

/// All settings, with defaults for what is not given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// What must outlive a reboot: the registry's journal.
    pub(crate) state_dir: PathBuf,
    /// What need not: sockets, mountpoints, state of workers.
    pub(crate) run_dir: PathBuf,
    /// The file that was read, for messages; the default one when none was.
    #[serde(skip)]
    pub(crate) file: PathBuf,
    /// Kubelet's root directory: FlexVolume and CSI mount nowhere else.
    pub(crate) kubelet_dir: PathBuf,
    pub(crate) docker: Docker,
    pub(crate) csi: Csi,
    pub(crate) cvmfs: Cvmfs,
    pub(crate) worker: Worker,
    pub(crate) metrics: Metrics,
    pub(crate) log: Log,
}

/// The Docker volume plugin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Docker {
    pub(crate) enabled: bool,
    /// The plugin's socket is `cvmfs.sock` in it.
    pub(crate) socket_dir: PathBuf,
    /// How long a use is kept that the engine does not repeat, while no mount namespace shows the volume.
    pub(crate) forgotten_after_seconds: u64,
}

/// The CernVM-FS client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cvmfs {
    pub(crate) config_dir: PathBuf,
    pub(crate) cache_dir: PathBuf,
    /// Size of the shared cache, MiB, where neither the site nor the volume sets CVMFS_QUOTA_LIMIT.
    pub(crate) quota_mib: Option<u64>,
    /// Longest time for one system call on a mount, seconds.
    pub(crate) deadline_seconds: u64,
    /// What authors of pods may set.
    pub(crate) pod_options: PodOptions,
    pub(crate) pod_servers: PodServers,
    pub(crate) pod_proxies: PodProxies,
    pub(crate) pod_repositories: PodRepositories,
}

/// Worker processes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Worker {
    /// User name or number.
    pub(crate) user: Option<String>,
    /// Socket of a `volplane nursery`, which then starts the workers.
    pub(crate) nursery: Option<PathBuf>,
}

/// The Prometheus endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    /// Off if not given.
    pub(crate) listen: Option<Listen>,
    /// Whether `listen` may be an address that other hosts reach.
    pub(crate) other_hosts: bool,
}

/// Where metrics are read: `unix:/path` or an address with a port.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Logs on stderr.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as `info,supervisor=debug`.
    pub(crate) level: String,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people and journald.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            state_dir: "/var/lib/volplane".into(),
            run_dir: "/run/volplane".into(),
            file: DEFAULT_FILE.into(),
            kubelet_dir: "/var/lib/kubelet".into(),
            docker: Docker::default(),
            csi: Csi::default(),
            cvmfs: Cvmfs::default(),
            worker: Worker::default(),
            metrics: Metrics::default(),
            log: Log::default(),
        }
    }
}

impl Default for Docker {
    fn default() -> Self {
        Docker { enabled: true, socket_dir: "/run/docker/plugins".into(), forgotten_after_seconds: 600 }
    }
}

impl Default for Cvmfs {
    fn default() -> Self {
        Cvmfs {
            config_dir: "/etc/cvmfs".into(),
            cache_dir: "/var/cache/volplane/cvmfs".into(),
            quota_mib: None,
            deadline_seconds: 10,
            pod_options: PodOptions::default(),
            pod_servers: PodServers::default(),
            pod_proxies: PodProxies::default(),
            pod_repositories: PodRepositories::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// The file is not TOML, or a value has the wrong type or range.
    #[error("{}: {detail}", path.display())]
    Content { path: PathBuf, detail: String },
    /// A key that means nothing.
    #[error("{}: unknown key {key:?}{hint}", path.display())]
    UnknownKey { path: PathBuf, key: String, hint: String },
    /// A setting of CSI.
    #[error("{0}")]
    Csi(String),
    /// A path that is not absolute.
    #[error("{key} is {}, which is not an absolute path", path.display())]
    Relative { key: &'static str, path: PathBuf },
}

/// Keys of a CSI driver.
const CSI_DRIVER: &[&str] = &["endpoint", "name", "kubelet_endpoint"];

/// Known keys by table.
const KEYS: &[(&str, &[&str])] = &[
    ("", &["state_dir", "run_dir", "kubelet_dir", "docker", "csi", "cvmfs", "worker", "metrics", "log"]),
    ("docker", &["enabled", "socket_dir", "forgotten_after_seconds"]),
    (
        "cvmfs",
        &[
            "config_dir",
            "cache_dir",
            "quota_mib",
            "deadline_seconds",
            "pod_options",
            "pod_servers",
            "pod_proxies",
            "pod_repositories",
        ],
    ),
    ("csi", &["node_id", "roles", "register", "topology", "max_volumes", "cvmfs", "eos", "rbd"]),
    ("csi.cvmfs", CSI_DRIVER),
    ("csi.eos", CSI_DRIVER),
    ("csi.rbd", CSI_DRIVER),
    ("worker", &["user", "nursery"]),
    ("metrics", &["listen", "other_hosts"]),
    ("log", &["format", "level"]),
];

impl Config {
    /// Reads `file`, or the default file if that exists, else takes the defaults.
    pub(crate) fn read(file: Option<&Path>) -> Result<Config, ConfigError> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match read_bounded(path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        Ok(Config { file: path.to_owned(), ..Config::parse(&text, path)? })
    }

    fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let content = |detail: String| ConfigError::Content { path: path.to_owned(), detail };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| content(error.to_string()))?;
        check_keys(&table, "", path)?;
        let config: Config = toml::from_str(text).map_err(|error| content(error.to_string()))?;
        let limit = |good: bool, detail: &str| if good { Ok(()) } else { Err(content(detail.to_owned())) };
        limit(
            (1..=3600).contains(&config.cvmfs.deadline_seconds),
            "cvmfs.deadline_seconds is not in 1 to 3600",
        )?;
        let grace = config.docker.forgotten_after_seconds;
        limit((1..=604_800).contains(&grace), "docker.forgotten_after_seconds is not in 1 to 604800")?;
        limit(config.cvmfs.quota_mib != Some(0), "cvmfs.quota_mib is 0; leave it out for the site's limit")?;
        if let Some(Listen::Tcp(address)) = config.metrics.listen
            && !address.ip().is_loopback()
            && !config.metrics.other_hosts
        {
            return Err(content(format!(
                "metrics.listen: {address} is not a loopback address; set metrics.other_hosts = true where other hosts \
                 may read them, as in the network of a pod"
            )));
        }
        if let Some(word) = unknown_level(&config.log.level) {
            return Err(content(format!(
                "log.level: {word:?} is no level; use error, warn, info, debug or trace, or a filter as \
                 info,supervisor=debug"
            )));
        }
        Ok(config)
    }

    /// Checks what flags may have changed.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let paths = [
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("kubelet_dir", &self.kubelet_dir),
            ("docker.socket_dir", &self.docker.socket_dir),
            ("cvmfs.config_dir", &self.cvmfs.config_dir),
            ("cvmfs.cache_dir", &self.cvmfs.cache_dir),
        ];
        for (key, path) in paths {
            if !path.is_absolute() {
                return Err(ConfigError::Relative { key, path: path.clone() });
            }
        }
        if let Some(path) = self.worker.nursery.as_ref().filter(|path| !path.is_absolute()) {
            return Err(ConfigError::Relative { key: "worker.nursery", path: path.clone() });
        }
        self.csi.check()
    }

    /// The control socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
}

/// The part of a log filter that is neither a level nor says whose it is. Filters take any word for a module, and then
/// log nothing else.
fn unknown_level(filter: &str) -> Option<&str> {
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    let words = filter.split(',').map(str::trim).filter(|word| !word.contains(['=', '[', ']']));
    words.into_iter().find(|word| !levels.contains(&word.to_ascii_lowercase().as_str()))
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

/// A table and those in it.
fn check_keys(table: &toml::Table, name: &str, path: &Path) -> Result<(), ConfigError> {
    let full = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    let Some((_, known)) = KEYS.iter().find(|(of, _)| *of == name) else { return Ok(()) };
    let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) else {
        let mut tables = table.iter().filter_map(|(key, value)| Some((key, value.as_table()?)));
        return tables.try_for_each(|(key, inner)| check_keys(inner, &full(key), path));
    };
    let hint = match volume::nearest(key, known.iter().copied()) {
        Some(near) => format!("; did you mean {near:?}?"),
        None => format!("; known here: {}", known.join(", ")),
    };
    Err(ConfigError::UnknownKey { path: path.to_owned(), key: full(key), hint })
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() {
                Ok(Listen::Unix(path))
            } else {
                Err(format!("{text:?}: not absolute"))
            };
        }
        let address = text.parse().map_err(|_| format!("{text:?} is neither unix:/path nor address:port"))?;
        Ok(Listen::Tcp(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("test.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_all_defaults_and_a_full_one_is_read() {
        assert_eq!(parse("").unwrap(), Config::default());
        let config = parse(
            "state_dir = '/s'\nrun_dir = '/r'\nkubelet_dir = '/k'\n[docker]\nenabled = false\nsocket_dir = '/p'\n[cvmfs]\nconfig_dir = '/e'\n\
             cache_dir = '/c'\nquota_mib = 100\ndeadline_seconds = 5\n[worker]\nuser = 'nobody'\n\
             [metrics]\nlisten = '127.0.0.1:9100'\n[log]\nformat = 'json'\nlevel = 'debug'\n",
        )
        .unwrap();
        assert_eq!(config.cvmfs.quota_mib, Some(100));
        assert_eq!(config.metrics.listen, Some(Listen::Tcp("127.0.0.1:9100".parse().unwrap())));
        assert_eq!(config.log.format, LogFormat::Json);
    }

    #[test]
    fn a_log_level_is_a_level_or_a_filter() {
        for good in ["info", "DEBUG", "off", "info,supervisor=debug", "warn, cvmfs=trace"] {
            assert_eq!(parse(&format!("[log]\nlevel = '{good}'")).unwrap().log.level, good);
        }
        for bad in ["wat", "", "info,supervisor", "verbose,cvmfs=info"] {
            let said = parse(&format!("[log]\nlevel = '{bad}'")).unwrap_err();
            assert!(said.contains("log.level") && said.contains("debug"), "{said}");
        }
    }

    #[test]
    fn the_packaged_file_says_the_defaults() {
        let packaged = include_str!("../../packaging/volplane.toml");
        assert_eq!(parse(packaged).unwrap(), Config::default());
        let uncommented: String = packaged
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(parse(&uncommented).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_names_its_neighbour() {
        assert!(parse("state_dri = '/x'").unwrap_err().ends_with("did you mean \"state_dir\"?"));
        assert!(
            parse("[cvmfs]\ncachedir = '/x'")
                .unwrap_err()
                .contains("unknown key \"cvmfs.cachedir\"; did you mean")
        );
        assert!(parse("[worker]\nxyzzy = 1").unwrap_err().contains("known here: user, nursery"));
    }

    #[test]
    fn metrics_stay_on_this_host_unless_told_otherwise() {
        let open = parse("[metrics]\nlisten = '0.0.0.0:9100'\nother_hosts = true").unwrap();
        assert_eq!(open.metrics.listen, Some(Listen::Tcp("0.0.0.0:9100".parse().unwrap())));
        assert!(parse("[metrics]\nlisten = '0.0.0.0:9100'").unwrap_err().contains("loopback"));
        assert!(parse("[metrics]\nlisten = 'unix:relative'").is_err());
        let unix = parse("[metrics]\nlisten = 'unix:/run/m.sock'").unwrap();
        assert_eq!(unix.metrics.listen, Some(Listen::Unix("/run/m.sock".into())));
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for bad in [
            "[cvmfs]\ndeadline_seconds = 0",
            "[docker]\nforgotten_after_seconds = 0",
            "[cvmfs]\nquota_mib = -1",
            "[cvmfs]\npod_options = ['tag', 'public_key']",
            "[cvmfs]\npod_options = ['proxy']",
            "[cvmfs]\npod_servers = ['nowhere']",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
