//! Kubernetes FlexVolume over [`volume::VolumeService`].
//!
//! Kubelet runs an executable for each call and reads one JSON object from its output. The executable here
//! (`volplane-flexvolume`: [`answer`]) is small, blocking and knows nothing of mounts: it carries `mount` and `unmount`
//! over the daemon's control socket to [`Server`], which turns them into an acquire and a release. What was
//! measured with real kubelets (1.20, 1.36) and shapes the code:
//!
//! - kubelet reads standard output and standard error together: one byte on the latter breaks the answer;
//! - it takes any mountpoint at the target for success and then never asks again: a failed call must leave none;
//! - it never ends a call that hangs: the executable has a deadline of its own, and its hang-up makes the daemon
//!   take the mount back ([`Server::mount`] gives a mount that counts only when the caller has confirmed it);
//! - when a call ends with another exit status than 0, kubelet logs its arguments, with the secrets in them
//!   ([`Outcome::exit_status`]);
//! - `unmount` has no options, so all state is kept by path.

#![forbid(unsafe_code)]

mod answer;
mod call;
mod client;
mod drivers;
pub mod install;
mod kubelet;
mod place;
mod server;
mod settings;
mod status;
mod wire;

pub use answer::{Environment, Outcome, answer};
pub use kubelet::KubeletOptions;
pub use server::{Pending, Server};
pub use settings::{DEFAULT_RUN_DIR, SETTINGS_FILE, Settings, SettingsError};
pub use wire::{MountRequest, UnmountRequest};
