//! The daemon: puts the parts together, runs until a signal, and leaves all mounts serving when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use host::inherited::InheritedFd;
use registry::{Registry, RegistryConfig};
use sd_notify::NotifyState;
use supervisor::Pool;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use volume::{Driver, Fault, FaultKind, VolumeService, WorkerPool};

use crate::config::Config;
use crate::control;
use crate::sockets::{self, SocketError};
use crate::{backends, csi, metrics};

/// How long requests under way may take to finish at the end.
const DRAIN: Duration = Duration::from_secs(10);

/// The daemon could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// A part refused.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A socket or directory.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The system.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Runs the daemon until SIGTERM or SIGINT. `inherited` are the fds of the service manager.
pub(crate) fn run(
    config: &Config,
    unmount_on_exit: bool,
    inherited: Vec<InheritedFd>,
) -> Result<(), ServeError> {
    let lock = sockets::lock_run_dir(&config.run_dir)?;
    if nix::unistd::Uid::effective().is_root()
        && let Err(error) = host::mount::provide_fuse_control()
    {
        tracing::warn!(%error, "workers that hang will not be noticed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_name("volplane")
        .thread_stack_size(1 << 20)
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(config, unmount_on_exit, inherited));
    // Blocking calls that hang in the kernel must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(2));
    drop(lock);
    result
}

async fn serve(
    config: &Config,
    unmount_on_exit: bool,
    inherited: Vec<InheritedFd>,
) -> Result<(), ServeError> {
    let (plugin_sockets, stored): (Vec<_>, Vec<_>) =
        inherited.into_iter().partition(|inherited| !inherited.name.starts_with("mount-"));
    // Bound first: what engines ask while the rest starts waits in the backlog and is not refused.
    let docker = docker_listener(config, plugin_sockets).await?;
    let drivers = csi::listen(config).await?;
    let control = sockets::listen(&config.control_socket(), 0o600).await?;
    let metrics_listener = match &config.metrics.listen {
        Some(listen) => Some(metrics::listen(listen).await?),
        None => None,
    };
    let pool = backends::pool(config, &config.run_dir, stored)?;
    let mut registry_config = RegistryConfig::new(&config.state_dir, config.run_dir.join("mounts"));
    registry_config.grace = Duration::from_secs(config.docker.forgotten_after_seconds);
    let registry = open_registry(registry_config, config, &pool).await?;
    let service: Arc<dyn VolumeService> = registry.clone();

    let (stop, stopped) = watch::channel(false);
    let mut frontends: Vec<JoinHandle<()>> = Vec::new();
    if let Some(listener) = docker {
        let server = docker::Server::new(service.clone(), Driver::Cvmfs, docker::ServerConfig::default());
        let mut stopped = stopped.clone();
        frontends.push(tokio::spawn(server.serve(listener, async move {
            // The sender lives as long as the daemon.
            let _ = stopped.wait_for(|stop| *stop).await;
        })));
    }
    let mut calls = Vec::new();
    for driver in drivers {
        let (statistics, tasks) = csi::serve(driver, service.clone(), &stopped);
        calls.push(statistics);
        frontends.extend(tasks);
    }
    let flexvolume = flexvolume::Server::new(service.clone(), config.kubelet_dir.clone());
    let parts = control::server::Parts::new(service.clone(), pool.clone(), flexvolume);
    let control = tokio::spawn(control::server::serve(control, parts));
    let metrics = metrics_listener
        .map(|listener| tokio::spawn(metrics::serve(listener, registry.clone(), service.clone(), calls)));
    let watchdog = sd_notify::watchdog_enabled().map(|interval| tokio::spawn(feed_watchdog(interval / 2)));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), run_dir = %config.run_dir.display(), "the daemon is ready");
    notify(&[NotifyState::Ready]);

    wait_for_the_end(&service).await?;

    notify(&[NotifyState::Stopping]);
    tracing::info!(unmount_on_exit, "the daemon ends");
    stop.send_replace(true);
    for frontend in frontends {
        if tokio::time::timeout(DRAIN, frontend).await.is_err() {
            tracing::warn!("a frontend did not end in time");
        }
    }
    control.abort();
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    registry.shutdown(DRAIN).await;
    if unmount_on_exit {
        take_down(&*service, &*pool).await;
    }
    Ok(())
}

/// Opens the registry; waits a moment for the lock of a daemon that was just killed (see [`sockets`]).
async fn open_registry(
    settings: RegistryConfig,
    config: &Config,
    pool: &Arc<Pool>,
) -> Result<Arc<Registry>, Fault> {
    let until = Instant::now() + sockets::PATIENCE;
    loop {
        match Registry::open(settings.clone(), backends::all(config, pool)).await {
            Err(fault) if fault.kind == FaultKind::InUse && Instant::now() < until => {
                tokio::time::sleep(sockets::PAUSE).await;
            }
            other => return other,
        }
    }
}

/// Takes all mounts down that nobody uses; the next start finds the rest dead and cleans it up.
async fn take_down(service: &dyn VolumeService, pool: &dyn WorkerPool) {
    for mount in service.mounts().await {
        if let Err(fault) = pool.stop(&mount.key, &mount.mountpoint).await {
            tracing::warn!(%fault, "a mount stays behind");
        }
    }
}

/// The plugin's socket: from the service manager if it gave one, else our own.
async fn docker_listener(
    config: &Config,
    inherited: Vec<InheritedFd>,
) -> Result<Option<UnixListener>, SocketError> {
    let mut given = None;
    for InheritedFd { name, fd } in inherited {
        if given.is_none() && config.docker.enabled {
            given = Some(sockets::inherited(fd, &name)?);
        } else {
            tracing::warn!(name, "an inherited socket is not used");
        }
    }
    match given {
        Some(listener) => Ok(Some(listener)),
        None if config.docker.enabled => {
            let name = format!("{}.sock", Driver::Cvmfs);
            sockets::listen(&config.docker.socket_dir.join(name), 0o660).await.map(Some)
        }
        None => Ok(None),
    }
}

/// Returns at SIGTERM or SIGINT; looks for new revisions at SIGHUP.
async fn wait_for_the_end(service: &Arc<dyn VolumeService>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                let service = service.clone();
                tokio::spawn(async move {
                    match service.refresh(Driver::Cvmfs).await {
                        Ok(()) => tracing::info!("all mounts were refreshed"),
                        Err(fault) => tracing::warn!(%fault, "refresh"),
                    }
                });
            }
        }
    }
}

async fn feed_watchdog(every: Duration) {
    let mut interval = tokio::time::interval(every.max(Duration::from_millis(100)));
    loop {
        interval.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
