//! Which proxy and which server a request may use, best first.
//!
//! A route is a (proxy, server) pair out of the site's lists; nothing here can make any other. What failed is avoided until its
//! reset time, and used all the same when everything failed.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::{Proxy, ServerUrl};
use super::config::Origin;
use super::peer::{Health, Peer, Peers};

/// Indexes into the policy's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) proxy: usize,
    pub(super) server: usize,
}

/// A proxy of the list.
#[derive(Debug)]
pub(super) struct ProxyEntry {
    pub(super) proxy: Proxy,
    /// `None` for DIRECT.
    pub(super) peer: Option<Arc<Peer>>,
}

/// A server of the list.
#[derive(Debug)]
pub(super) struct ServerEntry {
    pub(super) url: ServerUrl,
    /// For requests without a proxy.
    pub(super) peer: Arc<Peer>,
    pub(super) health: Health,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Policy {
    proxies: Vec<ProxyEntry>,
    servers: Vec<ServerEntry>,
    timeout: Duration,
    timeout_direct: Duration,
}

impl Policy {
    pub(super) fn new(origin: &Origin, peers: &Peers) -> Self {
        let mut proxies = Vec::new();
        for group in origin.proxies.groups() {
            // Each process begins somewhere else in a group, and stays there: that balances the load over a site and keeps
            // what one client wants in one proxy's cache.
            let first = RandomState::new().hash_one(group.len()) as usize % group.len().max(1);
            for proxy in group[first..].iter().chain(&group[..first]) {
                let peer = match proxy {
                    Proxy::Direct => None,
                    Proxy::Http(authority) => Some(peers.get(authority)),
                };
                proxies.push(ProxyEntry { proxy: proxy.clone(), peer });
            }
        }
        let server = |url: &ServerUrl| ServerEntry {
            url: url.clone(),
            peer: peers.get(url.authority()),
            health: Health::default(),
        };
        let servers = origin.servers.as_slice().iter().map(server).collect();
        Policy { proxies, servers, timeout: origin.timeout, timeout_direct: origin.timeout_direct }
    }

    pub(super) fn proxy(&self, route: Route) -> &ProxyEntry {
        &self.proxies[route.proxy]
    }

    pub(super) fn server(&self, route: Route) -> &ServerEntry {
        &self.servers[route.server]
    }

    /// Whom the TCP connection of a route goes to.
    pub(super) fn peer(&self, route: Route) -> &Arc<Peer> {
        self.proxy(route).peer.as_ref().unwrap_or(&self.server(route).peer)
    }

    /// Whether the proxy of a route, or without one its server, is out of favour.
    pub(super) fn is_avoided(&self, route: Route) -> bool {
        let health = match &self.proxy(route).peer {
            Some(proxy) => &proxy.health,
            None => &self.server(route).health,
        };
        health.avoided_until(Instant::now()).is_some()
    }

    /// The attempt's limit on connecting and on silence.
    pub(super) fn timeout(&self, route: Route) -> Duration {
        if self.proxy(route).peer.is_some() { self.timeout } else { self.timeout_direct }
    }

    /// Proxies in the order in which they are to be used now.
    pub(super) fn proxies_in_order(&self) -> Vec<usize> {
        let now = Instant::now();
        in_order(&self.proxies, |entry| entry.peer.as_ref().and_then(|peer| peer.health.avoided_until(now)))
    }

    /// Servers likewise.
    pub(super) fn servers_in_order(&self) -> Vec<usize> {
        let now = Instant::now();
        in_order(&self.servers, |entry| entry.health.avoided_until(now))
    }

    /// Puts the server that is used first out of favour for `period`, if there is another one in favour to use
    /// instead; says whether there is.
    pub(super) fn pass_over_server(&self, period: Duration) -> bool {
        let now = Instant::now();
        let order = self.servers_in_order();
        let Some((first, others)) = order.split_first() else { return false };
        let another = others.iter().any(|other| self.servers[*other].health.avoided_until(now).is_none());
        if another {
            self.servers[*first].health.failed(period);
        }
        another
    }

    /// `http://server/path`, for messages.
    pub(super) fn describe(&self, route: Route, path: &str) -> Arc<str> {
        let server = &self.server(route).url;
        match &self.proxy(route).proxy {
            Proxy::Direct => format!("{server}/{path}").into(),
            proxy @ Proxy::Http(_) => format!("{server}/{path} (proxy {proxy})").into(),
        }
    }
}

/// The well ones in the order of the list, then the others, the one that is avoided for the shortest time first.
fn in_order<T>(entries: &[T], avoided_until: impl Fn(&T) -> Option<Instant>) -> Vec<usize> {
    let mut keyed: Vec<(Option<Instant>, usize)> =
        entries.iter().enumerate().map(|(index, entry)| (avoided_until(entry), index)).collect();
    keyed.sort();
    keyed.into_iter().map(|(_, index)| index).collect()
}
