//! Addresses of names: the system's resolver off the network tasks, with a deadline and a memory.
//!
//! A name that was resolved once never makes a call wait again: an old answer is used while a new one is fetched, and for ever
//! while none can be had. Names come from the configuration (and redirects), so their number is small; it is bounded anyway.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::address::Authority;

/// How long an answer is taken for new.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// How long a failure is.
const FAILED_FOR: Duration = Duration::from_secs(2);
/// How long the system's resolver is waited for in the background.
const LOOKUP_LIMIT: Duration = Duration::from_secs(30);
const MAX_NAMES: usize = 512;
const MAX_ADDRESSES: usize = 16;

#[derive(Debug, Default)]
struct Name {
    addresses: Arc<[SocketAddr]>,
    error: Option<String>,
    until: Option<Instant>,
    /// Closed when the lookup under way has ended.
    lookup: Option<watch::Receiver<()>>,
}

/// See the module. Clones share one memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Resolver {
    names: Arc<Mutex<HashMap<Authority, Name>>>,
}

impl Resolver {
    /// The addresses of a peer, at least one; waits at most `limit`.
    pub(super) async fn resolve(
        &self,
        peer: &Authority,
        limit: Duration,
    ) -> Result<Arc<[SocketAddr]>, String> {
        if let Ok(address) = peer.host.parse::<IpAddr>() {
            return Ok(Arc::new([SocketAddr::new(address, peer.port)]));
        }
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let mut lookup = {
                let mut names = self.names.lock();
                if names.len() >= MAX_NAMES && !names.contains_key(peer) {
                    names.clear();
                }
                let name = names.entry(peer.clone()).or_default();
                let is_new = name.until.is_some_and(|until| Instant::now() < until);
                if !is_new && name.lookup.is_none() {
                    name.lookup = Some(self.look_up(peer.clone()));
                }
                if !name.addresses.is_empty() {
                    return Ok(Arc::clone(&name.addresses));
                }
                match (&name.error, is_new) {
                    (Some(error), true) => return Err(error.clone()),
                    (None, true) => return Err("the resolver found no address".to_owned()),
                    (_, false) => name.lookup.clone().expect("set above"),
                }
            };
            // An error here is the lookup's end.
            if tokio::time::timeout_at(deadline, lookup.changed()).await.is_err() {
                return Err(format!("the resolver did not answer within {} s", limit.as_secs_f32()));
            }
        }
    }

    fn look_up(&self, peer: Authority) -> watch::Receiver<()> {
        let (running, lookup) = watch::channel(());
        let names = Arc::clone(&self.names);
        tokio::spawn(async move {
            let lookup = tokio::net::lookup_host((peer.host.clone(), peer.port));
            let answer = tokio::time::timeout(LOOKUP_LIMIT, lookup).await;
            let answer = match answer {
                Ok(Ok(addresses)) => Ok(addresses.take(MAX_ADDRESSES).collect::<Vec<_>>()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the resolver did not answer".to_owned()),
            };
            let mut names = names.lock();
            let name = names.entry(peer).or_default();
            name.lookup = None;
            let good = match answer {
                Ok(addresses) if !addresses.is_empty() => {
                    name.addresses = addresses.into();
                    name.error = None;
                    true
                }
                Ok(_) => false,
                Err(error) => {
                    name.error = Some(error);
                    false
                }
            };
            name.until = Some(Instant::now() + if good { FRESH_FOR } else { FAILED_FOR });
            drop(running);
        });
        lookup
    }
}
