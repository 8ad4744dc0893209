//! Joins a worker process with the storage plugins.

use std::sync::Arc;

use nix::unistd::{Gid, Uid};
use supervisor::{PreparedServant, Servant, ServeContext, ServingServant, WorkerError, WorkerUser};
use volume::{Driver, Fault, FaultKind, WorkerReport};

use crate::cli;

/// Runs the process as a worker until its mount is gone. The process must have one thread.
pub(crate) fn run(arguments: &cli::Worker) -> Result<(), WorkerError> {
    let user = match (arguments.uid, arguments.gid) {
        (Some(uid), Some(gid)) => Some(WorkerUser { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid) }),
        (Some(_) | None, _) => None,
    };
    supervisor::worker_main(Arc::new(Plugins), user)
}

struct Plugins;

impl Servant for Plugins {
    fn prepare(
        &self,
        driver: Driver,
        payload: serde_json::Value,
        offline: bool,
    ) -> Result<Box<dyn PreparedServant>, Fault> {
        match driver {
            Driver::Cvmfs => Ok(Box::new(PreparedCvmfs(cvmfs::worker::prepare(payload, offline)?))),
            Driver::Eos | Driver::Rbd => {
                let detail = "this build has no backend for the driver";
                Err(Fault::new(FaultKind::Unsupported, "serve", driver.as_str(), detail))
            }
        }
    }
}

struct PreparedCvmfs(cvmfs::worker::Prepared);

impl PreparedServant for PreparedCvmfs {
    fn serve(self: Box<Self>, context: ServeContext) -> Result<Arc<dyn ServingServant>, Fault> {
        let ServeContext { connection, adopted, state, backings } = context;
        let serving = self.0.serve(cvmfs::worker::ServeContext { connection, adopted, state, backings })?;
        Ok(Arc::new(ServingCvmfs(serving)))
    }
}

struct ServingCvmfs(cvmfs::worker::Serving);

impl ServingServant for ServingCvmfs {
    fn report(&self) -> WorkerReport {
        self.0.report()
    }

    fn refresh(&self) -> Result<(), Fault> {
        self.0.refresh()
    }

    fn stop(&self) {
        self.0.stop();
    }

    fn wait(&self) {
        self.0.wait();
    }
}
