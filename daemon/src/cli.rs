//! The command line. Completions and the manual page are made from these definitions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::flexvolume::Flexvolume;
use crate::config::{Config, ConfigError, LogFormat};
use crate::csi::settings::CsiFlags;

/// Science storage in containers.
#[derive(Debug, Parser)]
#[command(
    name = "volplane",
    version,
    about = "CernVM-FS repositories as volumes of Docker and Podman, and on the host",
    long_about = "Volplane puts science storage into containers. Its daemon serves the volume driver `cvmfs` to Docker and \
                  Podman, and drivers to Kubernetes (CSI, FlexVolume); each repository is served by a process of its own \
                  that downloads, verifies and caches what is read.",
    after_help = "Examples:\n  \
        sudo volplane serve                                  start the daemon (usually by systemd)\n  \
        docker run --rm --volume-driver cvmfs -v cms.cern.ch:/cvmfs/cms.cern.ch debian ls /cvmfs/cms.cern.ch\n  \
        sudo volplane mount cms.cern.ch /cvmfs/cms.cern.ch   the same on the host\n  \
        volplane mount --foreground cms.cern.ch ~/cms        without daemon and without root\n  \
        sudo volplane status                                 what is mounted, and how it is",
    max_term_width = 110
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon
    #[command(
        after_help = "The daemon listens on <docker-socket-dir>/cvmfs.sock for Docker and Podman and on \
        <run-dir>/control.sock for this command line. SIGTERM ends it and leaves all mounts serving; the next daemon \
        takes them over. SIGHUP looks for new revisions now.\n\nExample of a configuration file (all keys are optional):\n  \
        state_dir = \"/var/lib/volplane\"\n  run_dir = \"/run/volplane\"\n  [docker]\n  socket_dir = \"/run/docker/plugins\"\n  \
        [cvmfs]\n  config_dir = \"/etc/cvmfs\"\n  cache_dir = \"/var/cache/volplane/cvmfs\"\n  quota_mib = 20000\n  \
        [metrics]\n  listen = \"127.0.0.1:9868\"\n  [log]\n  format = \"json\""
    )]
    Serve(Serve),
    /// Show all mounts: state, worker, who uses them, health
    #[command(
        after_help = "Examples:\n  volplane status\n  volplane status --json | jq '.mounts[] | {key, state, last_error}'"
    )]
    Status {
        /// Machine-readable output
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Mount a repository (or a defined volume) at a directory
    #[command(
        after_help = "NAME is a repository (cms.cern.ch), a snapshot of it (cms.cern.ch@tag), a revision \
        (cms.cern.ch#hash), `cvmfs` for all repositories of the node, or a volume made with `volplane volume create`.\n\n\
        Examples:\n  volplane mount cms.cern.ch /cvmfs/cms.cern.ch\n  \
        volplane mount -o proxy='http://squid:3128' -o tag=v1 sw.example.org /mnt/sw\n  \
        volplane mount --foreground sw.example.org ~/sw    (no daemon, no root; Ctrl-C unmounts)"
    )]
    Mount(Mount),
    /// Take back what `mount` gave
    Umount {
        /// The directory (or the name, if it was mounted without a directory)
        target: PathBuf,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Define, list and forget named volumes
    Volume {
        #[command(subcommand)]
        command: Volume,
    },
    /// Look for new revisions of all mounts now
    Refresh {
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Tools for CernVM-FS
    Cvmfs {
        #[command(subcommand)]
        command: Cvmfs,
    },
    /// Drivers for Kubernetes FlexVolume
    Flexvolume {
        #[command(subcommand)]
        command: Flexvolume,
    },
    /// Print completions for a shell
    #[command(after_help = "Example:\n  volplane completions bash > /etc/bash_completion.d/volplane")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  volplane man | man -l -")]
    Man,
    /// Start workers for a daemon in another container
    #[command(
        after_help = "The daemon whose configuration names the same socket (`worker.nursery`) has its workers started here, so \
        that an end of the daemon's container ends no mount. Needs no privilege: run it as the workers' user, with a \
        read-only root, the socket's directory, and the cache and configuration directories at the daemon's paths. SIGTERM: \
        it starts no more workers and serves until it is killed or no worker is left.\n\nExample:\n  \
        setpriv --reuid 60987 --regid 60987 --clear-groups volplane nursery"
    )]
    Nursery(Nursery),
    /// Serve one mount (started by the daemon)
    #[command(hide = true)]
    Worker(Worker),
}

