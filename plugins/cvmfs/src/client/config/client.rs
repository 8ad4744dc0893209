//! All of a repository's parameters as types.

use std::time::Duration;

use volume::Revision;

use super::values::{IpFamily, Quota, Seconds, SecondsOrOff, Switch, Within, XattrVisibility};
use super::{ParameterError, Parameters, ProxyGroups, ServerList};

/// How one repository is fetched, verified and shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// `CVMFS_SERVER_URL`, cut to `CVMFS_MAX_SERVERS`.
    pub servers: ServerList,
    /// `CVMFS_HTTP_PROXY`; direct when not set.
    pub proxies: ProxyGroups,
    /// `CVMFS_FALLBACK_PROXY`: used when all of `proxies` fail. Ignored when those are only direct. May have no group.
    pub fallback_proxies: ProxyGroups,
    /// Times and retries.
    pub transfer: Transfer,
    /// Where external data comes from.
    pub external: External,
    /// Which revision the configuration pins; a volume's own choice is already in it.
    pub revision: Revision,
    /// Whether new revisions are looked for (`CVMFS_AUTO_UPDATE`).
    pub auto_update: bool,
    /// `CVMFS_MAX_TTL`: upper limit for a catalog's time to live.
    pub max_ttl: Option<Duration>,
    /// `CVMFS_QUOTA_LIMIT`; 4000 MiB when not set.
    pub quota: Quota,
    /// `CVMFS_KCACHE_TIMEOUT`: how long the kernel may keep names and attributes without asking.
    pub kernel_cache: Duration,
    /// Who the files belong to.
    pub ownership: Ownership,
    /// `CVMFS_WORLD_READABLE`: everybody may read everything.
    pub world_readable: bool,
    /// `CVMFS_CHECK_PERMISSIONS`. Not followed: permissions are always checked.
    pub check_permissions: bool,
    /// `CVMFS_SUID`: honour setuid bits.
    pub suid: bool,
    /// Who gets the client's own attributes listed.
    pub magic_xattrs: XattrVisibility,
    /// What is set but not followed, for people.
    pub notes: Vec<String>,
}

/// Times and retries of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Silence after which a request over a proxy is given up (`CVMFS_TIMEOUT`).
    pub timeout: Duration,
    /// The same without a proxy (`CVMFS_TIMEOUT_DIRECT`).
    pub timeout_direct: Duration,
    /// Bytes per second below which a transfer counts as silent (`CVMFS_LOW_SPEED_LIMIT`).
    pub low_speed_limit: u64,
    /// Rounds over all servers and proxies after the first (`CVMFS_MAX_RETRIES`).
    pub max_retries: u32,
    /// Pause before the second round (`CVMFS_BACKOFF_INIT`).
    pub backoff_init: Duration,
    /// Longest pause (`CVMFS_BACKOFF_MAX`).
    pub backoff_max: Duration,
    /// Time after which the first proxy group is tried again; `None` is never (`CVMFS_PROXY_RESET_AFTER`).
    pub proxy_reset_after: Option<Duration>,
    /// The same for servers (`CVMFS_HOST_RESET_AFTER`).
    pub host_reset_after: Option<Duration>,
    /// `CVMFS_FOLLOW_REDIRECTS`.
    pub follow_redirects: bool,
    /// `CVMFS_SEND_INFO_HEADER`: tell the server the path that an object is wanted for. Not followed yet.
    pub send_info_header: bool,
    /// `CVMFS_USE_GEOAPI`: ask a server for the order of servers. Not followed yet.
    pub use_geo_api: bool,
    /// `CVMFS_IPV4_ONLY`, `CVMFS_IPFAMILY_PREFER`.
    pub ip_family: IpFamily,
}

