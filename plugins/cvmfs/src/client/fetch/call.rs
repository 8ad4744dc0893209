//! Getting one thing, whatever it takes: fail-over, hedging, back-off and the deadline.
//!
//! A call goes through *rounds*. In a round every allowed (proxy, server) pair is tried until one answers well, always the
//! best one that nobody has blamed yet. When a peer is silent for longer than it usually is, the next one is asked beside it
//! (a hedge), so that a black-holed first proxy costs milliseconds and not its time-out; only routes of the policy are used.
//! Another round begins after a pause if something transient was wrong and the deadline allows it.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::FetchError;
use super::exchange::{Ask, Blame, Fault, Opened, attempt};
use super::policy::Route;
use super::race::Race;
use super::site::Site;

/// Attempts in one call, whatever the lists and settings say.
const MAX_ATTEMPTS: u32 = 16;
/// Requests under way for one call.
const MAX_HEDGES: usize = 3;
/// DIRECT is asked beside a slow proxy only after this; it is what the proxies are there to prevent.
const DIRECT_PATIENCE: Duration = Duration::from_secs(1);

/// An attempt under way.
#[derive(Debug, Clone)]
struct Runner {
    route: Route,
    /// When it stopped waiting for our own other requests.
    begun: Arc<OnceLock<std::time::Instant>>,
}

/// See the module.
pub(super) struct Call {
    site: Arc<Site>,
    pub(super) ask: Ask,
    started: Instant,
    proxies: Vec<usize>,
    servers: Vec<usize>,
    /// Blamed in this round: bit per index (lists have at most 64 entries).
    blamed_proxies: u64,
    blamed_servers: u64,
    /// Proxies blamed in this round that gave an answer: the server behind them may be the cause.
    answering_proxies: u64,
    transient: bool,
    round: u32,
    attempts: u32,
    last: Option<FetchError>,
    /// The newest attempt, to name who did not answer.
    asked: Option<Route>,
    /// Servers that did not have the name; out of favour if another one has it.
    without_name: Vec<usize>,
}

impl Call {
    pub(super) fn new(site: &Arc<Site>, path: Arc<str>, range: Option<Range<u64>>, fresh: bool) -> Self {
        site.earn_hedge();
        let started = Instant::now();
        let ask = Ask { path, range, fresh, deadline: started + site.deadline };
        Call {
            proxies: site.policy.proxies_in_order(),
            servers: site.policy.servers_in_order(),
            site: Arc::clone(site),
            ask,
            started,
            blamed_proxies: 0,
            blamed_servers: 0,
            answering_proxies: 0,
            transient: false,
            round: 0,
            attempts: 0,
            last: None,
            asked: None,
            without_name: Vec::new(),
        }
    }

    /// When the whole call ends even if bytes keep coming.
    pub(super) fn transfer_deadline(&self) -> Instant {
        self.started + self.site.transfer_deadline
    }

    fn deadline(&self) -> Instant {
        self.ask.deadline
    }

    /// The call's end for lack of time.
    pub(super) fn out_of_time(&self) -> FetchError {
        let url = match (&self.last, self.asked) {
            (Some(error), _) => error.subject().into(),
            (None, Some(route)) => self.site.policy.describe(route, &self.ask.path),
            (None, None) => Arc::clone(&self.ask.path),
        };
        let last = self.last.as_ref().map(FetchError::to_string);
        FetchError::Deadline { url, after: self.started.elapsed(), last }
    }

    /// The next good answer. To be called again after [`body_failed`](Call::body_failed).
    pub(super) async fn open(&mut self) -> Result<Opened, FetchError> {
        loop {
            if Instant::now() >= self.deadline() {
                return Err(self.out_of_time());
            }
            match self.pick(&[]) {
                Some(first) => {
                    if let Some(opened) = self.race(first).await? {
                        return Ok(opened);
                    }
                }
                None => self.next_round().await?,
            }
        }
    }

