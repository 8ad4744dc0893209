//! From the configuration of a repository to an open one.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use volume::{Fault, FaultKind, Revision};

use crate::client::cache::Cache;
use crate::client::config::{self, ClientConfig, IpFamily, Quota};
use crate::client::fetch::address::{ProxyGroups, Servers};
use crate::client::fetch::{AddressFamily, FetchConfig, Fetcher, Origin};
use crate::client::fqrn::Fqrn;
use crate::client::repository::{Repository, Resume};
use crate::fs::{About, Opener, Served, View};
use crate::payload::{AllSetup, Kind, Owner, Payload, RepositorySetup};

/// The quota where nothing else is configured, as the C++ client's default: 4000 MiB.
const QUOTA_DEFAULT: u64 = 4000 << 20;
/// The part of a request's deadline that one fetch may take, so that its error comes before the deadline's.
const FETCH_SHARE: f64 = 0.9;

/// Processors that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// The cache's quota in bytes, `None` without one.
pub(super) fn quota(payload: &Payload) -> Result<Option<u64>, Fault> {
    let quota = match &payload.kind {
        Kind::One(setup) => typed(setup)?.quota,
        Kind::All(setup) => match setup.overrides.get("CVMFS_QUOTA_LIMIT") {
            Some(text) => text.parse().map_err(|error: config::values::ValueError| {
                Fault::new(FaultKind::InvalidArgument, "read option", "CVMFS_QUOTA_LIMIT", error.to_string())
            })?,
            // The site's own value, as any repository of it sees it: there is one cache for all.
            None => {
                let configured = setup.configured.iter().filter_map(|name| name.parse().ok());
                let mut quotas = configured
                    .filter_map(|name: Fqrn| setup.repository(&name).ok()?.client_config().ok())
                    .map(|config| config.quota);
                quotas.next().unwrap_or(Quota::Bytes(QUOTA_DEFAULT))
            }
        },
    };
    Ok(match quota {
        Quota::Unlimited => None,
        Quota::Bytes(bytes) => Some(bytes),
    })
}

fn typed(setup: &RepositorySetup) -> Result<ClientConfig, Fault> {
    setup.client_config().map_err(|error| invalid(setup, &error))
}

fn invalid(setup: &RepositorySetup, error: &dyn std::fmt::Display) -> Fault {
    Fault::new(FaultKind::InvalidArgument, "read configuration", &setup.repository, error.to_string())
}

/// What all repositories of a worker share.
pub(super) struct Site {
    cache: Arc<Cache>,
    owner: Owner,
    deadline: Duration,
    runtime: Handle,
    /// The first fetcher, whose connections the others share.
    first: Mutex<Option<Arc<Fetcher>>>,
}