/// Flags of `serve`; each wins over the configuration file.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Directory of the Docker plugin's socket [default: /run/docker/plugins]
    #[arg(long, value_name = "DIR")]
    pub(crate) docker_socket_dir: Option<PathBuf>,
    /// Where the registry's journal is kept [default: /var/lib/volplane]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Where sockets and mountpoints are made [default: /run/volplane]
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Root directory of kubelet; nothing is mounted for Kubernetes outside it [default: /var/lib/kubelet]
    #[arg(long, value_name = "DIR")]
    pub(crate) kubelet_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) csi: CsiFlags,
    /// Take all mounts down at the end, where workers cannot outlive the daemon (as in a managed Docker plugin)
    #[arg(long)]
    pub(crate) unmount_on_exit: bool,
    /// Only read the settings, say what is wrong with them, and end
    #[arg(long)]
    pub(crate) check: bool,
}

/// Settings that also commands without a daemon use.
#[derive(Debug, Args, Default)]
pub(crate) struct Settings {
    /// The configuration file [default: /etc/volplane/volplane.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The CernVM-FS configuration [default: /etc/cvmfs]
    #[arg(long, value_name = "DIR")]
    pub(crate) cvmfs_config_dir: Option<PathBuf>,
    /// The shared cache [default: /var/cache/volplane/cvmfs]
    #[arg(long, value_name = "DIR")]
    pub(crate) cvmfs_cache_dir: Option<PathBuf>,
}

/// Which daemon is talked to.
#[derive(Debug, Args)]
pub(crate) struct Daemon {
    /// Run directory of the daemon
    #[arg(long, value_name = "DIR", default_value = "/run/volplane")]
    pub(crate) run_dir: PathBuf,
}

impl Daemon {
    /// Its control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
}

