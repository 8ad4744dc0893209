//! Worker processes that serve FUSE mounts and outlive the daemon.
//!
//! Each mount has a process of its own, so that its crash, leak or hang touches no other mount. The daemon keeps a duplicate of
//! each FUSE connection: when a worker dies, a new one adopts the connection and unanswered requests are delivered again;
//! when the daemon dies, workers go on and the next daemon finds them by their sockets; when both die, the service
//! manager's fd store has the connections.
//!
//! [`Pool`] is the daemon's side, [`worker_main`] the worker's. Between them lies `protocol`.

mod adopt;
mod broker;
mod clock;
mod confine;
mod crash;
mod endings;
mod entries;
mod fdstore;
mod house;
mod keeper;
mod link;
mod mounted;
mod nursery;
mod origin;
mod packet;
mod place;
mod pool;
mod privileges;
mod process;
mod protocol;
mod reach;
mod released;
mod runtime;
mod servant;
mod spawn;
mod stage;
mod user;
mod waiting;
mod watch;
mod worker;

pub use house::Limits;
pub use nursery::{NurseryConfig, NurseryServeError, nursery_main};
pub use pool::{Pool, PoolConfig};
pub use privileges::PrivilegeError;
pub use runtime::{WorkerError, worker_main};
pub use servant::{PreparedServant, Servant, ServeContext, ServingServant};
pub use spawn::Program;
pub use user::{FALLBACK_ID, WorkerUser, WorkerUserError};