    /// One attempt, with hedges; `None` when all of them failed and the next route is to be tried.
    async fn race(&mut self, first: Route) -> Result<Option<Opened>, FetchError> {
        let deadline = self.deadline();
        let mut race = Race::new();
        let patience = |route| self.site.policy.peer(route).patience();
        let mut hedge_at = Instant::now() + patience(first);
        self.start(&mut race, first);
        loop {
            let running: Vec<Runner> = race.keys().cloned().collect();
            tokio::select! {
                (runner, result) = race.next() => match result {
                    Ok(opened) => {
                        if runner.route != first {
                            self.site.stats.hedges_won.fetch_add(1, Ordering::Relaxed);
                        }
                        for loser in race.keys() {
                            self.lost(loser, runner.route);
                        }
                        self.site.policy.server(runner.route).health.well();
                        return Ok(Some(opened));
                    }
                    Err(fault) => {
                        self.blame(runner.route, fault);
                        if race.len() == 0 {
                            return Ok(None);
                        }
                    }
                },
                () = sleep_until(hedge_at), if running.len() < MAX_HEDGES => {
                    hedge_at = Instant::now() + match self.hedge(&running) {
                        Some(route) => {
                            self.site.stats.hedges.fetch_add(1, Ordering::Relaxed);
                            self.start(&mut race, route);
                            self.site.policy.peer(route).patience()
                        }
                        None => self.site.policy.peer(first).patience(),
                    };
                }
                () = sleep_until(deadline) => {
                    for runner in running.iter().filter(|runner| runner.begun.get().is_some()) {
                        self.mark_way(runner.route);
                    }
                    return Err(self.out_of_time());
                }
            }
        }
    }

    fn start(&mut self, race: &mut Race<Runner, Result<Opened, Fault>>, route: Route) {
        self.attempts += 1;
        self.asked = Some(route);
        let begun = Arc::new(OnceLock::new());
        let attempt = attempt(Arc::clone(&self.site), self.ask.clone(), route, Arc::clone(&begun));
        race.start(Runner { route, begun }, attempt);
    }

    /// The best route that is not blamed in this round and not under way: another proxy before another server.
    fn pick(&self, running: &[Runner]) -> Option<Route> {
        if self.attempts >= MAX_ATTEMPTS {
            return None;
        }
        let proxies = || self.proxies.iter().copied().filter(|proxy| self.blamed_proxies & bit(*proxy) == 0);
        let servers =
            || self.servers.iter().copied().filter(|server| self.blamed_servers & bit(*server) == 0);
        servers()
            .flat_map(|server| proxies().map(move |proxy| Route { proxy, server }))
            .find(|route| running.iter().all(|runner| runner.route != *route))
    }

    /// The route to ask beside those under way, if that is due and granted.
    fn hedge(&self, running: &[Runner]) -> Option<Route> {
        let route = self.pick(running)?;
        let policy = &self.site.policy;
        let first = running.first()?;
        let direct = policy.proxy(route).peer.is_none() && policy.proxy(first.route).peer.is_some();
        if direct && self.started.elapsed() < DIRECT_PATIENCE {
            return None;
        }
        let peer = policy.peer(first.route);
        let silent = first.begun.get().is_some_and(|begun| begun.elapsed() >= peer.patience());
        let avoided = policy.is_avoided(first.route);
        // A peer that never answered, or has just fallen out of favour, is no reason to be thrifty.
        let granted = avoided || (silent && (!peer.is_known() || self.site.spend_hedge()));
        granted.then_some(route)
    }

    /// A route was still silent when another one answered.
    fn lost(&self, loser: &Runner, winner: Route) {
        let policy = &self.site.policy;
        let route = loser.route;
        if loser.begun.get().is_none() {
            return;
        }
        let unknown = !policy.peer(route).is_known();
        match &policy.proxy(route).peer {
            Some(proxy) if route.proxy != winner.proxy => {
                proxy.health.lost_race(unknown, self.site.proxy_reset_after);
            }
            Some(_) | None => policy.server(route).health.lost_race(unknown, self.site.host_reset_after),
        }
    }