/// Where external data comes from (`CVMFS_EXTERNAL_…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// `CVMFS_EXTERNAL_URL`, cut to `CVMFS_EXTERNAL_MAX_SERVERS`; `None` when not set: external files cannot be read.
    pub servers: Option<ServerList>,
    /// `CVMFS_EXTERNAL_HTTP_PROXY`; direct when not set.
    pub proxies: ProxyGroups,
    /// `CVMFS_EXTERNAL_FALLBACK_PROXY`.
    pub fallback_proxies: ProxyGroups,
    /// `CVMFS_EXTERNAL_TIMEOUT`; as for other data when not set.
    pub timeout: Duration,
    /// `CVMFS_EXTERNAL_TIMEOUT_DIRECT`; as for other data when not set.
    pub timeout_direct: Duration,
}

/// Who the files belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Everything to the user the client shows (`CVMFS_CLAIM_OWNERSHIP`, the default).
    Claimed,
    /// As in the catalog, through the id maps.
    Catalog,
}

impl ClientConfig {
    /// Reads the parameters of one repository.
    ///
    /// # Errors
    /// The first value that is not of its parameter's type, or `CVMFS_SERVER_URL` missing.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self, ParameterError> {
        let p = Reader(parameters);
        let servers: Option<ServerList> = parameters.typed("CVMFS_SERVER_URL")?;
        let servers = servers.ok_or_else(|| parameters.error("CVMFS_SERVER_URL", "is not set"))?;
        let servers = p.first_of(servers, "CVMFS_MAX_SERVERS")?;
        let timeout = p.seconds("CVMFS_TIMEOUT", 5)?;
        let timeout_direct = p.seconds("CVMFS_TIMEOUT_DIRECT", 10)?;
        let external: Option<ServerList> = parameters.typed("CVMFS_EXTERNAL_URL")?;
        let mut notes = Vec::new();
        for name in NOT_FOLLOWED {
            if let Some(value) = parameters.get(name) {
                notes.push(format!("{name}={value} is not followed by this client"));
            }
        }
        if let Some(repository) = parameters.get("CVMFS_CONFIG_REPOSITORY") {
            notes.push(format!(
                "CVMFS_CONFIG_REPOSITORY={repository}: configuration is read from this node only, not from a repository"
            ));
        }
        let proxies = p.proxies("CVMFS_HTTP_PROXY")?;
        if proxies.auto {
            notes.push(
                "CVMFS_HTTP_PROXY: `auto` (a PAC file) is not looked for; the others are used".to_owned(),
            );
        }
        Ok(ClientConfig {
            servers,
            proxies: or_direct(proxies),
            fallback_proxies: p.proxies("CVMFS_FALLBACK_PROXY")?,
            transfer: Transfer {
                timeout,
                timeout_direct,
                low_speed_limit: p.number::<0, 1_000_000_000>("CVMFS_LOW_SPEED_LIMIT", 1024)?,
                max_retries: p.number::<0, 100>("CVMFS_MAX_RETRIES", 1)? as u32,
                backoff_init: Duration::from_secs(p.number::<0, 3600>("CVMFS_BACKOFF_INIT", 2)?),
                backoff_max: Duration::from_secs(p.number::<0, 3600>("CVMFS_BACKOFF_MAX", 10)?),
                proxy_reset_after: p.seconds_or_off("CVMFS_PROXY_RESET_AFTER", 300)?,
                host_reset_after: p.seconds_or_off("CVMFS_HOST_RESET_AFTER", 1800)?,
                follow_redirects: p.switch("CVMFS_FOLLOW_REDIRECTS", false)?,
                send_info_header: p.switch("CVMFS_SEND_INFO_HEADER", false)?,
                use_geo_api: p.switch("CVMFS_USE_GEOAPI", false)?,
                ip_family: p.ip_family()?,
            },
            external: External {
                servers: external.map(|list| p.first_of(list, "CVMFS_EXTERNAL_MAX_SERVERS")).transpose()?,
                proxies: or_direct(p.proxies("CVMFS_EXTERNAL_HTTP_PROXY")?),
                fallback_proxies: p.proxies("CVMFS_EXTERNAL_FALLBACK_PROXY")?,
                timeout: p.seconds("CVMFS_EXTERNAL_TIMEOUT", timeout.as_secs())?,
                timeout_direct: p.seconds("CVMFS_EXTERNAL_TIMEOUT_DIRECT", timeout_direct.as_secs())?,
            },
            revision: revision(parameters),
            auto_update: p.switch("CVMFS_AUTO_UPDATE", true)?,
            max_ttl: match p.number::<0, 525_600>("CVMFS_MAX_TTL", 0)? {
                0 => None,
                minutes => Some(Duration::from_secs(60 * minutes)),
            },
            quota: parameters.typed("CVMFS_QUOTA_LIMIT")?.unwrap_or(Quota::Bytes(4000 << 20)),
            kernel_cache: Duration::from_secs(p.number::<0, 86_400>("CVMFS_KCACHE_TIMEOUT", 60)?),
            ownership: if p.switch("CVMFS_CLAIM_OWNERSHIP", true)? {
                Ownership::Claimed
            } else {
                Ownership::Catalog
            },
            world_readable: p.switch("CVMFS_WORLD_READABLE", false)?,
            check_permissions: p.switch("CVMFS_CHECK_PERMISSIONS", true)?,
            suid: p.switch("CVMFS_SUID", false)?,
            magic_xattrs: p.magic_xattrs()?,
            notes,
        })
    }
}

