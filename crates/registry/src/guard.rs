//! Keyed guards: one operation at a time per key, in the order of arrival.
//!
//! There are two sets. A *lane* orders what comes in about one use (Docker: one volume), because a late Unmount that
//! overtakes a Mount with the same id would take a live container's mount away. A *key* guard holds a mount while it
//! is changed. Lanes are entered before keys, and never two of one set at once, so nothing can wait in a circle.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

/// At most so many wait for one key; more are told that it is busy.
const LIMIT: usize = 1024;

type Map<K> = Arc<Mutex<HashMap<K, Arc<Turn<()>>>>>;

/// A set of guards. Keys without holder and waiters take no memory.
#[derive(Debug)]
pub(crate) struct Guards<K: Eq + Hash + Clone> {
    map: Map<K>,
}

/// The right to work on a key; ends with the value, also when that happens in a dropped future.
#[derive(Debug)]
pub(crate) struct Guard<K: Eq + Hash + Clone> {
    // Field order is drop order: the turn ends, then the key is tidied away.
    _turn: OwnedMutexGuard<()>,
    _ticket: Ticket<K>,
}

#[derive(Debug)]
struct Ticket<K: Eq + Hash + Clone> {
    key: K,
    turn: Option<Arc<Turn<()>>>,
    map: Map<K>,
}

/// The key is held by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held;

impl<K: Eq + Hash + Clone> Guards<K> {
    pub(crate) fn new() -> Self {
        Guards { map: Arc::default() }
    }

    fn ticket(&self, key: &K) -> (Ticket<K>, Arc<Turn<()>>, usize) {
        let mut map = self.map.lock();
        let turn = map.entry(key.clone()).or_default().clone();
        let others = Arc::strong_count(&turn) - 2;
        (Ticket { key: key.clone(), turn: Some(turn.clone()), map: self.map.clone() }, turn, others)
    }

    /// Waits for the key in the order of arrival, until the deadline.
    pub(crate) async fn enter(&self, key: &K, deadline: Instant) -> Result<Guard<K>, Held> {
        let (ticket, turn, others) = self.ticket(key);
        // A holder and each waiter have two handles.
        if others / 2 > LIMIT {
            return Err(Held);
        }
        let turn = timeout_at(deadline, turn.lock_owned()).await.map_err(|_| Held)?;
        Ok(Guard { _turn: turn, _ticket: ticket })
    }

    /// Takes the key if nobody has it.
    pub(crate) fn try_enter(&self, key: &K) -> Result<Guard<K>, Held> {
        let (ticket, turn, _) = self.ticket(key);
        let turn = turn.try_lock_owned().map_err(|_| Held)?;
        Ok(Guard { _turn: turn, _ticket: ticket })
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.map.lock().len()
    }
}

impl<K: Eq + Hash + Clone> Drop for Ticket<K> {
    fn drop(&mut self) {
        let mut map = self.map.lock();
        self.turn = None;
        // Handles are only made under the map's lock, so a count of one cannot grow behind our back.
        if map.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            map.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_arrival() {
        let guards = Arc::new(Guards::new());
        let first = guards.enter(&1, soon()).await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..8)
            .map(|number| {
                let (guards, order) = (guards.clone(), order.clone());
                let mut enter = Box::pin(async move {
                    let _guard = guards.enter(&1, soon()).await.unwrap();
                    order.lock().push(number);
                });
                // Polled once: it stands in the queue now.
                assert!(futures_poll_once(&mut enter));
                enter
            })
            .collect();
        drop(first);
        let mut running: Vec<_> = tasks.into_iter().rev().map(tokio::spawn).collect();
        while let Some(task) = running.pop() {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), (0..8).collect::<Vec<_>>());
        assert_eq!(guards.held(), 0);
    }

    /// Whether a future is pending after one poll.
    fn futures_poll_once(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::Pin::new(future).poll(&mut context).is_pending()
    }

    #[tokio::test]
    async fn a_held_key_is_busy_and_others_are_free() {
        let guards = Guards::new();
        let guard = guards.try_enter(&"a").unwrap();
        assert_eq!(guards.try_enter(&"a").unwrap_err(), Held);
        assert_eq!(guards.enter(&"a", Instant::now()).await.unwrap_err(), Held);
        drop(guards.try_enter(&"b").unwrap());
        drop(guard);
        drop(guards.try_enter(&"a").unwrap());
        assert_eq!(guards.held(), 0);
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing() {
        let guards = Guards::new();
        let guard = guards.try_enter(&1).unwrap();
        let mut waiter = Box::pin(guards.enter(&1, soon()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiter.as_mut().poll(&mut context).is_pending());
        drop(guard);
        drop(waiter);
        assert_eq!(guards.held(), 0);
    }
}
