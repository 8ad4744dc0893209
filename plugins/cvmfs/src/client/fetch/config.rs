//! What a fetcher must know of its site.

use std::time::Duration;

use super::address::{ProxyGroups, Servers};

/// Servers, the only ways to them, and how long one attempt may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Servers in order of preference.
    pub servers: Servers,
    /// The proxy policy.
    pub proxies: ProxyGroups,
    /// Limit of connecting, and of silence of the peer, through a proxy (`CVMFS_TIMEOUT`).
    pub timeout: Duration,
    /// The same without a proxy (`CVMFS_TIMEOUT_DIRECT`).
    pub timeout_direct: Duration,
}

impl Origin {
    /// With the default time-outs of the C++ client.
    pub fn new(servers: Servers, proxies: ProxyGroups) -> Self {
        Origin { servers, proxies, timeout: Duration::from_secs(5), timeout_direct: Duration::from_secs(10) }
    }
}

/// Which addresses of a name are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressFamily {
    /// As the system's resolver orders them.
    #[default]
    Any,
    /// IPv4 first (`CVMFS_IPFAMILY_PREFER=4`).
    PreferV4,
    /// IPv6 first (`CVMFS_IPFAMILY_PREFER=6`).
    PreferV6,
    /// IPv4 only (`CVMFS_IPV4_ONLY`).
    V4Only,
}

/// The settings of a [`super::Fetcher`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchConfig {
    /// Name of the repository, for messages.
    pub repository: String,
    /// Where objects come from.
    pub origin: Origin,
    /// Where external data comes from (`CVMFS_EXTERNAL_URL`, `_HTTP_PROXY`, …).
    pub external: Option<Origin>,
    /// A body slower than this over one time-out is given up, bytes per second (`CVMFS_LOW_SPEED_LIMIT`).
    pub low_speed_limit: u64,
    /// Rounds over all proxies and servers after the first (`CVMFS_MAX_RETRIES`).
    pub max_retries: u32,
    /// Pause before the second round (`CVMFS_BACKOFF_INIT`); doubled for each further one.
    pub backoff_init: Duration,
    /// Longest pause (`CVMFS_BACKOFF_MAX`).
    pub backoff_max: Duration,
    /// How long a proxy that failed is avoided (`CVMFS_PROXY_RESET_AFTER`).
    pub proxy_reset_after: Duration,
    /// How long a server that failed is avoided (`CVMFS_HOST_RESET_AFTER`).
    pub host_reset_after: Duration,
    /// Whether 301, 302, 303 and 307 are followed (`CVMFS_FOLLOW_REDIRECTS`).
    pub follow_redirects: bool,
    /// No call takes longer than this, unless its body is arriving faster than the low-speed limit.
    pub deadline: Duration,
    /// No call takes longer than this at all.
    pub transfer_deadline: Duration,
    /// Most connections to one peer.
    pub connections_per_peer: usize,
    /// Most addresses tried of one name (what the C++ client calls `CVMFS_MAX_IPADDR_PER_PROXY`; not to be set here).
    pub max_addresses: usize,
    /// Which addresses of a name are used.
    pub family: AddressFamily,
    /// Largest content accepted where nobody tells the size (catalogs), bytes.
    pub object_limit: u64,
}

impl FetchConfig {
    /// The defaults of the C++ client, and a deadline of 10 s.
    pub fn new(repository: impl Into<String>, origin: Origin) -> Self {
        FetchConfig {
            repository: repository.into(),
            origin,
            external: None,
            low_speed_limit: 1024,
            max_retries: 1,
            backoff_init: Duration::from_secs(2),
            backoff_max: Duration::from_secs(10),
            proxy_reset_after: Duration::from_secs(300),
            host_reset_after: Duration::from_secs(1800),
            follow_redirects: false,
            deadline: Duration::from_secs(10),
            transfer_deadline: Duration::from_secs(120),
            connections_per_peer: 32,
            max_addresses: 4,
            family: AddressFamily::Any,
            object_limit: 4 << 30,
        }
    }
}
