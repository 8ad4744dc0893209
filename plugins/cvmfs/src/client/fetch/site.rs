//! What all requests to one set of servers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::config::{AddressFamily, FetchConfig, Origin};
use super::peer::Peers;
use super::policy::Policy;
use super::stats::Stats;

/// Hedges that may be made at once, in tenths; each request earns one tenth.
const HEDGE_CREDIT: i64 = 100;
const HEDGE_PRICE: i64 = 10;

/// Servers and the ways to them, with the settings that a request needs.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) policy: Policy,
    pub(super) peers: Arc<Peers>,
    pub(super) stats: Arc<Stats>,
    pub(super) low_speed_limit: u64,
    pub(super) max_retries: u32,
    pub(super) backoff_init: Duration,
    pub(super) backoff_max: Duration,
    pub(super) proxy_reset_after: Duration,
    pub(super) host_reset_after: Duration,
    pub(super) follow_redirects: bool,
    pub(super) deadline: Duration,
    pub(super) transfer_deadline: Duration,
    pub(super) max_addresses: usize,
    pub(super) family: AddressFamily,
    hedge_credit: AtomicI64,
}

impl Site {
    pub(super) fn new(
        origin: &Origin,
        config: &FetchConfig,
        peers: &Arc<Peers>,
        stats: &Arc<Stats>,
    ) -> Arc<Self> {
        Arc::new(Site {
            policy: Policy::new(origin, peers),
            peers: Arc::clone(peers),
            stats: Arc::clone(stats),
            low_speed_limit: config.low_speed_limit,
            max_retries: config.max_retries,
            backoff_init: config.backoff_init,
            backoff_max: config.backoff_max,
            proxy_reset_after: config.proxy_reset_after,
            host_reset_after: config.host_reset_after,
            follow_redirects: config.follow_redirects,
            deadline: config.deadline,
            transfer_deadline: config.transfer_deadline.max(config.deadline),
            max_addresses: config.max_addresses,
            family: config.family,
            hedge_credit: AtomicI64::new(HEDGE_CREDIT),
        })
    }

    /// A request begins.
    pub(super) fn earn_hedge(&self) {
        if self.hedge_credit.load(Ordering::Relaxed) < HEDGE_CREDIT {
            self.hedge_credit.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A second request for the same thing is wanted although the first one's peer was well so far. About one in ten is
    /// granted, so that a slow hour of the servers does not become a double load.
    pub(super) fn spend_hedge(&self) -> bool {
        let spend = |credit: i64| (credit >= HEDGE_PRICE).then(|| credit - HEDGE_PRICE);
        self.hedge_credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}