impl Site {
    pub(super) fn new(cache: Arc<Cache>, owner: Owner, deadline: Duration, runtime: Handle) -> Site {
        Site { cache, owner, deadline, runtime, first: Mutex::default() }
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// Looks for what is wrong with a configuration, without network.
    pub(super) fn check(&self, setup: &RepositorySetup) -> Result<(), Fault> {
        let config = typed(setup)?;
        setup.id_maps().map_err(|error| invalid(setup, &error))?;
        self.fetch_config(setup, &config).map(drop)
    }

    /// Opens a repository.
    pub(super) async fn open(
        &self,
        setup: &RepositorySetup,
        offline: bool,
        resume: Option<Resume>,
        is_root: bool,
    ) -> Result<Arc<Served>, Fault> {
        let config = typed(setup)?;
        let maps = setup.id_maps().map_err(|error| invalid(setup, &error))?;
        let fetcher = self.fetcher(self.fetch_config(setup, &config)?);
        let repository = Repository::open(setup, Arc::clone(&fetcher), offline, resume).await?;
        for note in &config.notes {
            tracing::warn!(repository = setup.repository, note, "configuration");
        }
        let pinned = repository.is_pinned();
        Ok(Arc::new(Served {
            repository,
            fetcher,
            view: View::new(&config, self.owner, maps, setup.parameters.environment(), pinned),
            about: About {
                tag: match &setup.revision {
                    Revision::Tag(tag) => tag.clone(),
                    Revision::Trunk | Revision::Date(_) | Revision::Hash(_) => "(no tag)".to_owned(),
                },
                hosts: config.servers.urls().iter().map(ToString::to_string).collect(),
                proxies: config.proxies.to_string(),
                timeout: config.transfer.timeout,
                timeout_direct: config.transfer.timeout_direct,
            },
            is_root,
            runtime: self.runtime.clone(),
            started: SystemTime::now(),
        }))
    }

    fn fetcher(&self, config: FetchConfig) -> Arc<Fetcher> {
        let mut first = self.first.lock();
        match &*first {
            Some(first) => first.sibling(config),
            None => Arc::clone(first.insert(Fetcher::new(config, Arc::clone(&self.cache)))),
        }
    }

    /// The fetcher's settings. Texts cross over, as each side has its own types for them.
    fn fetch_config(&self, setup: &RepositorySetup, config: &ClientConfig) -> Result<FetchConfig, Fault> {
        let servers = |list: &config::ServerList| -> Result<Servers, Fault> {
            let texts: Vec<String> = list.urls().iter().map(ToString::to_string).collect();
            texts.join(";").parse().map_err(|error| invalid(setup, &error))
        };
        let proxies = |main: &config::ProxyGroups, fallback: &config::ProxyGroups| {
            let parse = |groups: &config::ProxyGroups| -> Result<Option<ProxyGroups>, Fault> {
                if groups.groups.is_empty() {
                    return Ok(None);
                }
                groups.to_string().parse().map(Some).map_err(|error| invalid(setup, &error))
            };
            let main = parse(main)?.unwrap_or_else(ProxyGroups::direct);
            Ok::<_, Fault>(match parse(fallback)? {
                Some(fallback) => main.with_fallback(fallback),
                None => main,
            })
        };
        let transfer = &config.transfer;
        let origin = Origin {
            timeout: transfer.timeout,
            timeout_direct: transfer.timeout_direct,
            ..Origin::new(servers(&config.servers)?, proxies(&config.proxies, &config.fallback_proxies)?)
        };
        let external = match &config.external.servers {
            Some(list) => {
                let ways = proxies(&config.external.proxies, &config.external.fallback_proxies)?;
                Some(Origin {
                    timeout: config.external.timeout,
                    timeout_direct: config.external.timeout_direct,
                    ..Origin::new(servers(list)?, ways)
                })
            }
            None => None,
        };
        Ok(FetchConfig {
            external,
            low_speed_limit: transfer.low_speed_limit,
            max_retries: transfer.max_retries,
            backoff_init: transfer.backoff_init,
            backoff_max: transfer.backoff_max,
            // Zero: never reset by time. A year is as good.
            proxy_reset_after: transfer.proxy_reset_after.unwrap_or(NEVER),
            host_reset_after: transfer.host_reset_after.unwrap_or(NEVER),
            follow_redirects: transfer.follow_redirects,
            deadline: self.deadline.mul_f64(FETCH_SHARE),
            family: match transfer.ip_family {
                IpFamily::Any => AddressFamily::Any,
                IpFamily::OnlyV4 => AddressFamily::V4Only,
                IpFamily::PreferV4 => AddressFamily::PreferV4,
                IpFamily::PreferV6 => AddressFamily::PreferV6,
            },
            ..FetchConfig::new(&setup.repository, origin)
        })
    }
}

const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Opens the repositories of the tree of all.
pub(super) struct AllOpener {
    site: Arc<Site>,
    setup: AllSetup,
}

impl AllOpener {
    pub(super) fn new(site: Arc<Site>, setup: AllSetup) -> AllOpener {
        AllOpener { site, setup }
    }

    fn setup(&self, name: &str) -> Result<RepositorySetup, Fault> {
        let absent = |error: &dyn std::fmt::Display| {
            Fault::new(FaultKind::NotFound, "open repository", name, error.to_string())
        };
        let name: Fqrn = name.parse().map_err(|error| absent(&error))?;
        self.setup.repository(&name).map_err(|error| absent(&error))
    }
}

#[async_trait]
impl Opener for AllOpener {
    fn configured(&self) -> Vec<String> {
        self.setup.configured.clone()
    }

    fn check(&self, name: &str) -> Result<(), Fault> {
        self.site.check(&self.setup(name)?)
    }

    async fn open(&self, name: &str, resume: Option<Resume>) -> Result<Arc<Served>, Fault> {
        let setup = self.setup(name)?;
        self.site.open(&setup, resume.is_some(), resume, false).await
    }
}
