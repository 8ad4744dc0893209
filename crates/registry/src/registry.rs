//! The registry as the daemon and the frontends hold it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use volume::{
    Abilities, Acquired, Backend, Caller, Driver, Fault, FaultKind, Form, MountKey, MountState, MountStatus,
    NodeAbilities, OptionMap, RefId, SizeRange, Target, VolumeInfo, VolumeName, VolumeService, VolumeSpec,
    VolumeStats, WorkerReport,
};

use crate::RegistryConfig;
use crate::acquire::{Request, What};
use crate::core::{Core, OPERATIONS, late};
use crate::guard::Guards;
use crate::journal::Journal;
use crate::kernel::{HostKernel, Kernel};
use crate::{nominal, sweep};

/// Refreshes at a time.
const REFRESHES: usize = 16;

/// Who uses which mount.
pub struct Registry {
    core: Arc<Core>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Registry {
    /// Opens the journal and begins to compare it with the world in the background: `get`, `list`, `mounts` and
    /// `define` answer at once, acquires and releases wait for the end of it.
    ///
    /// Faults: `InUse` when another daemon has the state directory, `Unsupported` when a newer version wrote it,
    /// `PermissionDenied` when a directory belongs to somebody else.
    pub async fn open(
        config: RegistryConfig,
        backends: Vec<Arc<dyn Backend>>,
    ) -> Result<Arc<Registry>, Fault> {
        let kernel = HostKernel::new(config.kernel, config.mount_dir.clone());
        let boot_id = host::boot::boot_id()
            .map_err(|error| Fault::new(FaultKind::Internal, "read the boot id", "", error.to_string()))?;
        let share = config.share_mount_dir.then(|| config.mount_dir.clone());
        let registry =
            Registry::open_on(config, backends, Arc::new(kernel), boot_id, share.as_deref()).await?;
        registry.start_sweeping();
        Ok(registry)
    }

    /// The same on any kernel, and without the sweeper's and refresher's tasks.
    pub(crate) async fn open_on(
        config: RegistryConfig,
        backends: Vec<Arc<dyn Backend>>,
        kernel: Arc<dyn Kernel>,
        boot_id: String,
        share: Option<&Path>,
    ) -> Result<Arc<Registry>, Fault> {
        let (state_dir, mount_dir) = (config.state_dir.clone(), config.mount_dir.clone());
        let share = share.map(Path::to_owned);
        let opened = host::blocking::run("open", Duration::from_secs(60), move || {
            let check = |path: &Path, mode| {
                host::directory::ensure(path, mode).map_err(|error| {
                    Fault::new(FaultKind::PermissionDenied, "use directory", "", error.to_string())
                })
            };
            check(&state_dir, 0o700)?;
            check(&mount_dir, 0o755)?;
            if let Some(directory) = share {
                let shared = host::mount::share(&directory).map_err(|error| {
                    Fault::new(FaultKind::Internal, "share the directory of mounts", "", error.to_string())
                })?;
                tracing::info!(directory = %directory.display(), ?shared, "directory of mounts");
            }
            Ok::<_, Fault>(Journal::open(&state_dir.join("registry.db"), &boot_id)?)
        });
        let (journal, loaded) = opened.await.map_err(|error| {
            Fault::new(FaultKind::DeadlineExceeded, "open the journal", "", error.to_string())
        })??;
        if loaded.of_another_boot != (0, 0) {
            let (mounts, references) = loaded.of_another_boot;
            tracing::info!(
                mounts,
                references,
                "start: the machine was booted since; mounts and references ended with it"
            );
        }
        let core = Core {
            config,
            backends: backends.into_iter().map(|backend| (backend.driver(), backend)).collect(),
            kernel,
            journal,
            tables: Mutex::default(),
            lanes: Guards::new(),
            keys: Guards::new(),
            questions: Guards::new(),
            ready: watch::Sender::new(false),
            look_soon: Notify::new(),
            sweep_soon: Notify::new(),
            operations: Arc::new(Semaphore::new(OPERATIONS as usize)),
        };
        core.fill(loaded.changes);
        let core = Arc::new(core);
        let reconciling = core.clone();
        let reconciliation = tokio::spawn(async move {
            reconciling.reconcile().await;
            reconciling.ready.send_replace(true);
            tracing::info!("start: journal and mounts agree");
        });
        Ok(Arc::new(Registry { core, tasks: Mutex::new(vec![reconciliation]) }))
    }

    fn start_sweeping(&self) {
        let core = self.core.clone();
        let background = tokio::spawn(async move {
            // A deadline that never passes: the tasks begin when the start is over.
            let mut ready = core.ready.subscribe();
            if ready.wait_for(|ready| *ready).await.is_err() {
                return;
            }
            tokio::join!(sweep::sweeper(core.clone()), sweep::refresher(core.clone()));
        });
        self.tasks.lock().push(background);
    }

    /// Waits until the comparison at start is over.
    pub async fn ready(&self) {
        let mut ready = self.core.ready.subscribe();
        // An error is the end of the registry itself, which we hold.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// Ends the background tasks and waits until running operations are over, for at most `patience`. Mounts stay.
    /// Requests that come later are refused.
    pub async fn shutdown(&self, patience: Duration) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        let idle = timeout(patience, self.core.operations.acquire_many(OPERATIONS)).await;
        match idle {
            Ok(permits) => {
                if let Ok(permits) = permits {
                    permits.forget();
                }
            }
            Err(_) => tracing::warn!(
                "operations are under way at the end; the next start completes or takes them back"
            ),
        }
        self.core.operations.close();
        if self.core.config.share_mount_dir {
            // Busy, as it should be, while a mount is below.
            let directory = self.core.config.mount_dir.clone();
            let _ = host::blocking::run("unshare", self.core.config.kernel, move || {
                host::mount::unmount(&directory).is_ok()
            })
            .await;
        }
    }

    /// The newest report of each mount's worker, from memory; for the metrics endpoint.
    pub fn reports(&self) -> Vec<(MountKey, WorkerReport)> {
        let tables = self.core.tables.lock();
        let reports =
            tables.mounts.iter().filter_map(|(key, mount)| Some((key.clone(), mount.report.clone()?)));
        reports.collect()
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().drain(..) {
            task.abort();
        }
    }
}

#[async_trait]
impl VolumeService for Registry {
    async fn define(
        &self,
        driver: Driver,
        name: &VolumeName,
        options: &OptionMap,
        caller: &Caller,
    ) -> Result<VolumeInfo, Fault> {
        self.core.define(driver, name, options, caller).await
    }

