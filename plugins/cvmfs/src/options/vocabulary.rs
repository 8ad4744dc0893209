//! Every option there is.
//!
//! Parameters are those that the C++ client 2.12 reads (facts of the issue, section 3.2). Those that belong to a node or a
//! process and not to a volume are refused with the reason, so that nobody believes they work.

/// What an option is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The repository; `*` is all.
    Repository,
    /// A named snapshot.
    Tag,
    /// A root catalog hash.
    Hash,
    /// A time in ISO 8601.
    Date,
    /// Client configuration as text.
    ClientConfig,
    /// The file with it, on the node.
    ClientConfigFile,
    /// A name that volumes have in common.
    SharedMount,
    /// Sets this client parameter.
    Parameter(&'static str),
    /// Known, but not for a volume; why.
    Refused(&'static str),
}

/// A known option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What it is for.
    pub meaning: Meaning,
}

/// Whether a value of `public_key` is a key itself, not the path of one.
pub fn is_inline_key(value: &str) -> bool {
    value.trim_start().starts_with("-----BEGIN PUBLIC KEY-----")
}

/// Parameters whose values are paths on the node (a `:` list for keys).
pub const FILES: &[&str] =
    &["CVMFS_PUBLIC_KEY", "CVMFS_KEYS_DIR", "CVMFS_BLACKLIST", "CVMFS_UID_MAP", "CVMFS_GID_MAP"];

/// Parameters whose values are lists of servers.
pub const SERVERS: &[&str] = &["CVMFS_SERVER_URL", "CVMFS_EXTERNAL_URL"];

/// Parameters whose values are lists of proxies.
pub const PROXIES: &[&str] = &[
    "CVMFS_HTTP_PROXY",
    "CVMFS_FALLBACK_PROXY",
    "CVMFS_EXTERNAL_HTTP_PROXY",
    "CVMFS_EXTERNAL_FALLBACK_PROXY",
];

/// Short names, in the order in which help shows them.
const SHORT: &[(&str, Meaning)] = &[
    ("repository", Meaning::Repository),
    ("tag", Meaning::Tag),
    ("hash", Meaning::Hash),
    ("date", Meaning::Date),
    ("server", Meaning::Parameter("CVMFS_SERVER_URL")),
    ("proxy", Meaning::Parameter("CVMFS_HTTP_PROXY")),
    ("fallback_proxy", Meaning::Parameter("CVMFS_FALLBACK_PROXY")),
    ("public_key", Meaning::Parameter("CVMFS_PUBLIC_KEY")),
    ("keys_dir", Meaning::Parameter("CVMFS_KEYS_DIR")),
    ("quota", Meaning::Parameter("CVMFS_QUOTA_LIMIT")),
    ("timeout", Meaning::Parameter("CVMFS_TIMEOUT")),
    ("timeout_direct", Meaning::Parameter("CVMFS_TIMEOUT_DIRECT")),
    ("max_retries", Meaning::Parameter("CVMFS_MAX_RETRIES")),
    ("external_url", Meaning::Parameter("CVMFS_EXTERNAL_URL")),
    ("external_proxy", Meaning::Parameter("CVMFS_EXTERNAL_HTTP_PROXY")),
    ("claim_ownership", Meaning::Parameter("CVMFS_CLAIM_OWNERSHIP")),
    ("uid_map", Meaning::Parameter("CVMFS_UID_MAP")),
    ("gid_map", Meaning::Parameter("CVMFS_GID_MAP")),
    ("world_readable", Meaning::Parameter("CVMFS_WORLD_READABLE")),
    ("suid", Meaning::Parameter("CVMFS_SUID")),
    ("auto_update", Meaning::Parameter("CVMFS_AUTO_UPDATE")),
    ("max_ttl", Meaning::Parameter("CVMFS_MAX_TTL")),
    ("clientConfig", Meaning::ClientConfig),
    ("clientConfigFilepath", Meaning::ClientConfigFile),
    ("sharedMountID", Meaning::SharedMount),
];

