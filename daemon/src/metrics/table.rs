//! All metrics, in the order of the page. A sample that is not declared here is not shown.

/// How a value behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows while its process lives.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// A declared metric; its full name begins with `volplane_`.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: &'static str,
    pub(crate) help: &'static str,
}

const fn metric(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, unit, help }
}

/// The declarations.
pub(crate) const METRICS: &[Metric] = &[
    metric("build_info", Kind::Gauge, "one", "the daemon's version is in the label"),
    metric("mounts", Kind::Gauge, "mounts", "mounts by state"),
    metric("mount_references", Kind::Gauge, "references", "who uses a mount"),
    metric("mount_healthy", Kind::Gauge, "boolean", "1 if a mount has no trouble"),
    metric("worker_restarts_total", Kind::Counter, "restarts", "workers that were started again for a mount"),
    metric("csi_calls_total", Kind::Counter, "calls", "CSI calls that were answered"),
    metric("csi_call_seconds_total", Kind::Counter, "seconds", "time that CSI calls took"),
    metric("cvmfs_revision", Kind::Gauge, "revision", "revision that is shown"),
    metric("cvmfs_nodes", Kind::Gauge, "nodes", "files and directories that the kernel knows of a mount"),
    metric("cvmfs_open_files", Kind::Gauge, "files", "files that are open"),
    metric("cvmfs_requests_total", Kind::Counter, "requests", "requests of the kernel that were answered"),
    metric(
        "cvmfs_request_errors_total",
        Kind::Counter,
        "requests",
        "requests of the kernel that were answered with an error of ours",
    ),
    metric(
        "cvmfs_requests_waited_total",
        Kind::Counter,
        "requests",
        "requests that had to wait for something",
    ),
    metric("cvmfs_requests_waiting", Kind::Gauge, "requests", "requests that wait now"),
    metric("cvmfs_request_seconds_total", Kind::Counter, "seconds", "time that requests waited"),
    metric("cvmfs_fetches_total", Kind::Counter, "transfers", "objects and files that were fetched"),
    metric("cvmfs_fetch_bytes_total", Kind::Counter, "bytes", "bytes received"),
    metric("cvmfs_fetch_seconds_total", Kind::Counter, "seconds", "time that transfers took"),
    metric("cvmfs_fetch_errors_total", Kind::Counter, "transfers", "fetches that failed in the end"),
    metric(
        "cvmfs_fetch_failed_attempts_total",
        Kind::Counter,
        "transfers",
        "attempts that failed, also those made up for by another",
    ),
    metric("cvmfs_fetch_failovers_total", Kind::Counter, "changes", "changes to another server or proxy"),
    metric(
        "cvmfs_fetch_retry_rounds_total",
        Kind::Counter,
        "rounds",
        "rounds over all servers and proxies after the first",
    ),
    metric(
        "cvmfs_fetch_hedges_total",
        Kind::Counter,
        "transfers",
        "second transfers begun because the first was slow",
    ),
    metric("cvmfs_fetch_hedges_won_total", Kind::Counter, "transfers", "second transfers that were faster"),
    metric("cvmfs_fetch_connects_total", Kind::Counter, "connections", "connections made"),
    metric(
        "cvmfs_fetch_shared_total",
        Kind::Counter,
        "requests",
        "requests that joined a transfer under way",
    ),
    metric(
        "cvmfs_fetch_wrong_bytes_total",
        Kind::Counter,
        "bytes",
        "bytes that did not have the hash they should have",
    ),
    metric("cvmfs_cache_hits_total", Kind::Counter, "objects", "objects found in the cache"),
    metric("cvmfs_cache_stored_total", Kind::Counter, "objects", "objects stored in the cache"),
    metric("cvmfs_cache_stored_bytes_total", Kind::Counter, "bytes", "bytes stored in the cache"),
    metric(
        "cvmfs_cache_uncached_total",
        Kind::Counter,
        "objects",
        "objects served without being cached (full disk)",
    ),
    metric("cvmfs_cache_evicted_total", Kind::Counter, "objects", "objects evicted"),
    metric("cvmfs_cache_evicted_bytes_total", Kind::Counter, "bytes", "bytes evicted"),
    metric(
        "cvmfs_cache_corrupt_total",
        Kind::Counter,
        "objects",
        "damaged objects found in the cache and fetched again",
    ),
    metric("cvmfs_cache_bytes", Kind::Gauge, "bytes", "size of the cache"),
    metric("cvmfs_cache_quota_bytes", Kind::Gauge, "bytes", "limit of the cache's size"),
    metric("cvmfs_cache_memory_bytes", Kind::Gauge, "bytes", "objects held in memory"),
    metric("cvmfs_cache_open_objects", Kind::Gauge, "objects", "cached objects that are open"),
    metric("cvmfs_cache_trouble", Kind::Gauge, "boolean", "1 if the cache cannot be written"),
];
