//! A repository: its verified current revision, kept up to date.
//!
//! Opening verifies the whole signature chain and opens the root catalog, so that what cannot be served never leaves a
//! mount. When no server answers, the last verified state in the cache's record is verified again from its blobs. A
//! worker that takes over a live mount resumes at the very revision its predecessor served ([`Resume`]), so that what the
//! kernel has cached is compared with the right one at the next update.

mod trouble;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};
use volume::{Fault, FaultKind, Retry, Revision};

use crate::client::cache::VerifiedRecord;
use crate::client::catalog::{CatalogRef, Catalogs, Dirent, Kind};
use crate::client::fetch::Fetcher;
use crate::client::manifest::Manifest;
use crate::client::selection::{self, Selected};
use crate::client::snapshot::Snapshot;
use crate::client::trust::{Evidence, Floor, TrustError, TrustPolicy, VerifiedManifest, establish, verify};
use crate::client::update::Update;
use crate::client::upstream::{FetchedUpstream, Upstream};
use crate::client::whitelist::Whitelist;
use crate::payload::RepositorySetup;
use trouble::Trouble;

/// How long after a failure the server is asked again.
const RETRY_AFTER: Duration = Duration::from_secs(180);
/// Time to live of a manifest that names none.
const DEFAULT_TTL: Duration = Duration::from_secs(240);
/// Servers are not asked more often than this.
const SHORTEST_TTL: Duration = Duration::from_secs(5);

/// The revision that an earlier process served on the same mount.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resume {
    /// Its root catalog.
    pub root: CatalogRef,
    /// Its number.
    pub revision: u64,
}

/// An open repository.
#[derive(Debug)]
pub struct Repository {
    name: String,
    upstream: Arc<dyn Upstream>,
    catalogs: Arc<Catalogs>,
    policy: TrustPolicy,
    /// Pinned: never moves.
    pinned: bool,
    auto_update: bool,
    max_ttl: Option<Duration>,
    current: RwLock<Arc<Snapshot>>,
    state: Mutex<State>,
    /// One refresh at a time.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    manifest: Option<Arc<VerifiedManifest>>,
    floor: Option<Floor>,
    next_refresh: Option<Instant>,
    trouble: Option<Trouble>,
    /// The whitelist that the manifest was verified with.
    whitelist: Option<Whitelist>,
}

impl Repository {
    /// Opens a repository over a fetcher; see [`open_with`](Self::open_with).
    ///
    /// # Errors
    /// As `open_with`.
    pub async fn open(
        setup: &RepositorySetup,
        fetcher: Arc<Fetcher>,
        offline: bool,
        resume: Option<Resume>,
    ) -> Result<Arc<Self>, Fault> {
        let upstream = FetchedUpstream::new(&setup.repository, fetcher);
        Self::open_with(setup, upstream, offline, resume).await
    }

    /// Opens a repository. `offline` asks no server for the newest revision: the record in the cache is used, however old
    /// (a whitelist that expired meanwhile ends no live mount). With `resume` the given revision is served until the next
    /// refresh, whatever the record says; this cannot fail for lack of a server.
    ///
    /// # Errors
    /// Something does not verify, is not found, or no server answers and there is no record.
    pub async fn open_with(
        setup: &RepositorySetup,
        upstream: Arc<dyn Upstream>,
        offline: bool,
        resume: Option<Resume>,
    ) -> Result<Arc<Self>, Fault> {
        let name = setup.repository.clone();
        let config = setup.client_config().map_err(|error| {
            Fault::new(FaultKind::InvalidArgument, "read configuration", &name, error.to_string())
        })?;
        let mut policy = TrustPolicy::from_setup(setup)?;
        let recorded = recorded(&*upstream, &policy);
        policy.floor = recorded.floor;
        let mut trouble = None;
        let verified = if offline {
            recorded.verified
        } else {
            match establish(&*upstream, &policy).await {
                Ok(verified) => Some(verified),
                Err(fault) => {
                    match recorded.verified.filter(|_| fault.retry == Retry::Later && !recorded.expired) {
                        Some(verified) => {
                            tracing::warn!(repository = name, %fault, "serving the last verified revision");
                            trouble =
                                Some(Trouble::now(format!("serving the last verified revision: {fault}")));
                            Some(verified)
                        }
                        None if resume.is_some() => {
                            trouble = Some(Trouble::now(format!("serving the revision of before: {fault}")));
                            None
                        }
                        None => return Err(fault),
                    }
                }
            }
        };
        let catalogs = Catalogs::new(Arc::clone(&upstream) as _);
        let (root, revision) = match (resume, &verified) {
            (Some(resume), _) => (resume.root, resume.revision),
            (None, Some(verified)) => {
                upstream.use_alternative_names(verified.manifest().alternative_paths);
                let selected = selection::select(&*upstream, verified.manifest(), &setup.revision).await?;
                open_root(&catalogs, &policy, &setup.revision, selected).await?
            }
            (None, None) => {
                let detail =
                    "no revision of it was verified on this node before, and no server may be asked now";
                return Err(Fault::new(FaultKind::Unavailable, "open repository", &name, detail));
            }
        };
        let pinned = setup.revision != Revision::Trunk;
        let repository = Repository {
            name,
            upstream,
            policy: TrustPolicy { floor: None, ..policy.clone() },
            pinned,
            auto_update: config.auto_update,
            max_ttl: config.max_ttl,
            current: RwLock::new(Arc::new(Snapshot::new(Arc::clone(&catalogs), root, revision))),
            catalogs,
            state: Mutex::new(State { floor: policy.floor, trouble, ..State::default() }),
            refreshing: tokio::sync::Mutex::default(),
        };
        let fresh = !offline && repository.trouble().is_none();
        if let Some(verified) = verified {
            if fresh {
                repository.keep(&verified);
            }
            repository.seen(verified);
        }
        let wait = match (offline, fresh) {
            (true, _) => Duration::ZERO,
            (false, true) => repository.ttl(),
            (false, false) => RETRY_AFTER,
        };
        repository.schedule(wait);
        Ok(Arc::new(repository))
    }

