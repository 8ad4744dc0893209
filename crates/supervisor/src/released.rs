//! Mounts that are taken down here while somebody else still holds them.
//!
//! An unmount takes a file system out of the mount namespaces that share our mountpoint. It goes on to exist as long as
//! another namespace has a copy: that of a container that bound it, for example, which nobody can find in /proc who runs in
//! a PID namespace of his own. FUSE ends the connection when the last copy has gone, not before. So a mount whose
//! connection lives on after the unmount is *released*: its key and its mountpoint are free for another mount, while its
//! worker serves whoever is left, is watched and replaced as ever, and is found again by the next daemon. It ends when
//! the kernel says that nobody is left.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::keeper::{Keeper, Mount};
use crate::{clock, mounted};

/// How long after the unmount the kernel may take to end a connection that nobody holds.
const ENDING: Duration = Duration::from_secs(1);

/// Most released mounts of a pool. Each has a process of some 15 MiB, and a holder that forgets (a container that got a
/// copy of all the node's mounts when it started) must not make them more and more. What is unmounted beyond that is
/// ended for all, after the log has said so.
const LIMIT: usize = 64;

impl Keeper {
    /// After the unmount: whether somebody else holds the mount, which goes on as a released one then.
    pub(crate) fn release(&mut self, mount: &Mount) -> bool {
        if self.place.is_released() || mounted::is_gone_within(&mount.connection, ENDING) {
            return false;
        }
        let key = &self.request.key;
        if self.entry.released() >= LIMIT {
            tracing::error!(%key, LIMIT, "too many released mounts are still held elsewhere; this one is ended");
            return false;
        }
        let aside = match self.place.release(&self.request, self.token.as_deref()) {
            Ok(aside) => aside,
            Err(error) => {
                tracing::error!(%key, %error, "a mount that is still held elsewhere cannot be kept; it is ended");
                return false;
            }
        };
        self.house.store.remove(&self.label());
        self.place = aside;
        self.house.store.store(&self.label(), mount.connection.as_fd());
        self.view.lock().released = Some(clock::utc_now());
        self.entry.release();
        tracing::info!(%key, device = mount.connection.device_number(),
            "the mount is taken down, but another mount namespace still holds it; its worker serves on until that goes");
        true
    }

    /// The name of the mount's connection where descriptors are kept.
    pub(crate) fn label(&self) -> String {
        self.place.label(&self.request.key)
    }
}
