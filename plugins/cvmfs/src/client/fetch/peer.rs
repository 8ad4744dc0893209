//! A proxy or server we talk to: its connections, how fast it answers, and whether it is well.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::address::Authority;
use super::config::AddressFamily;
use super::dns::Resolver;
use super::race::Race;

/// Idle connections older than this are not used again; servers close theirs after 5 to 60 s.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Largest response head, and the read buffer of a connection.
const BUFFER_BYTES: usize = 128 << 10;
/// Shortest wait before the next address of a name, or the next proxy, is tried beside the first.
pub(super) const PATIENCE_MIN: Duration = Duration::from_millis(50);
/// Longest.
const PATIENCE_MAX: Duration = Duration::from_secs(2);
/// First time out of favour after lost races; doubled for each further one.
const DISFAVOUR: Duration = Duration::from_secs(5);

/// How to connect.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectOptions {
    pub(super) timeout: Duration,
    pub(super) max_addresses: usize,
    pub(super) family: AddressFamily,
}

/// All peers, shared by the fetchers of a process.
#[derive(Debug)]
pub(super) struct Peers {
    resolver: Resolver,
    peers: Mutex<HashMap<Authority, Arc<Peer>>>,
    connections_per_peer: usize,
}

impl Peers {
    pub(super) fn new(connections_per_peer: usize) -> Self {
        Peers { resolver: Resolver::default(), peers: Mutex::default(), connections_per_peer }
    }

    /// The peer of that name and port.
    pub(super) fn get(&self, authority: &Authority) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(authority) {
            return Arc::clone(peer);
        }
        // Only redirects can name peers without end.
        if peers.len() >= 512 {
            peers.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        let peer = Arc::new(Peer {
            authority: authority.clone(),
            resolver: self.resolver.clone(),
            permits: Arc::new(Semaphore::new(self.connections_per_peer.max(1))),
            idle: Mutex::default(),
            pace: Mutex::default(),
            health: Health::default(),
            good_address: Mutex::default(),
            connects: AtomicU64::new(0),
        });
        peers.insert(authority.clone(), Arc::clone(&peer));
        peer
    }

    /// Connections made since the start.
    pub(super) fn connects(&self) -> u64 {
        self.peers.lock().values().map(|peer| peer.connects.load(Ordering::Relaxed)).sum()
    }
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    authority: Authority,
    resolver: Resolver,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
    pace: Mutex<Pace>,
    pub(super) health: Health,
    /// The address that connected last; it goes first.
    good_address: Mutex<Option<SocketAddr>>,
    connects: AtomicU64,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    task: AbortHandle,
    idle_since: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Closes the socket at once, whatever the peer is doing.
        self.task.abort();
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum ConnectFault {
    Resolve(String),
    Connect(String),
    Timeout,
}

/// A connection in use. Dropped, it is closed; [`give_back`](Lease::give_back) keeps it for the next request.
#[derive(Debug)]
pub(super) struct Lease {
    connection: Connection,
    peer: Arc<Peer>,
    reused: bool,
    permit: OwnedSemaphorePermit,
}

impl Lease {
    /// Whether it served a request before, so that the peer may have closed it meanwhile.
    pub(super) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Closes it and keeps the right to another one.
    pub(super) fn into_permit(self) -> OwnedSemaphorePermit {
        self.permit
    }

    pub(super) fn sender(&mut self) -> &mut SendRequest<Empty<Bytes>> {
        &mut self.connection.sender
    }