/// Parameters that a volume may set by their own names.
const PARAMETERS: &[&str] = &[
    "CVMFS_AUTO_UPDATE",
    "CVMFS_BACKOFF_INIT",
    "CVMFS_BACKOFF_MAX",
    "CVMFS_BLACKLIST",
    "CVMFS_CLAIM_OWNERSHIP",
    "CVMFS_EXTERNAL_FALLBACK_PROXY",
    "CVMFS_EXTERNAL_HTTP_PROXY",
    "CVMFS_EXTERNAL_MAX_SERVERS",
    "CVMFS_EXTERNAL_TIMEOUT",
    "CVMFS_EXTERNAL_TIMEOUT_DIRECT",
    "CVMFS_EXTERNAL_URL",
    "CVMFS_FALLBACK_PROXY",
    "CVMFS_FOLLOW_REDIRECTS",
    "CVMFS_GID_MAP",
    "CVMFS_HIDE_MAGIC_XATTRS",
    "CVMFS_HOST_RESET_AFTER",
    "CVMFS_HTTP_PROXY",
    "CVMFS_IPFAMILY_PREFER",
    "CVMFS_IPV4_ONLY",
    "CVMFS_KCACHE_TIMEOUT",
    "CVMFS_KEYS_DIR",
    "CVMFS_LOW_SPEED_LIMIT",
    "CVMFS_MAGIC_XATTRS_VISIBILITY",
    "CVMFS_MAX_RETRIES",
    "CVMFS_MAX_SERVERS",
    "CVMFS_MAX_TTL",
    "CVMFS_PROXY_RESET_AFTER",
    "CVMFS_PUBLIC_KEY",
    "CVMFS_QUOTA_LIMIT",
    "CVMFS_SERVER_URL",
    "CVMFS_SUID",
    "CVMFS_TIMEOUT",
    "CVMFS_TIMEOUT_DIRECT",
    "CVMFS_UID_MAP",
    "CVMFS_WORLD_READABLE",
];

const NODE_CACHE: &str = "all volumes of a node share one cache; set cvmfs.cache_dir of the daemon";
const NODE_PROCESS: &str = "it belongs to a process of the C++ client, which volplane does not run";
const NODE_MOUNT: &str = "where a volume is mounted is up to the container engine";
const NODE_FILES: &str = "it selects configuration, so it must be set in the node's configuration files";
const NODE_LOG: &str = "logs and metrics are the daemon's; see its configuration";
const NOT_BUILT: &str = "this client does not support it";
const ALWAYS_VERIFIED: &str = "signatures are always verified";

