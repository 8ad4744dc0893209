//! `mount --foreground`: one mount without any daemon.
//!
//! Root gets what the daemon would do: a worker process without privileges, replaced if it dies. Another user has no
//! privileges to give up and is served by this very process, mounted through fusermount3.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::Uid;
use tokio::signal::unix::{SignalKind, signal};
use volume::{Backend, Caller, Fault, FaultKind, Frontend, OptionMap, WorkerPool};

use crate::cli;
use crate::config::{Config, ConfigError};
use crate::{backends, logging};

const CALLER: Caller = Caller::admin(Frontend::Cli);

/// The mount did not come about, or ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForegroundError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A part refused.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// Mounting.
    #[error("{0}: {1}")]
    Mount(fuse::MountError, String),
    /// The system.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Mounts, says so, and serves until a signal or the unmount.
pub(crate) fn run(mount: &cli::Mount, target: &Path) -> Result<(), ForegroundError> {
    let mut config = mount.settings.read()?;
    let target = target.canonicalize().map_err(|error| {
        Fault::new(
            FaultKind::NotFound,
            "mount",
            target.display().to_string(),
            format!("{error}; make the directory first"),
        )
    })?;
    let options: OptionMap = mount.option.iter().cloned().collect();
    let root = Uid::effective().is_root();
    if !root && mount.settings.cvmfs_cache_dir.is_none() {
        config.cvmfs.cache_dir = own_cache()?;
    }
    logging::start(config.log.format, &config.log.level, None);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    if root {
        runtime.block_on(by_worker(&config, &mount.name, &options, &target))
    } else {
        runtime.block_on(by_ourselves(&config, &mount.name, &options, &target))
    }
}

/// `$XDG_CACHE_HOME/volplane/cvmfs`, usually `~/.cache/volplane/cvmfs`.
fn own_cache() -> Result<PathBuf, Fault> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    base.or_else(home).map(|base| base.join("volplane/cvmfs")).ok_or_else(|| {
        let detail = "HOME is not set; name a directory with --cvmfs-cache-dir";
        Fault::new(FaultKind::InvalidArgument, "find the cache", "", detail)
    })
}

async fn by_worker(
    config: &Config,
    name: &str,
    options: &OptionMap,
    target: &Path,
) -> Result<(), ForegroundError> {
    let run_dir = PathBuf::from(format!("/run/volplane-foreground-{}", std::process::id()));
    let mut config = config.clone();
    // One process of one terminal: its worker is its own child.
    config.worker.nursery = None;
    let config = &config;
    let pool = backends::pool(config, &run_dir, Vec::new())?;
    let result = async {
        let backend = cvmfs::backend::CvmfsBackend::new(backends::cvmfs_settings(config), pool.clone());
        let spec = backend.parse(Some(name), options, &volume::Form::default(), &CALLER)?;
        let resolved = backend.resolve(&spec, &CALLER).await?;
        backend.attach(&resolved, target).await?;
        eprintln!("{name} is mounted at {}; Ctrl-C unmounts it", target.display());
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        let mut signals = Signals::new()?;
        loop {
            tokio::select! {
                () = signals.wait() => match backend.detach(&resolved.key, target).await {
                    Ok(()) => return Ok(()),
                    Err(fault) => eprintln!("volplane: {fault}; close what uses it and press Ctrl-C again"),
                },
                _ = interval.tick() => match pool.report(&resolved.key).await {
                    Some(Ok(_)) => {}
                    // Unmounted by somebody else.
                    None => return Ok(()),
                    Some(Err(fault)) => {
                        backend.detach(&resolved.key, target).await?;
                        return Err(fault.into());
                    }
                },
            }
        }
    }
    .await;
    if let Err(error) = std::fs::remove_dir_all(&run_dir) {
        tracing::debug!(%error, "the run directory stays behind");
    }
    result
}

async fn by_ourselves(
    config: &Config,
    name: &str,
    options: &OptionMap,
    target: &Path,
) -> Result<(), ForegroundError> {
    let settings = backends::cvmfs_settings(config);
    let spec = cvmfs::options::parse(Some(name), options, &CALLER, &settings.pods)?;
    std::fs::create_dir_all(&settings.cache_dir)?;
    let target = target.to_owned();
    let fs_name = name.to_owned();
    let mounting = tokio::task::spawn_blocking(move || {
        let resolved = cvmfs::backend::prepare(&settings, &spec)?;
        let prepared = cvmfs::worker::prepare(resolved.payload, false)?;
        let mut mount_options = fuse::MountOptions::new(&target, fs_name);
        mount_options.allow_other = false;
        let (connection, guard) = fuse::Connection::mount_unprivileged(&mount_options).map_err(|error| {
            let why =
                std::error::Error::source(&error).map(|source| format!("{source}; ")).unwrap_or_default();
            let hint =
                "is fusermount3 there (package fuse3), may you use /dev/fuse, and is the directory yours?";
            ForegroundError::Mount(error, format!("{why}{hint}"))
        })?;
        let state = memfd_create(c"mount-state", MFdFlags::MFD_CLOEXEC).map_err(std::io::Error::from)?;
        let serving = prepared.serve(cvmfs::worker::ServeContext {
            connection,
            adopted: false,
            state: state.into(),
            backings: Arc::new(NoBackings),
        })?;
        eprintln!("mounted at {}; Ctrl-C unmounts it", target.display());
        Ok::<_, ForegroundError>((Arc::new(serving), guard))
    });
    let (serving, guard) = mounting.await.map_err(std::io::Error::other)??;
    let mut signals = Signals::new()?;
    let watched = Arc::clone(&serving);
    let mut unmounted = tokio::task::spawn_blocking(move || watched.wait());
    tokio::select! {
        () = signals.wait() => {
            tokio::task::spawn_blocking(move || drop(guard)).await.map_err(std::io::Error::other)?;
            // Lazily unmounted: what is open is served to its end, but not for ever.
            if tokio::time::timeout(Duration::from_secs(5), unmounted).await.is_err() {
                serving.stop();
            }
        }
        _ = &mut unmounted => {}
    }
    Ok(())
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Passthrough needs CAP_SYS_ADMIN, which nobody here has.
struct NoBackings;

impl fuse::Backings for NoBackings {
    fn open(&self, _: BorrowedFd<'_>) -> std::io::Result<u32> {
        Err(std::io::Error::from_raw_os_error(libc::EPERM))
    }

    fn close(&self, _: u32) {}
}
