//! Giving a reference back.

use std::sync::Arc;

use tokio::time::Instant;
use volume::{Fault, FaultKind, RefId};

use crate::core::Core;
use crate::table::Change;

impl Core {
    pub(crate) async fn release(self: &Arc<Self>, reference: &RefId) -> Result<(), Fault> {
        let deadline = Instant::now() + self.config.release;
        let lane = self.lane(reference, deadline).await?;
        let (core, id) = (self.clone(), reference.clone());
        let work = async move {
            let _lane = lane;
            core.wait_ready(deadline).await?;
            core.release_in_lane(&id, false).await
        };
        self.complete("unmount", &reference.scope, deadline, work).await
    }

    /// With `linger` the mount is kept for a while: its caller went away and may come again.
    pub(crate) async fn release_in_lane(&self, reference: &RefId, linger: bool) -> Result<(), Fault> {
        let Some(held) = self.held(reference) else {
            tracing::debug!(%reference, "release of an unknown reference");
            return self.free_unknown(reference).await;
        };
        let key = held.key;
        if let Some(bind) = &held.bind {
            self.unbind(reference, bind, true).await?;
        }
        self.commit(vec![Change::DropReference(reference.clone())]).await?;
        tracing::info!(%reference, %key, "released");
        let last = {
            let mut tables = self.tables.lock();
            let Some(mount) = tables.mounts.get_mut(&key) else { return Ok(()) };
            if linger {
                mount.linger_until = Some(Instant::now() + self.config.linger);
            }
            mount.references.is_empty() && !linger
        };
        // The reference is back, whatever becomes of the mount. Who gives back the last one sees to that.
        if last {
            self.let_go_now(&key).await;
        }
        Ok(())
    }

    /// Drops references that are over for another reason than a release, with their binds. The key's guard is
    /// held. One that a request is working on is left to it.
    pub(crate) async fn drop_references(&self, references: &[RefId]) -> Result<(), Fault> {
        for reference in references {
            let Some(held) = self.held(reference) else { continue };
            if self.tables.lock().claims.holds(reference) {
                continue;
            }
            if let Some(bind) = &held.bind {
                match self.unbind(reference, bind, false).await {
                    Err(fault) if fault.kind != FaultKind::NotFound => return Err(fault),
                    _ => {}
                }
            }
            self.commit(vec![Change::DropReference(reference.clone())]).await?;
        }
        Ok(())
    }
}
