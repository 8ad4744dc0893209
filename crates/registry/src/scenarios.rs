//! What engines and people do, one story per test; each trap of facts/docker-plugin that concerns references is here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use volume::{
    Acquired, Caller, Driver, Fault, FaultKind, Frontend, MountState, OptionMap, RefId, Target, VolumeName,
    VolumeService,
};

use crate::Registry;
use crate::fake::{World, key, spec};

mod kubelet;
mod life;
mod nominal;
mod requests;
mod targets;
mod volumes;

const DRIVER: Driver = Driver::Cvmfs;
const DOCKER: Caller = Caller::admin(Frontend::Docker);
const LATER: Duration = Duration::from_secs(601);

struct Story {
    dir: TempDir,
    world: Arc<World>,
    registry: Arc<Registry>,
}

fn docker(volume: &str, id: &str) -> RefId {
    RefId { frontend: Frontend::Docker, scope: volume.into(), id: id.into() }
}

fn podman(volume: &str) -> RefId {
    RefId { frontend: Frontend::Podman, scope: volume.into(), id: "2f73".into() }
}

fn csi(target: &str) -> RefId {
    RefId { frontend: Frontend::Csi, scope: "volume".into(), id: target.into() }
}

fn name(text: &str) -> VolumeName {
    text.parse().unwrap()
}

impl Story {
    async fn new() -> Story {
        let (dir, world) = (tempfile::tempdir().unwrap(), World::new());
        let registry = world.open(dir.path()).await;
        registry.ready().await;
        Story { dir, world, registry }
    }

    async fn with_volume(volume: &str) -> Story {
        let story = Story::new().await;
        story.define(volume, &[]).await.unwrap();
        story
    }

    async fn define(&self, volume: &str, options: &[(&str, &str)]) -> Result<(), Fault> {
        let options: OptionMap = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.registry.define(DRIVER, &name(volume), &options, &DOCKER).await.map(|_| ())
    }

    async fn mount(&self, reference: &RefId) -> Result<Acquired, Fault> {
        self.registry.acquire_named(DRIVER, &name(&reference.scope), reference, &Target::Shared).await
    }

    async fn publish(&self, repository: &str, target: &str) -> Result<Acquired, Fault> {
        let at = Target::Bind(volume::BindTarget::directory(self.path(target)));
        let reference = csi(self.path(target).to_str().unwrap());
        self.registry.acquire(&spec(repository), &reference, &at, &Caller::admin(Frontend::Csi)).await
    }

    async fn unpublish(&self, target: &str) -> Result<(), Fault> {
        self.registry.release(&csi(self.path(target).to_str().unwrap())).await
    }

    fn path(&self, target: &str) -> PathBuf {
        Path::new("/pods").join(target)
    }

    async fn unmount(&self, reference: &RefId) {
        self.registry.release(reference).await.unwrap();
    }

    /// State and references of a mount; `None` if it is not shown.
    async fn shown(&self, repository: &str) -> Option<(MountState, Vec<String>)> {
        let mounts = self.registry.mounts().await;
        let mount = mounts.into_iter().find(|mount| mount.key == key(repository))?;
        Some((mount.state, mount.references.iter().map(RefId::to_string).collect()))
    }

    fn is_mounted(&self, repository: &str) -> bool {
        self.world.facts.lock().served.contains_key(&key(repository))
    }

    async fn sweep(&self, after: Duration) {
        self.registry.core().sweep(Instant::now() + after).await;
    }

    /// The daemon ends (or is killed between two operations) and starts again.
    async fn restart(self) -> Story {
        self.restart_in_boot("boot").await
    }

    async fn restart_in_boot(self, boot: &str) -> Story {
        let Story { dir, world, registry } = self;
        registry.shutdown(Duration::from_secs(10)).await;
        drop(registry);
        let registry = world.open_boot(dir.path(), boot, |_| ()).await.unwrap();
        registry.ready().await;
        Story { dir, world, registry }
    }
}