/// Parameters that change what is fetched or shown in the C++ client and are not followed here; said so when set.
const NOT_FOLLOWED: &[&str] = &[
    "CVMFS_ALIEN_CACHE",
    "CVMFS_AUTHZ_HELPER",
    "CVMFS_CACHE_PRIMARY",
    "CVMFS_DNS_SERVER",
    "CVMFS_ENFORCE_ACLS",
    "CVMFS_NFS_SOURCE",
    "CVMFS_PROXY_SHARD",
    "CVMFS_STREAMING_CACHE",
    "_CVMFS_DEVEL_IGNORE_SIGNATURE_FAILURES",
];

/// The revision that parameters pin: hash before tag before date, as the C++ client asks for them.
fn revision(parameters: &Parameters) -> Revision {
    let value = |name| parameters.get(name).map(str::to_owned);
    value("CVMFS_ROOT_HASH")
        .map(Revision::Hash)
        .or_else(|| value("CVMFS_REPOSITORY_TAG").map(tag_or_trunk))
        .or_else(|| value("CVMFS_REPOSITORY_DATE").map(Revision::Date))
        .unwrap_or(Revision::Trunk)
}

/// A tag, where `trunk` is the newest revision.
fn tag_or_trunk(tag: String) -> Revision {
    if tag == "trunk" { Revision::Trunk } else { Revision::Tag(tag) }
}

/// The groups, or direct when none is named.
fn or_direct(proxies: ProxyGroups) -> ProxyGroups {
    if proxies.groups.is_empty() {
        ProxyGroups { auto: proxies.auto, ..ProxyGroups::direct() }
    } else {
        proxies
    }
}

/// Reads values with defaults.
struct Reader<'a>(&'a Parameters);