    /// Notes what an attempt's failure says about its route, for this round and for later calls.
    fn blame(&mut self, route: Route, fault: Fault) {
        tracing::debug!(error = %fault.error, "attempt failed");
        self.site.stats.failed_attempts.fetch_add(1, Ordering::Relaxed);
        let proxied = self.site.policy.proxy(route).peer.is_some();
        match fault.blame {
            Blame::Way => {
                self.blame_way(route);
                self.mark_way(route);
            }
            Blame::Busy => self.blame_way(route),
            Blame::Server => {
                self.blamed_servers |= bit(route.server);
                self.site.policy.server(route).health.failed(self.site.host_reset_after);
            }
            Blame::Name => {
                self.blamed_servers |= bit(route.server);
                self.without_name.push(route.server);
            }
        }
        if fault.answered && proxied && matches!(fault.blame, Blame::Way | Blame::Busy) {
            self.answering_proxies |= bit(route.proxy);
        }
        self.transient |= fault.transient;
        // "Not found" says more than the trouble of a way.
        let keep = matches!(self.last, Some(FetchError::NotFound { .. }))
            && !matches!(fault.error, FetchError::WrongHash { .. });
        if !keep {
            self.last = Some(fault.error);
        }
        // All proxies answered with errors: what is behind them may be at fault.
        let spent = self.proxies.iter().all(|proxy| self.blamed_proxies & bit(*proxy) != 0);
        if spent && self.answering_proxies != 0 && self.servers.len() > 1 {
            self.blamed_servers |= bit(route.server);
            self.blamed_proxies &= !self.answering_proxies;
            self.answering_proxies = 0;
        }
    }

    fn blame_way(&mut self, route: Route) {
        if self.site.policy.proxy(route).peer.is_some() {
            self.blamed_proxies |= bit(route.proxy);
        } else {
            self.blamed_servers |= bit(route.server);
        }
    }

    fn mark_way(&self, route: Route) {
        match &self.site.policy.proxy(route).peer {
            Some(proxy) => proxy.health.failed(self.site.proxy_reset_after),
            None => self.site.policy.server(route).health.failed(self.site.host_reset_after),
        }
    }

    /// An opened body turned out bad.
    pub(super) fn body_failed(&mut self, route: Route, blame: Blame, error: FetchError) {
        self.blame(route, Fault { blame, transient: blame == Blame::Way, answered: false, error });
    }

    /// The answer of `route` was good to its last byte.
    pub(super) fn succeeded(&self, route: Route) {
        for &server in self.without_name.iter().filter(|server| **server != route.server) {
            let entry = self.site.policy.server(Route { server, ..route });
            entry.health.failed(self.site.host_reset_after);
        }
        if self.attempts > 1 {
            self.site.stats.failovers.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn next_round(&mut self) -> Result<(), FetchError> {
        let pause = self.site.backoff_init.saturating_mul(1 << self.round.min(16)).min(self.site.backoff_max);
        let again = self.transient && self.round < self.site.max_retries && self.attempts < MAX_ATTEMPTS;
        let in_time = Instant::now() + pause < self.deadline();
        if !again || !in_time {
            return Err(self.last.take().unwrap_or_else(|| self.out_of_time()));
        }
        sleep(pause).await;
        self.site.stats.rounds.fetch_add(1, Ordering::Relaxed);
        self.round += 1;
        self.transient = false;
        self.blamed_proxies = 0;
        self.blamed_servers = 0;
        self.answering_proxies = 0;
        self.proxies = self.site.policy.proxies_in_order();
        self.servers = self.site.policy.servers_in_order();
        Ok(())
    }
}

fn bit(index: usize) -> u64 {
    1 << (index % 64)
}