    /// Fully qualified name: `cms.cern.ch`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All catalogs by digest, of any revision.
    pub fn catalogs(&self) -> &Arc<Catalogs> {
        &self.catalogs
    }

    /// The revision that is served.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read())
    }

    /// What a later process must know to go on with the same revision.
    pub fn resume(&self) -> Resume {
        let snapshot = self.snapshot();
        Resume { root: snapshot.root().clone(), revision: snapshot.revision() }
    }

    /// The newest manifest that was verified; of a pinned repository the one it was resolved with.
    pub fn manifest(&self) -> Option<Arc<VerifiedManifest>> {
        self.state.lock().manifest.clone()
    }

    /// Whether a tag, date or hash holds the revision for ever.
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// What keeps the repository from being up to date, for people; `None` when nothing does.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state.lock();
        if let Some(trouble) = &state.trouble {
            return Some(trouble.to_string());
        }
        trouble::expired(state.whitelist.as_ref()?, SystemTime::now())
    }

    /// When to [`refresh`](Self::refresh) next; `None` for a pinned revision and with `CVMFS_AUTO_UPDATE` off.
    pub fn next_refresh(&self) -> Option<Instant> {
        self.state.lock().next_refresh
    }

    /// Looks for a new revision now. With one, [`snapshot`](Self::snapshot) answers with it from here on, and the
    /// returned update tells what to invalidate.
    ///
    /// # Errors
    /// The server is down, or what it offers does not verify; the old revision goes on being served, and the next
    /// refresh is due in three minutes.
    pub async fn refresh(&self) -> Result<Option<Update>, Fault> {
        if self.pinned {
            return Ok(None);
        }
        let _alone = self.refreshing.lock().await;
        // If this is dropped half way (a deadline of the caller), it is tried again as after a failure.
        self.schedule(RETRY_AFTER);
        match self.look().await {
            Ok(update) => {
                self.state.lock().trouble = None;
                self.schedule(self.ttl());
                Ok(update)
            }
            Err(fault) => {
                let mut state = self.state.lock();
                let since = state.trouble.as_ref().map_or_else(SystemTime::now, |trouble| trouble.since);
                let revision = self.current.read().revision();
                let what = format!("cannot look for a new revision, revision {revision} is served: {fault}");
                state.trouble = Some(Trouble { since, what });
                drop(state);
                Err(fault)
            }
        }
    }

    async fn look(&self) -> Result<Option<Update>, Fault> {
        // Another process of this node may have seen more than this one.
        let recorded = recorded(&*self.upstream, &self.policy);
        let floor = [recorded.floor, self.state.lock().floor].into_iter().flatten();
        let policy = TrustPolicy {
            floor: floor.max_by_key(|floor| (floor.revision, floor.published)),
            ..self.policy.clone()
        };
        let verified = establish(&*self.upstream, &policy).await?;
        let old = self.snapshot();
        let manifest = verified.manifest();
        if manifest.catalog == old.root().digest || manifest.revision <= old.revision() {
            if manifest.catalog != old.root().digest {
                tracing::warn!(
                    repository = self.name,
                    revision = manifest.revision,
                    "the server offers another root catalog under a revision that is not newer; ignored"
                );
            } else if manifest.revision > old.revision() {
                // Published anew without a change.
                let same = Snapshot::renumbered(&old, manifest.revision);
                *self.current.write() = Arc::new(same);
            }
            self.keep(&verified);
            self.seen(verified);
            return Ok(None);
        }
        self.upstream.use_alternative_names(manifest.alternative_paths);
        let selected = selection::trunk(manifest);
        let (root, revision) = open_root(&self.catalogs, &policy, &Revision::Trunk, selected).await?;
        let new = Arc::new(Snapshot::new(Arc::clone(&self.catalogs), root, revision));
        *self.current.write() = Arc::clone(&new);
        tracing::info!(repository = self.name, from = old.revision(), to = revision, "new revision");
        self.keep(&verified);
        self.seen(verified);
        Ok(Some(Update { old, new }))
    }

    /// Remembers what was verified.
    fn seen(&self, verified: VerifiedManifest) {
        let mut state = self.state.lock();
        state.floor = Some(verified.floor());
        state.whitelist = Whitelist::parse(&verified.evidence().whitelist).ok();
        state.manifest = Some(Arc::new(verified));
    }

    fn keep(&self, verified: &VerifiedManifest) {
        let evidence = verified.evidence();
        self.upstream.keep(&VerifiedRecord {
            manifest: evidence.published.clone(),
            whitelist: evidence.whitelist.clone(),
            certificate: evidence.certificate.clone(),
            revision: verified.manifest().revision,
        });
    }

    fn ttl(&self) -> Duration {
        let published = self.state.lock().manifest.as_ref().map(|verified| verified.manifest().ttl);
        let ttl = published.filter(|ttl| !ttl.is_zero()).unwrap_or(DEFAULT_TTL);
        self.max_ttl.map_or(ttl, |max| max.min(ttl)).max(SHORTEST_TTL)
    }

    fn schedule(&self, wait: Duration) {
        let due = (!self.pinned && self.auto_update).then(|| Instant::now() + wait);
        self.state.lock().next_refresh = due;
    }
}

