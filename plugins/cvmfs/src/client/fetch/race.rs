//! A few futures at once, the first to finish first.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

type Runner<K, T> = (K, Pin<Box<dyn Future<Output = T> + Send>>);

/// Futures with a key each. Dropping the race drops (and so cancels) those under way. Meant for a handful: each wake-up polls all.
pub(super) struct Race<K, T> {
    runners: Vec<Runner<K, T>>,
}

impl<K: Clone, T> Race<K, T> {
    pub(super) fn new() -> Self {
        Race { runners: Vec::with_capacity(2) }
    }

    pub(super) fn start(&mut self, key: K, future: impl Future<Output = T> + Send + 'static) {
        self.runners.push((key, Box::pin(future)));
    }

    pub(super) fn len(&self) -> usize {
        self.runners.len()
    }

    /// Keys of those under way.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.runners.iter().map(|(key, _)| key)
    }

    /// The next to finish; pending for ever when none is under way.
    pub(super) async fn next(&mut self) -> (K, T) {
        poll_fn(|context| {
            for index in 0..self.runners.len() {
                if let Poll::Ready(result) = self.runners[index].1.as_mut().poll(context) {
                    let (key, _) = self.runners.swap_remove(index);
                    return Poll::Ready((key, result));
                }
            }
            Poll::Pending
        })
        .await
    }
}
