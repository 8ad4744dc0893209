//! The storage plugins, made from the configuration.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cvmfs::backend::{CvmfsBackend, CvmfsSettings};
use cvmfs::options::PodRules;
use host::inherited::InheritedFd;
use nix::unistd::Uid;
use supervisor::{Limits, Pool, PoolConfig, Program, WorkerUser};
use volume::{Backend, Fault, FaultKind};

use crate::config::Config;

/// What the CernVM-FS plugin takes from the configuration.
pub(crate) fn cvmfs_settings(config: &Config) -> CvmfsSettings {
    CvmfsSettings {
        config_dir: config.cvmfs.config_dir.clone(),
        cache_dir: config.cvmfs.cache_dir.clone(),
        quota_mib: config.cvmfs.quota_mib,
        deadline: Duration::from_secs(config.cvmfs.deadline_seconds),
        pods: PodRules {
            options: config.cvmfs.pod_options.clone(),
            servers: config.cvmfs.pod_servers.clone(),
            proxies: config.cvmfs.pod_proxies.clone(),
            repositories: config.cvmfs.pod_repositories.clone(),
            file: config.file.clone(),
        },
    }
}

/// A pool of workers with its files in `run_dir`.
pub(crate) fn pool(config: &Config, run_dir: &Path, inherited: Vec<InheritedFd>) -> Result<Arc<Pool>, Fault> {
    let user = if Uid::effective().is_root() {
        let found = WorkerUser::find(config.worker.user.as_deref());
        Some(found.map_err(|error| {
            Fault::new(FaultKind::InvalidArgument, "find the worker user", "", error.to_string())
        })?)
    } else {
        None
    };
    let arguments = ["worker", "--log-format", config.log.format.as_str(), "--log-level", &config.log.level];
    Pool::open(
        PoolConfig {
            run_dir: run_dir.to_owned(),
            program: Program {
                path: "/proc/self/exe".into(),
                arguments: arguments.into_iter().map(OsString::from).collect(),
            },
            user,
            nursery: config.worker.nursery.clone(),
            notify_socket: std::env::var_os("NOTIFY_SOCKET"),
            limits: Limits::default(),
        },
        inherited,
    )
}

/// All plugins of this build over one pool.
pub(crate) fn all(config: &Config, pool: &Arc<Pool>) -> Vec<Arc<dyn Backend>> {
    let pool: Arc<dyn volume::WorkerPool> = pool.clone();
    vec![Arc::new(CvmfsBackend::new(cvmfs_settings(config), pool))]
}