    /// After a response was read to its end.
    pub(super) fn give_back(mut self) {
        if self.connection.sender.is_closed() {
            return;
        }
        self.connection.idle_since = Instant::now();
        self.peer.idle.lock().push(self.connection);
    }
}

impl Peer {
    /// The right to one of its connections; waits while all are in use.
    pub(super) async fn permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// A connection, an idle one first unless `new`.
    pub(super) async fn lease(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        options: ConnectOptions,
        new: bool,
    ) -> Result<Lease, ConnectFault> {
        let lease = |connection, reused| Lease { connection, peer: Arc::clone(self), reused, permit };
        while let Some(mut connection) = self.idle_connection().filter(|_| !new) {
            // At once, unless its task has not run since the last response.
            if connection.sender.ready().await.is_ok() {
                return Ok(lease(connection, true));
            }
        }
        let connection = tokio::time::timeout(options.timeout, self.connect(options)).await;
        Ok(lease(connection.map_err(|_| ConnectFault::Timeout)??, false))
    }

    /// The connection used last, unless it has been idle for too long.
    fn idle_connection(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let connection = idle.pop()?;
        if connection.idle_since.elapsed() > IDLE_LIMIT {
            // The others are older still.
            idle.clear();
            return None;
        }
        Some(connection)
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Connection, ConnectFault> {
        let addresses =
            self.resolver.resolve(&self.authority, options.timeout).await.map_err(ConnectFault::Resolve)?;
        let addresses = order(&addresses, *self.good_address.lock(), options);
        let (address, stream) = self.connect_any(addresses).await?;
        // Not fatal: only slower.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectFault::Connect(error.to_string()))?;
        let task = tokio::spawn(async move {
            // Errors reach the request that is under way.
            let _ = connection.await;
        });
        *self.good_address.lock() = Some(address);
        self.connects.fetch_add(1, Ordering::Relaxed);
        Ok(Connection { sender, task: task.abort_handle(), idle_since: Instant::now() })
    }

    /// All addresses, one a little after the other; the first connection wins.
    async fn connect_any(&self, addresses: Vec<SocketAddr>) -> Result<(SocketAddr, TcpStream), ConnectFault> {
        let patience = self.patience();
        let mut waiting = addresses.into_iter();
        let mut race = Race::new();
        let mut error = String::from("no address of the wanted family");
        loop {
            if race.len() == 0 {
                let Some(address) = waiting.next() else { return Err(ConnectFault::Connect(error)) };
                race.start(address, TcpStream::connect(address));
            }
            tokio::select! {
                (address, result) = race.next() => match result {
                    Ok(stream) => return Ok((address, stream)),
                    Err(failure) => error = format!("{address}: {failure}"),
                },
                () = tokio::time::sleep(patience), if waiting.len() > 0 => {
                    if let Some(address) = waiting.next() {
                        race.start(address, TcpStream::connect(address));
                    }
                }
            }
        }
    }

    /// Notes an answer and how long its head took.
    pub(super) fn answered(&self, after: Duration) {
        self.pace.lock().add(after);
        self.health.well();
    }

    /// How long to wait for this peer before another one is asked too.
    pub(super) fn patience(&self) -> Duration {
        self.pace.lock().patience()
    }

    /// Name and port.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether it has ever answered.
    pub(super) fn is_known(&self) -> bool {
        self.pace.lock().mean.is_some()
    }
}

/// The good address first, then as the resolver said, filtered and bounded.
fn order(addresses: &[SocketAddr], good: Option<SocketAddr>, options: ConnectOptions) -> Vec<SocketAddr> {
    let mut ordered: Vec<SocketAddr> = addresses
        .iter()
        .copied()
        .filter(|address| options.family != AddressFamily::V4Only || address.is_ipv4())
        .collect();
    ordered.sort_by_key(|address| {
        let second_choice = match options.family {
            AddressFamily::Any | AddressFamily::V4Only => false,
            AddressFamily::PreferV4 => address.is_ipv6(),
            AddressFamily::PreferV6 => address.is_ipv4(),
        };
        (Some(*address) != good, second_choice)
    });
    ordered.truncate(options.max_addresses.max(1));
    ordered
}

/// Smoothed time to the head of an answer, and its deviation (the estimator of RFC 6298).
#[derive(Debug, Default)]
struct Pace {
    mean: Option<Duration>,
    deviation: Duration,
}

impl Pace {
    fn add(&mut self, sample: Duration) {
        match self.mean {
            None => {
                self.mean = Some(sample);
                self.deviation = sample / 2;
            }
            Some(mean) => {
                self.deviation = (self.deviation * 3 + mean.abs_diff(sample)) / 4;
                self.mean = Some((mean * 7 + sample) / 8);
            }
        }
    }

