//! `volplane serve`: puts the parts together and ends them in order.
//!
//! Sockets listen before anything else is ready, so that an engine that starts now waits in the backlog instead of
//! retrying for 15 s. At the end the frontends stop first; workers and mounts stay.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cvmfs::backend::{CvmfsBackend, CvmfsSettings};
use host::inherited::InheritedFd;
use nix::fcntl::{Flock, FlockArg};
use registry::{Registry, RegistryConfig};
use supervisor::{Limits, Pool, PoolConfig, Program, WorkerUser};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};
use volume::{Backend, Driver, VolumeService, WorkerPool};

use crate::cli::CliError;
use crate::config::{Config, DockerConfig};
use crate::control;

/// Name under which systemd hands over the Docker plugin socket (packaging/systemd/volplane.socket).
const DOCKER_SOCKET_NAME: &str = "docker-cvmfs";
/// How long operations may go on after the end was asked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(config: Config, inherited: Vec<InheritedFd>) -> Result<(), CliError> {
    make_directory(&config.run_dir, 0o755)?;
    let _lock = only_daemon(&config.run_dir)?;
    let (docker_fds, kept): (Vec<_>, Vec<_>) =
        inherited.into_iter().partition(|inherited| inherited.name == DOCKER_SOCKET_NAME);
    let docker = config.docker.as_ref().map(|docker| docker_listener(docker, docker_fds)).transpose()?;
    let control = bind(&config.control_socket())?;
    let pool = Pool::open(pool_config(&config)?, kept)?;
    // Two threads: the daemon translates and waits; the work is in the workers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("volplane")
        .enable_all()
        .build()
        .map_err(CliError::other)?;
    runtime.block_on(serve(config, pool, docker, control))
}

async fn serve(
    config: Config,
    pool: Arc<Pool>,
    docker: Option<UnixListener>,
    control: UnixListener,
) -> Result<(), CliError> {
    let backend: Arc<dyn Backend> =
        Arc::new(CvmfsBackend::new(cvmfs_settings(&config), pool as Arc<dyn WorkerPool>));
    let registry = Registry::open(registry_config(&config), vec![backend]).await?;
    let service: Arc<dyn VolumeService> = registry.clone();
    let (stop, stopped) = watch::channel(false);
    let mut frontends = tokio::task::JoinSet::new();
    if let Some(listener) = docker {
        let listener = into_tokio(listener)?;
        let server = docker::Server::new(service.clone(), Driver::Cvmfs, docker::ServerConfig::default());
        let mut stopped = stopped.clone();
        frontends.spawn(server.serve(listener, async move {
            // An error is the end of the sender, which is the end of the daemon.
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
    }
    let control = tokio::spawn(control::serve(into_tokio(control)?, service.clone()));
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::other)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::other)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(CliError::other)?;
    registry.ready().await;
    notify(&[sd_notify::NotifyState::Ready]);
    info!(version = env!("CARGO_PKG_VERSION"), run_dir = %config.run_dir.display(), "serving");
    let mut watchdog = tokio::time::interval(watchdog_period());
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = watchdog.tick() => notify(&[sd_notify::NotifyState::Watchdog]),
            _ = hangup.recv() => {
                let service = service.clone();
                tokio::spawn(async move {
                    if let Err(fault) = service.refresh(Driver::Cvmfs).await {
                        warn!(error = %fault, "refresh");
                    }
                });
            }
        }
    }
    notify(&[sd_notify::NotifyState::Stopping]);
    info!("stopping; mounts stay, their workers go on");
    let _ = stop.send(true);
    while frontends.join_next().await.is_some() {}
    control.abort();
    registry.shutdown(PATIENCE).await;
    Ok(())
}

