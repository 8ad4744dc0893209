//! What the users of a mounted volume can ask about it: how full it is, and to let it grow.

use nix::sys::statvfs::statvfs;
use tokio::time::{Instant, timeout_at};
use volume::{Fault, FaultKind, MountKey, MountState, RefId, SizeRange, Usage, VolumeStats};

use crate::core::{Core, late};

impl Core {
    fn mount_held(&self, op: &str, reference: &RefId) -> Result<MountKey, Fault> {
        self.key_of(reference).ok_or_else(|| {
            let detail = "the volume is not mounted there";
            Fault::new(FaultKind::NotFound, op, reference.scope.clone(), detail)
        })
    }

    pub(crate) async fn stats(&self, reference: &RefId) -> Result<VolumeStats, Fault> {
        let key = self.mount_held("look at", reference)?;
        let unavailable =
            |detail: &str| Fault::new(FaultKind::Unavailable, "look at the volume", key.as_str(), detail);
        let live = self.row(&key).filter(|row| row.state == MountState::Live);
        let row = live.ok_or_else(|| unavailable("it is not mounted now, or its mount is dead"))?;
        let deadline = Instant::now() + self.config.inspect;
        let asked = timeout_at(deadline, self.backend(row.driver)?.stats(&key, &row.mountpoint)).await;
        if let Some(answer) = asked.map_err(|_| unavailable("the backend gave no answer in time"))? {
            return answer;
        }
        // A question to a file system that hangs keeps its thread for ever, and kubelet asks again every minute: so
        // there is one at a time for each mount, and the others wait for their deadline only.
        let turn = self.questions.enter(&key, deadline).await;
        let turn =
            turn.map_err(|_| unavailable("the file system has not answered an earlier question yet"))?;
        let (mountpoint, left) = (row.mountpoint, deadline.saturating_duration_since(Instant::now()));
        let asked = host::blocking::run("statfs", left, move || {
            let _turn = turn;
            statvfs(&mountpoint)
        });
        let answer = asked.await.map_err(|error| unavailable(&error.to_string()))?;
        let stat = answer.map_err(|error| unavailable(error.desc()))?;
        let unit = stat.fragment_size();
        let of = |total: u64, free: u64, available: u64| {
            (total != 0).then(|| Usage { total, used: total.saturating_sub(free), available })
        };
        Ok(VolumeStats {
            bytes: of(
                stat.blocks().saturating_mul(unit),
                stat.blocks_free().saturating_mul(unit),
                stat.blocks_available().saturating_mul(unit),
            ),
            inodes: of(stat.files(), stat.files_free(), stat.files_available()),
        })
    }

    pub(crate) async fn grow(&self, reference: &RefId, size: SizeRange) -> Result<u64, Fault> {
        let key = self.mount_held("grow", reference)?;
        let deadline = Instant::now() + self.config.acquire;
        let _guard = self.key(&key, deadline).await?;
        let row = self.row(&key).ok_or_else(|| late("grow", key.as_str(), "it is gone"))?;
        match timeout_at(deadline, self.backend(row.driver)?.grow(&key, &row.mountpoint, size)).await {
            Ok(answer) => answer,
            Err(_) => Err(late("grow", key.as_str(), "the backend gave no answer in time")),
        }
    }
}
