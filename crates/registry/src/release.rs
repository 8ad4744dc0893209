//! Giving a reference back.

use std::sync::Arc;

use tokio::time::Instant;
use volume::{Fault, FaultKind, RefId};

use crate::core::Core;
use crate::mounting::LetGo;
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
        // An operation that moved the reference to another mount is over by the time its guard is ours.
        let (key, _guard, held) = loop {
            let Some(key) = self.key_of(reference) else {
                tracing::debug!(%reference, "release of an unknown reference");
                return Ok(());
            };
            let guard = self.key(&key, Instant::now() + self.config.release).await?;
            match self.held(reference) {
                Some(held) if held.key == key => break (key, guard, held),
                _ => {}
            }
        };
        if let Some(bind) = &held.bind {
            self.unbind(reference, bind).await?;
        }
        self.commit(vec![Change::DropReference(reference.clone())]).await?;
        tracing::info!(%reference, %key, "released");
        if linger {
            if let Some(mount) = self.tables.lock().mounts.get_mut(&key) {
                mount.linger_until = Some(Instant::now() + self.config.linger);
            }
            return Ok(());
        }
        // The reference is back, whatever becomes of the mount.
        match self.let_go(&key).await {
            LetGo::Referred | LetGo::Gone | LetGo::Seen(_) | LetGo::Failed(_) => Ok(()),
        }
    }

    /// Drops references that are over for another reason than a release, with their binds. The key's guard is held.
    pub(crate) async fn drop_references(&self, references: &[RefId]) -> Result<(), Fault> {
        for reference in references {
            let Some(held) = self.held(reference) else { continue };
            if let Some(bind) = &held.bind {
                match self.unbind(reference, bind).await {
                    Err(fault) if fault.kind != FaultKind::NotFound => return Err(fault),
                    _ => {}
                }
            }
            self.commit(vec![Change::DropReference(reference.clone())]).await?;
        }
        Ok(())
    }
}
