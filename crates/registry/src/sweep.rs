//! What happens without anybody asking: unused mounts go, forgotten references are found, every mount is looked at.

use std::sync::Arc;

use host::mount::place::Node;
use tokio::time::{Duration, Instant};
use volume::{Fault, Frontend, MountKey, MountState, RefId};

use crate::bind::Source;
use crate::core::Core;
use crate::kernel::Asked;
use crate::mounting::LetGo;

/// Requests for an early sweep are served no more often than this.
const PAUSE: Duration = Duration::from_millis(500);

impl Core {
    /// One sweep over all mounts, as if it was `now`. Mounts that an operation works on are left for the next one.
    pub(crate) async fn sweep(&self, now: Instant) {
        let asked: Vec<(MountKey, Asked)> = {
            let tables = self.tables.lock();
            let ask = |mount: &crate::table::Mount| Asked {
                primary: mount.row.mountpoint.clone(),
                device: mount.row.device,
            };
            tables.mounts.iter().map(|(key, mount)| (key.clone(), ask(mount))).collect()
        };
        if asked.is_empty() {
            return;
        }
        let (keys, questions): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        match self.kernel.seen(&questions).await {
            Ok(answers) => {
                let mut tables = self.tables.lock();
                for (key, who) in keys.iter().zip(answers) {
                    if let Some(mount) = tables.mounts.get_mut(key) {
                        mount.seen = who.is_some();
                        if mount.seen {
                            mount.last_seen = Some(now);
                        }
                    }
                }
            }
            Err(fault) => {
                tracing::warn!(%fault, "nobody can say who sees our mounts; nothing is taken down");
                return;
            }
        }
        for key in keys {
            let Ok(_guard) = self.keys.try_enter(&key) else { continue };
            if let Err(fault) = self.sweep_one(&key, now).await {
                tracing::warn!(%key, %fault, "sweep of a mount failed; tried again at the next one");
            }
        }
    }

    async fn sweep_one(&self, key: &MountKey, now: Instant) -> Result<(), Fault> {
        self.settle(key).await?;
        self.forget_references(key, now).await?;
        let (unused, lingers, heal) = {
            let mut tables = self.tables.lock();
            let Some(mount) = tables.mounts.get_mut(key) else { return Ok(()) };
            let lingers = mount.linger_until.is_some_and(|until| now < until);
            let dead = matches!(mount.row.state, MountState::Absent | MountState::Stale);
            let heal = dead && mount.is_counted_on() && mount.may_heal(now);
            let heal = mount.row.resolved.clone().filter(|_| heal);
            (mount.references.is_empty(), lingers, heal)
        };
        if unused && !lingers {
            if self.let_go(key).await == LetGo::Gone {
                tracing::info!(%key, "unused mount is gone");
            }
            return Ok(());
        }
        if let Some(resolved) = heal {
            tracing::info!(%key, "somebody counts on the mount, which is not there; it is made again");
            let clock = Instant::now();
            if let Err(fault) = self.make_live(&resolved, clock, clock + self.config.acquire).await {
                self.remember(key, &fault.to_string());
                return Err(fault);
            }
            if let Some((_hold, device)) = self.hold(key) {
                self.heal_binds(Source { key, device, node: Node::Directory }, None).await;
            }
        }
        Ok(())
    }

    /// Drops Docker's references of a mount that no namespace has shown for the grace time, counted from when a
    /// reference was last renewed. The engine's losses (facts: docker-plugin 1.3, 2.4) end here.
    async fn forget_references(&self, key: &MountKey, now: Instant) -> Result<(), Fault> {
        let forgotten: Vec<RefId> = {
            let tables = self.tables.lock();
            let Some(mount) = tables.mounts.get(key) else { return Ok(()) };
            if mount.seen {
                return Ok(());
            }
            let over = |since: Instant| now.saturating_duration_since(since) >= self.config.grace;
            if !mount.last_seen.is_none_or(over) {
                return Ok(());
            }
            let sweepable = |frontend| match frontend {
                Frontend::Docker => true,
                // Podman's count outlives everything but a reboot; the others always come back with a release.
                Frontend::Podman | Frontend::Flexvolume | Frontend::Csi | Frontend::Cli => false,
            };
            let old = mount
                .references
                .iter()
                .filter(|(id, held)| sweepable(id.frontend) && held.row.bind.is_none() && over(held.renewed));
            old.map(|(id, _)| id.clone()).collect()
        };
        if forgotten.is_empty() {
            return Ok(());
        }
        // Asked once more under the guard: a container may have started since the sweep's question.
        let asked = Asked { primary: self.mountpoint(key), device: self.row(key).and_then(|row| row.device) };
        if self.kernel.seen(&[asked]).await?.pop().flatten().is_some() {
            return Ok(());
        }
        tracing::info!(
            %key, references = ?forgotten, grace_s = self.config.grace.as_secs(),
            "no namespace shows the mount and nobody renewed these references; the engine forgot them, they are dropped"
        );
        self.drop_references(&forgotten).await
    }

    /// Looks at every mount that no operation works on.
    pub(crate) async fn look_at_all(&self) {
        let keys: Vec<MountKey> = {
            let tables = self.tables.lock();
            let there = tables.mounts.iter().filter(|(_, mount)| mount.row.state != MountState::Absent);
            there.map(|(key, _)| key.clone()).collect()
        };
        for key in keys {
            let Ok(_guard) = self.keys.try_enter(&key) else { continue };
            if let Err(fault) = self.look(&key).await {
                tracing::debug!(%key, %fault, "a look at a mount failed");
                self.remember(&key, &fault.to_string());
            }
        }
    }
}

/// Sweeps for ever.
pub(crate) async fn sweeper(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(core.config.sweep_every) => {}
            () = core.sweep_soon.notified() => tokio::time::sleep(PAUSE).await,
        }
        core.sweep(Instant::now()).await;
    }
}

/// Looks for ever.
pub(crate) async fn refresher(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(core.config.inspect_every) => {}
            () = core.look_soon.notified() => {}
        }
        core.look_at_all().await;
    }
}