/// Parameters of the C++ client that are refused for a volume.
const REFUSED: &[(&str, &[&str])] = &[
    (
        NODE_CACHE,
        &[
            "CVMFS_ALIEN_CACHE",
            "CVMFS_CACHE_BASE",
            "CVMFS_CACHE_DIR",
            "CVMFS_CACHE_PRIMARY",
            "CVMFS_CACHE_REFCOUNT",
            "CVMFS_CATALOG_WATERMARK",
            "CVMFS_MEMCACHE_SIZE",
            "CVMFS_SERVER_CACHE_MODE",
            "CVMFS_SHARED_CACHE",
            "CVMFS_STREAMING_CACHE",
            "CVMFS_WORKSPACE",
        ],
    ),
    (
        NODE_PROCESS,
        &[
            "CVMFS_CPU_AFFINITY",
            "CVMFS_FUSE3_IDLE_THREADS",
            "CVMFS_FUSE3_MAX_THREADS",
            "CVMFS_INITIAL_GENERATION",
            "CVMFS_INSTRUMENT_FUSE",
            "CVMFS_LIBRARY_PATH",
            "CVMFS_NFILES",
            "CVMFS_OOM_SCORE_ADJ",
            "CVMFS_RELOAD_SOCKETS",
            "CVMFS_SYSTEMD_NOKILL",
            "CVMFS_TALK_OWNER",
            "CVMFS_TALK_SOCKET",
            "CVMFS_USER",
        ],
    ),
    (NODE_MOUNT, &["CVMFS_MOUNT_DIR", "CVMFS_MOUNT_RW", "CVMFS_STRICT_MOUNT"]),
    (
        NODE_FILES,
        &[
            "CVMFS_CLIENT_PROFILE",
            "CVMFS_CONFIG_REPOSITORY",
            "CVMFS_CONFIG_REPO_REQUIRED",
            "CVMFS_DEFAULT_DOMAIN",
            "CVMFS_REPOSITORIES",
            "CVMFS_USE_CDN",
        ],
    ),
    (
        NODE_LOG,
        &[
            "CVMFS_DEBUGLOG",
            "CVMFS_INFLUX_EXTRA_FIELDS",
            "CVMFS_INFLUX_EXTRA_TAGS",
            "CVMFS_INFLUX_HOST",
            "CVMFS_INFLUX_METRIC_NAME",
            "CVMFS_INFLUX_PORT",
            "CVMFS_SYSLOG_FACILITY",
            "CVMFS_SYSLOG_LEVEL",
            "CVMFS_SYSLOG_PREFIX",
            "CVMFS_TELEMETRY_RATE",
            "CVMFS_TELEMETRY_SEND",
            "CVMFS_TRACEBUFFER",
            "CVMFS_TRACEBUFFER_THRESHOLD",
            "CVMFS_TRACEFILE",
            "CVMFS_USYSLOG",
        ],
    ),
    (
        NOT_BUILT,
        &[
            "CVMFS_ALT_ROOT_PATH",
            "CVMFS_AUTHZ_HELPER",
            "CVMFS_AUTHZ_SEARCH_PATH",
            "CVMFS_CACHE_SYMLINKS",
            "CVMFS_CHECK_PERMISSIONS",
            "CVMFS_DNS_MAX_TTL",
            "CVMFS_DNS_MIN_TTL",
            "CVMFS_DNS_RETRIES",
            "CVMFS_DNS_ROAMING",
            "CVMFS_DNS_SERVER",
            "CVMFS_DNS_TIMEOUT",
            "CVMFS_ENFORCE_ACLS",
            "CVMFS_FAILOVER_INDEFINITELY",
            "CVMFS_FUSE_NOTIFY_INVALIDATION",
            "CVMFS_HTTP_TRACING",
            "CVMFS_HTTP_TRACING_HEADERS",
            "CVMFS_MAX_IPADDR_PER_PROXY",
            "CVMFS_NFS_INTERLEAVED_INODES",
            "CVMFS_NFS_SHARED",
            "CVMFS_NFS_SOURCE",
            "CVMFS_NOTIFICATION_SERVER",
            "CVMFS_PAC_URLS",
            "CVMFS_PROXY_SHARD",
            "CVMFS_PROXY_SHARDING_POLICY",
            "CVMFS_PROXY_TEMPLATE",
            "CVMFS_SEND_INFO_HEADER",
            "CVMFS_STATFS_CACHE_TIMEOUT",
            "CVMFS_USE_GEOAPI",
            "CVMFS_USE_SSL_SYSTEM_CA",
            "CVMFS_XATTR_PRIVILEGED_GIDS",
            "CVMFS_XATTR_PROTECTED_XATTRS",
        ],
    ),
    (ALWAYS_VERIFIED, &["CVMFS_IGNORE_SIGNATURE", "_CVMFS_DEVEL_IGNORE_SIGNATURE_FAILURES"]),
];

/// Parameters that choose a revision, which have short names too.
const REVISIONS: &[(&str, Meaning)] = &[
    ("CVMFS_REPOSITORY_TAG", Meaning::Tag),
    ("CVMFS_REPOSITORY_DATE", Meaning::Date),
    ("CVMFS_ROOT_HASH", Meaning::Hash),
];

/// The option of this name.
pub fn find(name: &str) -> Option<Known> {
    let named = SHORT.iter().chain(REVISIONS).find(|(known, _)| *known == name).map(|(_, meaning)| *meaning);
    let parameter = || PARAMETERS.iter().find(|known| **known == name).map(|known| Meaning::Parameter(known));
    let refused = || {
        let reason = REFUSED.iter().find(|(_, names)| names.contains(&name)).map(|(reason, _)| *reason);
        // CVMFS_CACHE_<name>_TYPE and the like.
        let cache = name.starts_with("CVMFS_CACHE_").then_some(NODE_CACHE);
        reason.or(cache).map(Meaning::Refused)
    };
    named.or_else(parameter).or_else(refused).map(|meaning| Known { meaning })
}

/// The names of all options that can be given.
pub fn names() -> impl Iterator<Item = &'static str> {
    let pairs = SHORT.iter().chain(REVISIONS).map(|(name, _)| *name);
    pairs.chain(PARAMETERS.iter().copied())
}

/// The short names, in the order in which help shows them.
pub fn short_names() -> Vec<&'static str> {
    SHORT.iter().map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_listed_twice() {
        let mut all: Vec<&str> =
            names().chain(REFUSED.iter().flat_map(|(_, names)| names.iter().copied())).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        for (_, meaning) in SHORT {
            if let Meaning::Parameter(name) = meaning {
                assert!(PARAMETERS.contains(name), "{name}");
            }
        }
    }
}
