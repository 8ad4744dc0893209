//! Mounting before anybody refers to a volume: Podman gives every call five seconds (facts: docker-plugin 2.7), which a
//! cold mount over a long way can exceed. So what Podman defines is mounted in the background at once, kept for a
//! while, and its Mount finds it there.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};
use volume::{Caller, Driver, Fault, VolumeName};

use crate::core::{Core, late};
use crate::mounting::LetGo;

impl Core {
    /// Runs in a task of its own; nobody waits for it.
    pub(crate) async fn warm(self: Arc<Self>, driver: Driver, name: VolumeName, caller: Caller) {
        let Ok(_permit) = self.operation() else { return };
        match self.warm_up(driver, &name, &caller).await {
            Ok(()) => tracing::info!(volume = %name, "mounted ahead of its first use"),
            Err(fault) => {
                tracing::warn!(volume = %name, %fault, "could not be mounted ahead of its first use");
                self.note_volume_error(driver, &name, Some(&fault));
            }
        }
    }

    async fn warm_up(&self, driver: Driver, name: &VolumeName, caller: &Caller) -> Result<(), Fault> {
        let deadline = Instant::now() + self.config.acquire;
        self.wait_ready(deadline).await?;
        let Some(spec) = self.spec_of(driver, name) else { return Ok(()) };
        let resolved = timeout_at(deadline, self.backend(driver)?.resolve(&spec, caller))
            .await
            .map_err(|_| late("read the configuration for", name.as_str(), "gave no answer in time"))??;
        let key = &resolved.key;
        let _guard = self.key(key, deadline).await?;
        let live = self.make_live(&resolved, Instant::now(), deadline).await;
        if let Err(fault) = live {
            if let LetGo::Seen(_) | LetGo::Failed(_) = self.let_go(key).await {
                self.sweep_soon.notify_one();
            }
            return Err(fault);
        }
        self.remember_key(driver, Some(name), key).await;
        if let Some(mount) = self.tables.lock().mounts.get_mut(key) {
            mount.linger_until = Some(Instant::now() + self.config.linger);
        }
        Ok(())
    }
}
