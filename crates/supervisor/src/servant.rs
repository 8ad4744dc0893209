//! What the code in a worker implements; the composition root joins it with a storage plugin.

use std::fs::File;
use std::sync::Arc;

use volume::{Driver, Fault, WorkerReport};

/// What a worker has at hand when it begins to serve.
pub struct ServeContext {
    /// The FUSE connection; INIT is done.
    pub connection: fuse::Connection,
    /// Another worker served this connection before; requests that it left unanswered come again.
    pub adopted: bool,
    /// What the worker leaves to its successor; empty at the first time.
    pub state: File,
    /// Registers files for passthrough; refuses while no daemon runs.
    pub backings: Arc<dyn fuse::Backings>,
}

/// Makes file systems. All methods run without privileges.
pub trait Servant: Send + Sync + 'static {
    /// Verifies and opens what `payload` describes. With `offline` the mount exists already and a server that cannot be
    /// reached is no reason to fail.
    fn prepare(
        &self,
        driver: Driver,
        payload: serde_json::Value,
        offline: bool,
    ) -> Result<Box<dyn PreparedServant>, Fault>;
}

/// A file system that is verified and open but not served.
pub trait PreparedServant: Send {
    /// Begins to serve and returns; the serving goes on in threads of its own.
    fn serve(self: Box<Self>, context: ServeContext) -> Result<Arc<dyn ServingServant>, Fault>;
}

/// A file system that is served.
pub trait ServingServant: Send + Sync {
    /// How it is now. Answers at once.
    fn report(&self) -> WorkerReport;
    /// Looks for changes and applies them; may wait for the network, bounded.
    fn refresh(&self) -> Result<(), Fault>;
    /// Ends the serving; what is in flight is finished, bounded.
    fn stop(&self);
    /// Returns when the kernel has closed the connection (unmounted) or after [`stop`](Self::stop).
    fn wait(&self);
}