fn pool_config(config: &Config) -> Result<PoolConfig, CliError> {
    let user = if nix::unistd::geteuid().is_root() {
        Some(WorkerUser::find(config.worker_user.as_deref()).map_err(CliError::other)?)
    } else {
        None
    };
    Ok(PoolConfig {
        run_dir: config.run_dir.clone(),
        program: Program { path: "/proc/self/exe".into(), arguments: vec!["worker".into()] },
        user,
        notify_socket: std::env::var_os("NOTIFY_SOCKET"),
        limits: Limits::default(),
    })
}

fn cvmfs_settings(config: &Config) -> CvmfsSettings {
    CvmfsSettings {
        config_dir: config.cvmfs.config_dir.clone(),
        cache_dir: config.cvmfs.cache_dir.clone(),
        quota_mib: config.cvmfs.quota_mib,
        deadline: config.cvmfs.deadline,
    }
}

fn registry_config(config: &Config) -> RegistryConfig {
    let mut registry = RegistryConfig::new(&config.state_dir, config.run_dir.join("mounts"));
    registry.share_mount_dir = true;
    if let Some(docker) = &config.docker {
        registry.grace = docker.forgotten_after;
    }
    registry
}

/// Half of what systemd asks for; far away where it does not ask.
fn watchdog_period() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |asked| asked / 2)
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "notify the service manager");
    }
}

fn into_tokio(listener: UnixListener) -> Result<tokio::net::UnixListener, CliError> {
    listener.set_nonblocking(true).map_err(CliError::other)?;
    tokio::net::UnixListener::from_std(listener).map_err(CliError::other)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), CliError> {
    host::directory::ensure(path, mode).map_err(CliError::other)
}

/// Two daemons on one run directory would fight for its mounts.
fn only_daemon(run_dir: &Path) -> Result<Flock<File>, CliError> {
    let path = run_dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| CliError::Other(format!("{}: {error}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        CliError::Other(format!(
            "another volplane daemon uses {}; stop it, or give this one directories of its own \
             (--run-dir, --state-dir, --docker-socket-dir)",
            run_dir.display()
        ))
    })
}

/// The plugin socket: handed over by systemd, or bound here.
fn docker_listener(config: &DockerConfig, handed_over: Vec<InheritedFd>) -> Result<UnixListener, CliError> {
    if let Some(first) = handed_over.into_iter().next() {
        return Ok(UnixListener::from(first.fd));
    }
    if !config.socket_dir.exists() {
        make_directory(&config.socket_dir, 0o700)?;
    }
    bind(&config.socket_dir.join("cvmfs.sock"))
}

/// Listens at `path` with mode 0600. A socket that nobody answers at is replaced; one that somebody answers at, and
/// anything that is no socket, is left alone.
fn bind(path: &Path) -> Result<UnixListener, CliError> {
    let say = |error: io::Error| CliError::Other(format!("listen at {}: {error}", path.display()));
    match UnixStream::connect(path) {
        Ok(_) => {
            return Err(CliError::Other(format!(
                "somebody answers at {} already; stop it, or choose another directory",
                path.display()
            )));
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            use std::os::unix::fs::FileTypeExt;
            if !fs::symlink_metadata(path).map_err(say)?.file_type().is_socket() {
                return Err(CliError::Other(format!(
                    "{} exists and is no socket; move it away",
                    path.display()
                )));
            }
            fs::remove_file(path).map_err(say)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(say(error)),
    }
    // Bound under another name first: nobody meets the socket before its mode is right.
    let hidden: PathBuf = path.with_extension("new");
    let _ = fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).map_err(say)?;
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600)).map_err(say)?;
    fs::rename(&hidden, path).map_err(say)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let first = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(bind(&path).unwrap_err().to_string().contains("already"));
        drop(first);
        bind(&path).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"precious").unwrap();
        assert!(bind(&file).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }

    #[test]
    fn a_second_daemon_on_one_run_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = only_daemon(dir.path()).unwrap();
        assert!(only_daemon(dir.path()).unwrap_err().to_string().contains("--run-dir"));
        drop(first);
        only_daemon(dir.path()).unwrap();
    }
}