#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// What to mount
    pub(crate) name: String,
    /// Where; an existing directory, or a new one in an existing directory
    pub(crate) target: Option<PathBuf>,
    /// An option, may be repeated: tag=, hash=, date=, server=, proxy=, public_key=, quota=, or a parameter by its own
    /// name (CVMFS_...=)
    #[arg(short, long = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) option: Vec<(String, String)>,
    /// Serve this one mount without a daemon until it is unmounted or interrupted
    #[arg(long, requires = "target")]
    pub(crate) foreground: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Volume {
    /// List volumes
    Ls {
        /// Machine-readable output
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Define a volume
    #[command(
        after_help = "Example:\n  volplane volume create sw -o repository=sw.example.org -o tag=v1\n  \
        docker run --rm --volume-driver cvmfs -v sw:/sw debian ls /sw"
    )]
    Create {
        /// Its name
        name: String,
        /// An option, as of `volplane mount`; `repository=` names what it shows
        #[arg(short, long = "option", value_name = "KEY=VALUE", value_parser = key_value)]
        option: Vec<(String, String)>,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Forget a volume; its mount goes when nobody uses it
    Rm {
        /// Its name
        name: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Show a volume with its mount, as JSON
    Inspect {
        /// Its name
        name: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cvmfs {
    /// Show every client parameter of a repository and where its value comes from
    #[command(after_help = "Example:\n  volplane cvmfs showconfig cms.cern.ch")]
    Showconfig {
        /// The repository
        repository: String,
        /// Machine-readable output
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Publish a directory tree as a signed repository
    #[command(
        after_help = "The first publication makes the repository and its keys (<name>.masterkey, <name>.key, <name>.crt, \
        <name>.pub) in the key directory; give <name>.pub to those who read it. Keep <name>.masterkey safe.\n\n\
        Examples:\n  volplane cvmfs publish sw.example.org ./software --repository-dir /srv/cvmfs/sw.example.org\n  \
        volplane cvmfs publish sw.example.org ./software --repository-dir /srv/cvmfs/sw.example.org --tag v2\n  \
        volplane cvmfs serve /srv/cvmfs --listen 127.0.0.1:8000"
    )]
    Publish(Publish),
    /// Serve repositories over HTTP, for trying things out
    #[command(after_help = "Example:\n  volplane cvmfs serve /srv/cvmfs --listen 127.0.0.1:8000\n  \
        volplane mount -o server=http://127.0.0.1:8000/sw.example.org -o public_key=$PWD/sw.example.org.pub sw.example.org /mnt")]
    Serve {
        /// Directory of repositories
        directory: PathBuf,
        /// Address and port
        #[arg(long, default_value = "127.0.0.1:8000")]
        listen: std::net::SocketAddr,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Name of the repository, as in /cvmfs/NAME
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The tree to publish
    pub(crate) source: PathBuf,
    /// The repository's directory, as a web server serves it [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    pub(crate) repository_dir: Option<PathBuf>,
    /// Directory of the keys [default: NAME.keys beside the repository's directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) keys_dir: Option<PathBuf>,
    /// Name the new revision
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// How long clients may go without asking for a new revision, seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<u64>,
    /// No progress bar
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Nursery {
    /// Where the daemon connects, as root
    #[arg(long, value_name = "PATH", default_value = "/run/volplane/nursery/nursery.sock")]
    pub(crate) socket: PathBuf,
    /// Group of the socket; its mode is 0660 then, else 0600. For a root daemon that may not override permissions
    #[arg(long, value_name = "GID")]
    pub(crate) group: Option<u32>,
    /// User of the workers when the nursery is root (name or number) [default: volplane, else 60987]
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Form of log lines
    #[arg(long, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// error, warn, info, debug, trace, or a filter
    #[arg(long, default_value = "info")]
    pub(crate) log_level: String,
}

#[derive(Debug, Args)]
pub(crate) struct Worker {
    #[arg(long)]
    pub(crate) mount: Option<String>,
    #[arg(long)]
    pub(crate) uid: Option<u32>,
    #[arg(long)]
    pub(crate) gid: Option<u32>,
    #[arg(long, default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[arg(long, default_value = "info")]
    pub(crate) log_level: String,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("an option has the form key=value, for example tag=v1".to_owned()),
    }
}

impl Settings {
    /// The configuration with these flags on top.
    pub(crate) fn read(&self) -> Result<Config, ConfigError> {
        let mut config = Config::read(self.config.as_deref())?;
        if let Some(directory) = &self.cvmfs_config_dir {
            config.cvmfs.config_dir.clone_from(directory);
        }
        if let Some(directory) = &self.cvmfs_cache_dir {
            config.cvmfs.cache_dir.clone_from(directory);
        }
        // Workers hear of it as well: they are started with this filter.
        if let Ok(filter) = std::env::var("RUST_LOG") {
            config.log.level = filter;
        }
        config.check()?;
        Ok(config)
    }
}

impl Serve {
    /// The configuration with the flags on top.
    pub(crate) fn read(&self) -> Result<Config, ConfigError> {
        let mut config = self.settings.read()?;
        let flags = [
            (&self.docker_socket_dir, &mut config.docker.socket_dir),
            (&self.state_dir, &mut config.state_dir),
            (&self.run_dir, &mut config.run_dir),
            (&self.kubelet_dir, &mut config.kubelet_dir),
        ];
        for (flag, setting) in flags {
            if let Some(directory) = flag {
                setting.clone_from(directory);
            }
        }
        self.csi.apply(&mut config.csi);
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_win_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, "run_dir = '/from/file'\nstate_dir = '/from/file'\n").unwrap();
        let line = ["volplane", "serve", "--config", file.to_str().unwrap(), "--run-dir", "/from/flag"];
        let Command::Serve(serve) = Cli::try_parse_from(line).unwrap().command else { panic!() };
        let config = serve.read().unwrap();
        assert_eq!(config.run_dir, PathBuf::from("/from/flag"));
        assert_eq!(config.state_dir, PathBuf::from("/from/file"));
        let line = ["volplane", "serve", "--config", file.to_str().unwrap(), "--run-dir", "relative"];
        let Command::Serve(serve) = Cli::try_parse_from(line).unwrap().command else { panic!() };
        assert!(matches!(serve.read(), Err(ConfigError::Relative { key: "run_dir", .. })));
    }

    #[test]
    fn options_have_a_key_and_any_value() {
        assert_eq!(key_value("proxy=http://a;DIRECT=b"), Ok(("proxy".into(), "http://a;DIRECT=b".into())));
        assert!(key_value("tag").is_err() && key_value("=x").is_err());
    }
}
