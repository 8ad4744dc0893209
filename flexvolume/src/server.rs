//! The daemon's side: kubelet's `mount` and `unmount` as acquire and release.
//!
//! A mount counts only when its caller has confirmed it. Kubelet takes a call that was killed for one that failed and sends
//! no unmount for it, so what the caller did not get to know has to go again. The registry undoes an acquire whose future
//! is dropped; the moments between its answer and the confirmation are covered here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use volume::{BindTarget, Caller, Driver, Fault, FaultKind, Form, Frontend, Sharing, Target, VolumeService};

use crate::wire::{MountRequest, UnmountRequest, reference};

/// New mounts that are not confirmed yet: target, and which of its calls was the last.
type Unconfirmed = Arc<Mutex<BTreeMap<String, u64>>>;

/// Answers the executable's requests.
pub struct Server {
    service: Arc<dyn VolumeService>,
    kubelet_dir: PathBuf,
    unconfirmed: Unconfirmed,
    calls: AtomicU64,
}

/// A mount whose caller does not know of it yet. It ends with [`keep`](Pending::keep) or
/// [`give_back`](Pending::give_back).
#[must_use = "a mount is kept or given back"]
pub struct Pending {
    service: Arc<dyn VolumeService>,
    unconfirmed: Unconfirmed,
    target: String,
    call: u64,
    path: PathBuf,
}

impl Server {
    /// Nothing is mounted outside `kubelet_dir` (kubelet's `--root-dir`).
    pub fn new(service: Arc<dyn VolumeService>, kubelet_dir: PathBuf) -> Server {
        Server { service, kubelet_dir, unconfirmed: Unconfirmed::default(), calls: AtomicU64::new(0) }
    }

    /// Makes the volume available. Dropping the future takes back what it has begun.
    ///
    /// # Errors
    /// Those of the options and of the acquire; then nothing is mounted that was not before.
    pub async fn mount(&self, request: &MountRequest) -> Result<Pending, Fault> {
        let wanted = request.options.typed()?;
        let pod = &wanted.pod;
        tracing::info!(
            driver = %request.driver, volume = pod.volume, pod = pod.name, namespace = pod.namespace, uid = pod.uid,
            service_account = pod.service_account, "mount for a pod"
        );
        // Kubelet does not tell a pod's own volume from an admin's PersistentVolume.
        let caller = Caller::pod(Frontend::Flexvolume).with_secrets(wanted.secrets);
        let form = Form::Filesystem { fs_type: wanted.fs_type, mount_flags: Vec::new(), group: wanted.group };
        let spec = self.service.parse(request.driver, None, &wanted.options, &form, &caller)?;
        let read_only = match request.driver {
            // Kubelet says rw unless the pod says otherwise; there is nothing to write to.
            Driver::Cvmfs => true,
            Driver::Eos | Driver::Rbd => wanted.read_only,
        };
        let target = Target::Bind(BindTarget {
            path: request.target.clone().into(),
            beneath: Some(self.kubelet_dir.clone()),
            read_only,
            sharing: Sharing::Shared,
        });
        let user = reference(&request.target);
        let held = self.service.mount_of(&user).await.is_some();
        let acquired = self.service.acquire(&spec, &user, &target, &caller).await;
        let acquired = acquired.map_err(|fault| self.explained(fault, &request.target))?;
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        {
            let mut unconfirmed = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
            // One that was confirmed before stays, whatever becomes of this call.
            if !held || unconfirmed.contains_key(&request.target) {
                unconfirmed.insert(request.target.clone(), call);
            }
        }
        Ok(Pending {
            service: self.service.clone(),
            unconfirmed: self.unconfirmed.clone(),
            target: request.target.clone(),
            call,
            path: acquired.path,
        })
    }

    /// A kubelet whose root directory is not the one that the daemon knows is the likely reason for a target outside.
    fn explained(&self, mut fault: Fault, target: &str) -> Fault {
        if fault.kind == FaultKind::InvalidArgument && !Path::new(target).starts_with(&self.kubelet_dir) {
            let kubelet_dir = self.kubelet_dir.display();
            fault.detail = format!(
                "{}; kubelet_dir of the daemon is {kubelet_dir}, which must be kubelet's --root-dir",
                fault.detail
            );
        }
        fault
    }

    /// Takes back what is at a directory. Of what is not mounted: success.
    ///
    /// # Errors
    /// Those of the release.
    pub async fn unmount(&self, request: &UnmountRequest) -> Result<(), Fault> {
        self.service.release(&reference(&request.target)).await
    }
}

impl Pending {
    /// Where the volume is.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The caller knows.
    pub fn keep(self) {
        // Also an earlier call's mount of the same place: it is the same mount.
        self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.target);
    }

    /// The caller is gone. What was there before it came stays, and so does what a later call has taken over.
    pub async fn give_back(self) {
        let mine = {
            let mut unconfirmed = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
            let mine = unconfirmed.get(&self.target) == Some(&self.call);
            if mine {
                unconfirmed.remove(&self.target);
            }
            mine
        };
        if !mine {
            return;
        }
        let user = reference(&self.target);
        match self.service.release(&user).await {
            Ok(()) => tracing::info!(reference = %user, "the caller went away; its mount is taken back"),
            Err(fault) => {
                tracing::warn!(reference = %user, %fault, "the mount of a caller that went away stays");
            }
        }
    }
}

#[cfg(test)]
mod tests;