impl Reader<'_> {
    fn switch(&self, name: &str, default: bool) -> Result<bool, ParameterError> {
        Ok(self.0.typed::<Switch>(name)?.map_or(default, |switch| switch.0))
    }

    fn seconds(&self, name: &str, default: u64) -> Result<Duration, ParameterError> {
        Ok(self.0.typed::<Seconds>(name)?.map_or(Duration::from_secs(default), Seconds::seconds))
    }

    fn seconds_or_off(&self, name: &str, default: u64) -> Result<Option<Duration>, ParameterError> {
        let seconds = self.0.typed::<SecondsOrOff>(name)?.map_or(default, |seconds| seconds.0);
        Ok((seconds > 0).then_some(Duration::from_secs(seconds)))
    }

    fn number<const LOW: u64, const HIGH: u64>(
        &self,
        name: &str,
        default: u64,
    ) -> Result<u64, ParameterError> {
        Ok(self.0.typed::<Within<LOW, HIGH>>(name)?.map_or(default, |number| number.0))
    }

    fn proxies(&self, name: &str) -> Result<ProxyGroups, ParameterError> {
        Ok(self.0.typed(name)?.unwrap_or_default())
    }

    /// The first servers of a list, as many as a parameter says.
    fn first_of(&self, list: ServerList, name: &str) -> Result<ServerList, ParameterError> {
        let count: Option<Within<1, 64>> = self.0.typed(name)?;
        Ok(match count {
            Some(count) => list.truncated(count.0 as usize),
            None => list,
        })
    }

    /// The newer parameter wins over the older one.
    fn magic_xattrs(&self) -> Result<XattrVisibility, ParameterError> {
        let older = match self.0.typed::<Switch>("CVMFS_HIDE_MAGIC_XATTRS")? {
            None => XattrVisibility::RootOnly,
            Some(Switch(true)) => XattrVisibility::Never,
            Some(Switch(false)) => XattrVisibility::Always,
        };
        Ok(self.0.typed("CVMFS_MAGIC_XATTRS_VISIBILITY")?.unwrap_or(older))
    }

    fn ip_family(&self) -> Result<IpFamily, ParameterError> {
        if self.switch("CVMFS_IPV4_ONLY", false)? {
            return Ok(IpFamily::OnlyV4);
        }
        match self.0.get("CVMFS_IPFAMILY_PREFER") {
            None => Ok(IpFamily::Any),
            Some("4") => Ok(IpFamily::PreferV4),
            Some("6") => Ok(IpFamily::PreferV6),
            Some(_) => Err(self.0.error("CVMFS_IPFAMILY_PREFER", "use 4 or 6")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::new();
        parameters.set("CVMFS_SERVER_URL", "http://s/cvmfs/x.cern.ch", Origin::built_in());
        for (line, (name, value)) in (1..).zip(pairs) {
            parameters.set(*name, *value, Origin::file("/etc/cvmfs/default.local", line));
        }
        parameters
    }

    #[test]
    fn a_bare_server_is_enough() {
        let config = ClientConfig::from_parameters(&parameters(&[("CVMFS_HTTP_PROXY", "")])).unwrap();
        assert_eq!(config.proxies, ProxyGroups::direct());
        assert_eq!(config.transfer.timeout, Duration::from_secs(5));
        assert_eq!(config.ownership, Ownership::Claimed);
        assert_eq!(config.revision, Revision::Trunk);
        assert_eq!(config.notes, Vec::<String>::new());
    }

    #[test]
    fn a_wrong_value_names_its_parameter_file_line_and_range() {
        let error = ClientConfig::from_parameters(&parameters(&[("A", "1"), ("CVMFS_TIMEOUT", "soon")]));
        assert_eq!(
            error.unwrap_err().to_string(),
            "CVMFS_TIMEOUT=\"soon\" (/etc/cvmfs/default.local:2): use a whole number from 1 to 86400"
        );
    }

    #[test]
    fn a_missing_server_is_an_error() {
        let error = ClientConfig::from_parameters(&Parameters::new()).unwrap_err();
        assert_eq!(error.name, "CVMFS_SERVER_URL");
    }

    #[test]
    fn hash_wins_over_tag_and_trunk_is_no_tag() {
        let read = |pairs| ClientConfig::from_parameters(&parameters(pairs)).unwrap().revision;
        assert_eq!(
            read(&[("CVMFS_REPOSITORY_TAG", "v1"), ("CVMFS_ROOT_HASH", "ab")]),
            Revision::Hash("ab".into())
        );
        assert_eq!(read(&[("CVMFS_REPOSITORY_TAG", "trunk")]), Revision::Trunk);
    }

    #[test]
    fn what_is_not_followed_is_said() {
        let config = ClientConfig::from_parameters(&parameters(&[
            ("CVMFS_CONFIG_REPOSITORY", "cvmfs-config.cern.ch"),
            ("CVMFS_ALIEN_CACHE", "/nfs"),
            ("CVMFS_HTTP_PROXY", "auto;DIRECT"),
        ]));
        assert_eq!(config.unwrap().notes.len(), 3);
    }
}