    fn patience(&self) -> Duration {
        let Some(mean) = self.mean else { return PATIENCE_MIN };
        (mean * 3).max(mean + self.deviation * 4).clamp(PATIENCE_MIN, PATIENCE_MAX)
    }
}

/// Whether something is avoided, and until when.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<HealthState>);

#[derive(Debug, Default)]
struct HealthState {
    avoid_until: Option<Instant>,
    /// Lost races in a row.
    lost: u32,
    /// Times out of favour in a row.
    disfavours: u32,
}

impl Health {
    /// It failed: avoid it for `period`.
    pub(super) fn failed(&self, period: Duration) {
        self.0.lock().avoid_until = Some(Instant::now() + period);
    }

    /// Another one answered while it was silent. The second time in a row (or at once when `unknown`, having never
    /// answered) it falls out of favour for a while, at most `period`.
    pub(super) fn lost_race(&self, unknown: bool, period: Duration) {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.lost = state.lost.saturating_add(1);
        let avoided = state.avoid_until.is_some_and(|until| now < until);
        if !avoided && (unknown || state.lost >= 2) {
            let length = DISFAVOUR.saturating_mul(1 << state.disfavours.min(16)).min(period);
            state.disfavours = state.disfavours.saturating_add(1);
            state.lost = 0;
            state.avoid_until = Some(now + length);
        }
    }

    /// It answered.
    pub(super) fn well(&self) {
        *self.0.lock() = HealthState::default();
    }

    /// `None`: well. Else until when it is avoided.
    pub(super) fn avoided_until(&self, now: Instant) -> Option<Instant> {
        self.0.lock().avoid_until.filter(|&until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::fetch::testserver::{BlackHole, TestServer, refusing};

    #[tokio::test]
    async fn a_dead_address_of_a_name_costs_little() {
        let (hole, server) = (BlackHole::open(), TestServer::start());
        let address = |proxy: String| proxy.strip_prefix("http://").unwrap().parse::<SocketAddr>().unwrap();
        let peer = Peers::new(4).get(&Authority { host: "localhost".to_owned(), port: 1 });
        for dead in [hole.proxy(), refusing()] {
            let began = Instant::now();
            let addresses = vec![address(dead), server.address()];
            let (winner, _) = peer.connect_any(addresses).await.unwrap();
            assert_eq!(winner, server.address());
            assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        }
        let none = peer.connect_any(vec![address(refusing())]).await;
        assert!(matches!(none, Err(ConnectFault::Connect(_))));
    }

    #[test]
    fn the_family_decides_the_order() {
        let v4: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        let other: SocketAddr = "192.0.2.2:80".parse().unwrap();
        let options = |family| ConnectOptions { timeout: Duration::ZERO, max_addresses: 2, family };
        let all = [v6, v4, other];
        assert_eq!(order(&all, None, options(AddressFamily::Any)), [v6, v4]);
        assert_eq!(order(&all, Some(other), options(AddressFamily::Any)), [other, v6]);
        assert_eq!(order(&all, None, options(AddressFamily::PreferV4)), [v4, other]);
        assert_eq!(order(&all, Some(v6), options(AddressFamily::V4Only)), [v4, other]);
    }

    #[test]
    fn patience_follows_the_pace() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience(), PATIENCE_MIN);
        for _ in 0..100 {
            pace.add(Duration::from_millis(84));
        }
        let patience = pace.patience();
        assert!(
            patience >= Duration::from_millis(250) && patience < Duration::from_millis(270),
            "{patience:?}"
        );
        for _ in 0..100 {
            pace.add(Duration::from_secs(9));
        }
        assert_eq!(pace.patience(), PATIENCE_MAX);
    }
}