    async fn remove(&self, driver: Driver, name: &VolumeName) -> Result<(), Fault> {
        self.core.remove(driver, name).await
    }

    async fn get(&self, driver: Driver, name: &VolumeName) -> Result<VolumeInfo, Fault> {
        self.core.look_soon.notify_one();
        self.core.get(driver, name)
    }

    async fn list(&self, driver: Driver) -> Result<Vec<VolumeInfo>, Fault> {
        Ok(self.core.list(driver))
    }

    async fn acquire_named(
        &self,
        driver: Driver,
        name: &VolumeName,
        reference: &RefId,
        target: &Target,
    ) -> Result<Acquired, Fault> {
        let what = What::Named(driver, name.clone());
        self.core.acquire(Request::new(what, reference, target)).await
    }

    async fn acquire(
        &self,
        spec: &VolumeSpec,
        reference: &RefId,
        target: &Target,
        caller: &Caller,
    ) -> Result<Acquired, Fault> {
        let what = What::Given(spec.clone(), caller.clone());
        self.core.acquire(Request::new(what, reference, target)).await
    }

    async fn release(&self, reference: &RefId) -> Result<(), Fault> {
        self.core.release(reference).await
    }

    fn parse(
        &self,
        driver: Driver,
        name: Option<&str>,
        options: &OptionMap,
        form: &Form,
        caller: &Caller,
    ) -> Result<VolumeSpec, Fault> {
        self.core.backend(driver)?.parse(name, options, form, caller)
    }

    fn abilities(&self, driver: Driver) -> Result<Abilities, Fault> {
        let own = self.core.backend(driver)?.abilities();
        Ok(own.unwrap_or_else(|| nominal::abilities(&self.core, driver)))
    }

    fn node_abilities(&self, driver: Driver) -> Result<NodeAbilities, Fault> {
        Ok(self.core.backend(driver)?.node_abilities())
    }

    async fn mount_of(&self, reference: &RefId) -> Option<MountStatus> {
        self.core.look_soon.notify_one();
        self.core.tables.lock().status_of(reference)
    }

    async fn stats(&self, reference: &RefId) -> Result<VolumeStats, Fault> {
        self.core.stats(reference).await
    }

    async fn grow(&self, reference: &RefId, size: SizeRange) -> Result<u64, Fault> {
        self.core.grow(reference, size).await
    }

    async fn is_ready(&self) -> bool {
        *self.core.ready.borrow()
    }

    async fn mounts(&self) -> Vec<MountStatus> {
        self.core.look_soon.notify_one();
        self.core.tables.lock().statuses()
    }

    async fn refresh(&self, driver: Driver) -> Result<(), Fault> {
        let backend = self.core.backend(driver)?;
        let live: Vec<MountKey> = {
            let tables = self.core.tables.lock();
            let of_driver = tables
                .mounts
                .iter()
                .filter(|(_, mount)| mount.row.driver == driver && mount.row.state == MountState::Live);
            of_driver.map(|(key, _)| key.clone()).collect()
        };
        let gate = Arc::new(Semaphore::new(REFRESHES));
        let mut running = JoinSet::new();
        for key in live {
            let (core, backend, gate) = (self.core.clone(), backend.clone(), gate.clone());
            running.spawn(async move {
                let _turn = gate.acquire().await;
                let deadline = Instant::now() + core.config.release;
                let _guard = core.key(&key, deadline).await?;
                if core.state(&key) != MountState::Live {
                    return Ok(());
                }
                match tokio::time::timeout_at(deadline, backend.refresh(&key)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(late("refresh", key.as_str(), "the backend gave no answer in time")),
                }
            });
        }
        let mut first = Ok(());
        while let Some(done) = running.join_next().await {
            let answer = done.unwrap_or_else(|error| {
                Err(Fault::new(FaultKind::Internal, "refresh", "", error.to_string()))
            });
            if first.is_ok() {
                first = answer;
            }
        }
        self.core.look_soon.notify_one();
        first
    }
}
