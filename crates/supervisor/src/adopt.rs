//! What outlived the daemon: workers that serve on, connections in the fd store, dead mounts.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use host::inherited::InheritedFd;
use volume::{Driver, Survivor};

use crate::fdstore::FdStore;
use crate::keeper::{Mount, clean_away};
use crate::mounted;
use crate::place::{self, Recorded};
use crate::pool::Pool;
use crate::worker::Worker;

/// Adopts every recorded mount: its worker if that lives, else its connection if the store has it; else the dead mount
/// is cleaned away.
pub(crate) fn adopt_all(pool: &Pool, inherited: Vec<InheritedFd>) -> io::Result<Vec<(Driver, Survivor)>> {
    let mut stored: HashMap<String, OwnedFd> = HashMap::new();
    for InheritedFd { name, fd } in inherited {
        match FdStore::label_of(&name) {
            Some(label) => drop(stored.insert(label.to_owned(), fd)),
            None => tracing::warn!(name, "an inherited fd has a name that means nothing here; it is closed"),
        }
    }
    let recorded = place::recorded(&pool.house().directory)?;
    // In parallel: a worker that hangs must not hold up the others.
    let survivors = std::thread::scope(|scope| {
        let adoptions: Vec<_> = recorded
            .into_iter()
            .map(|recorded| {
                let fd = stored.remove(&recorded.place.label(&recorded.request.key));
                scope.spawn(move || adopt_one(pool, recorded, fd))
            })
            .collect();
        adoptions.into_iter().filter_map(|adoption| adoption.join().ok().flatten()).collect()
    });
    for label in stored.keys() {
        tracing::info!(label, "a stored connection has no record; it is closed");
        pool.house().store.remove(label);
    }
    Ok(survivors)
}

/// `None`: nothing that the registry would know, as the mount is released.
fn adopt_one(pool: &Pool, recorded: Recorded, stored: Option<OwnedFd>) -> Option<(Driver, Survivor)> {
    let (place, request) = (recorded.place.clone(), &recorded.request);
    let (key, driver, mountpoint) = (request.key.clone(), request.driver, request.mountpoint.clone());
    let alive = match take_over(pool, recorded, stored) {
        Ok(how) => {
            tracing::info!(%key, how, "a mount outlived the daemon and is adopted");
            true
        }
        Err(why) => {
            tracing::warn!(%key, why, mountpoint = %mountpoint.display(),
                "a mount did not outlive the daemon; it is cleaned away and made anew at its next use");
            pool.house().store.remove(&place.label(&key));
            if !place.is_released() {
                clean_away(&mountpoint);
            }
            place.remove();
            false
        }
    };
    (!place.is_released()).then_some((driver, Survivor { key, mountpoint, alive }))
}

fn take_over(pool: &Pool, recorded: Recorded, stored: Option<OwnedFd>) -> Result<&'static str, String> {
    let state = recorded.place.open_state().map_err(|error| format!("its state file: {error}"))?;
    let was_stored = stored.is_some();
    let (worker, connection, predecessor) = match Worker::adopt(pool.house(), &recorded, stored) {
        Ok((worker, connection)) => (Some(worker), connection, None),
        Err(error) => {
            let fd = error.stored.ok_or_else(|| format!("its worker does not serve: {}", error.why))?;
            (None, fuse::Connection::from_fd(fd), error.predecessor)
        }
    };
    if mounted::is_gone(&connection) {
        let _ending = worker.or(predecessor.map(|worker| *worker)).map(Worker::end);
        return Err("it was unmounted meanwhile".to_owned());
    }
    let how = if worker.is_some() {
        "its worker serves"
    } else {
        "its worker does not serve; its connection was saved for a new one"
    };
    let Recorded { place, request, token } = recorded;
    let (mut keeper, handle) = pool.keeper(place, request).map_err(|fault| fault.to_string())?;
    keeper.token = token;
    keeper.predecessor = predecessor;
    if !was_stored {
        keeper.house.store.store(&keeper.label(), connection.as_fd());
    }
    let mut worker = worker;
    if let Some(worker) = &mut worker {
        keeper.first_report(worker);
        if let Some(nursery) = worker.process.nursery() {
            nursery.keep(connection.as_fd());
        }
    }
    pool.take_on(keeper, handle, worker, Mount { connection, state }).map_err(|fault| fault.to_string())?;
    Ok(how)
}
