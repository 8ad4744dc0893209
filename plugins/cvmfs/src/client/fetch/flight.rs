//! One transfer per object, however many want it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::FetchError;
use crate::client::cache::Object;
use crate::client::hash::ObjectId;

type Outcome = Result<Object, FetchError>;
type Table = Mutex<HashMap<ObjectId, (u64, Weak<Flight>)>>;

/// Transfers under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    table: Arc<Table>,
    next: AtomicU64,
}

/// One of them; aborted when the last one who waits for it goes.
#[derive(Debug)]
pub(super) struct Flight {
    id: ObjectId,
    number: u64,
    outcome: watch::Receiver<Option<Outcome>>,
    task: AbortHandle,
    table: Arc<Table>,
}

impl Flights {
    /// Joins the transfer of `id`, or begins it with `transfer`; the flag tells that it was joined. Needs a tokio runtime.
    pub(super) fn join<F>(&self, id: ObjectId, transfer: impl FnOnce() -> F) -> (Arc<Flight>, bool)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut table = self.table.lock();
        if let Some(flight) = table.get(&id).and_then(|(_, flight)| flight.upgrade()) {
            return (flight, true);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (land, outcome) = watch::channel(None);
        let work = transfer();
        let shared = Arc::clone(&self.table);
        let task = tokio::spawn(async move {
            let result = work.await;
            // From here on a new caller finds it in the cache.
            forget(&shared, &id, number);
            land.send_replace(Some(result));
        });
        let flight = Arc::new(Flight {
            id,
            number,
            outcome,
            task: task.abort_handle(),
            table: Arc::clone(&self.table),
        });
        table.insert(id, (number, Arc::downgrade(&flight)));
        (flight, false)
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table.lock().len()
    }
}

impl Flight {
    /// Its end.
    pub(super) async fn landed(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone().expect("waited for"),
            // The runtime is going down, or the task panicked.
            Err(_) => Err(FetchError::Stopped { url: self.id.to_string().into() }),
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
        forget(&self.table, &self.id, self.number);
    }
}

fn forget(table: &Table, id: &ObjectId, number: u64) {
    let mut table = table.lock();
    if table.get(id).is_some_and(|(current, _)| *current == number) {
        table.remove(id);
    }
}