/// What the record says.
#[derive(Default)]
struct Recorded {
    /// Verified again, all but the expiry of its whitelist.
    verified: Option<VerifiedManifest>,
    /// The whitelist expired since.
    expired: bool,
    floor: Option<Floor>,
}

/// Verifies the record again. One that does not verify (other keys are configured, the blacklist grew) is as good as none.
fn recorded(upstream: &dyn Upstream, policy: &TrustPolicy) -> Recorded {
    let Some(record) = upstream.record() else {
        return Recorded::default();
    };
    let evidence = || Evidence {
        published: record.manifest.clone(),
        whitelist: record.whitelist.clone(),
        certificate: record.certificate.clone(),
    };
    let policy = TrustPolicy { floor: None, ..policy.clone() };
    let now = verify(evidence(), &policy, SystemTime::now());
    let expired = matches!(now, Err(TrustError::Expired(_)));
    // At the epoch no whitelist has expired.
    let verified = if expired { verify(evidence(), &policy, SystemTime::UNIX_EPOCH) } else { now };
    match verified {
        Ok(verified) => Recorded { floor: Some(verified.floor()), verified: Some(verified), expired },
        Err(error) => {
            tracing::warn!(repository = policy.repository, %error, "the record of the last revision does not verify");
            Recorded::default()
        }
    }
}

/// Opens the root catalog of a selected revision, so that a revision that cannot be served is never switched to.
async fn open_root(
    catalogs: &Arc<Catalogs>,
    policy: &TrustPolicy,
    wanted: &Revision,
    selected: Selected,
) -> Result<(CatalogRef, u64), Fault> {
    let root = CatalogRef::root(selected.root, None);
    let opened = catalogs.open(&root).await;
    let catalog =
        opened.map_err(|error| selection::explain(&policy.repository, wanted, &selected.root, &error))?;
    let subject = format!("{} {}", policy.repository, selected.root);
    let refuse =
        |detail: String| Err(Fault::new(FaultKind::Untrusted, "open root catalog", &subject, detail));
    if !catalog.properties().root_prefix.is_empty() {
        return refuse(
            "it is the catalog of a subdirectory, no root catalog; use the hash of a whole revision".into(),
        );
    }
    let root_entry = catalog.lookup(b"").map_err(|error| {
        Fault::new(FaultKind::Untrusted, "open root catalog", &subject, error.to_string())
    })?;
    if !matches!(root_entry, Some(Ok(Dirent { kind: Kind::Directory { .. }, .. }))) {
        return refuse("it has no root directory".into());
    }
    let revision = selected.revision.or(catalog.properties().revision).unwrap_or(0);
    let minimum = policy.blacklist.minimum_revision(&policy.repository);
    if revision < minimum {
        return refuse(format!(
            "revision {revision} is refused by this node's blacklist, which asks for {minimum}"
        ));
    }
    Ok((root, revision))
}

/// What a manifest offers, for people.
pub fn describe(manifest: &Manifest) -> String {
    format!("revision {} ({})", manifest.revision, manifest.catalog)
}

#[cfg(test)]
mod tests;
