//! Provisioned volumes of drivers whose storage has none (CVMFS): a repository is there whether somebody provisions it
//! or not, so a "volume" is a name for a set of options, kept in the journal in a table of its own. Docker's volumes are
//! others; neither list shows the other's.
//!
//! What is kept is bounded in number and bytes, because whoever may make claims in a cluster can make many.

use std::ops::Bound;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use volume::{
    Abilities, Backend, Caller, Driver, Fault, FaultKind, Form, Frontend, NewVolume, OptionMap, Page,
    PageRequest, Provision, Secrets, StoredVolume,
};

use crate::core::{Core, busy, now};
use crate::guard::Guard;
use crate::table::{Change, ProvisionedRow};

/// Volumes of all drivers together.
const VOLUMES: usize = 100_000;
/// Bytes of all parameters of a volume together; CSI allows a context of 4 KiB.
const PARAMETER_BYTES: usize = 4096;
/// Bytes of a name; CSI allows as many.
const NAME_BYTES: usize = 128;
/// Entries of one page.
const PAGE: usize = 1000;

type Lane = Guard<String>;

/// The volumes of one driver.
pub(crate) struct Nominal {
    /// Gone when the daemon ends.
    core: Weak<Core>,
    driver: Driver,
}

/// What a driver can do whose backend has no volumes.
pub(crate) fn abilities(core: &Arc<Core>, driver: Driver) -> Abilities {
    Abilities {
        provision: Arc::new(Nominal { core: Arc::downgrade(core), driver }),
        clone: false,
        publish: None,
        capacity: None,
        grow: None,
        modify: None,
        snapshots: None,
        group_snapshots: None,
        extents: None,
    }
}

fn invalid(subject: &str, detail: impl Into<String>) -> Fault {
    Fault::new(FaultKind::InvalidArgument, "provision volume", subject, detail)
}

/// 64 hexadecimal digits.
fn digest(domain: &str, text: &str) -> String {
    let sum = Sha256::new().chain_update(domain).chain_update([0]).chain_update(text).finalize();
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of a name: itself where that is fit to stand in paths and commands.
fn id_of(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let plain = name.len() <= NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(allowed);
    if plain { name.to_owned() } else { format!("volume-{}", digest("volume id", name)) }
}

/// Says where the next page begins: after this id, which need not exist any more by then.
fn token_of(id: &str) -> String {
    format!("{}.{id}", &digest("page", id)[..16])
}

/// The id in a token that was given out by [`token_of`].
fn id_in(token: &str) -> Option<&str> {
    let (_, id) = token.split_once('.')?;
    (token_of(id) == token).then_some(id)
}

fn stored(id: &str, row: &ProvisionedRow) -> StoredVolume {
    StoredVolume {
        id: id.to_owned(),
        size: row.size,
        context: row.context.clone(),
        source: None,
        places: Vec::new(),
        // Where it is mounted is known to each node's own daemon.
        nodes: Vec::new(),
        trouble: None,
    }
}

impl Nominal {
    fn core(&self) -> Result<Arc<Core>, Fault> {
        self.core.upgrade().ok_or_else(|| {
            Fault::new(FaultKind::Cancelled, "provision", self.driver.as_str(), "the daemon is ending")
        })
    }

    fn row(&self, core: &Core, id: &str) -> Result<ProvisionedRow, Fault> {
        let row = core.tables.lock().provisioned.get(&(self.driver, id.to_owned())).cloned();
        row.ok_or_else(|| {
            let detail = format!("no {} volume has this id", self.driver);
            Fault::new(FaultKind::NotFound, "find volume", id, detail)
        })
    }

    /// Writes a change down, whether or not the caller waits for the end. Nothing else is done to this volume meanwhile.
    async fn change(&self, core: &Arc<Core>, id: &str, lane: Lane, change: Change) -> Result<(), Fault> {
        let deadline = Instant::now() + core.config.release;
        let writing = core.clone();
        let work = async move {
            let _lane = lane;
            writing.commit(vec![change]).await
        };
        core.complete("provision volume", id, deadline, work).await
    }

    /// The right to change a volume. The sidecar gives up after ten seconds and asks again while the first request runs
    /// (facts: kubernetes-current 4): it hears that it is busy.
    fn lane(&self, core: &Core, id: &str) -> Result<Lane, Fault> {
        core.lanes.try_enter(&format!("{}\0provision\0{id}", self.driver)).map_err(|_| busy(id))
    }

    /// Whether the parameters describe a volume in each of these forms.
    fn check_forms(
        &self,
        backend: &dyn Backend,
        subject: &str,
        forms: &[Form],
        parameters: &OptionMap,
    ) -> Result<(), Fault> {
        for form in forms {
            if *form == Form::Block && !backend.node_abilities().block {
                let detail =
                    format!("a {} volume is a file system, it cannot be a block device", self.driver);
                return Err(invalid(subject, detail));
            }
            backend.parse(None, parameters, form, &Caller::admin(Frontend::Csi))?;
        }
        Ok(())
    }

    /// The size in bytes, if everything about the wanted volume makes sense.
    fn examine(&self, backend: &dyn Backend, wanted: &NewVolume) -> Result<u64, Fault> {
        let name = wanted.name.as_str();
        if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            let shown: String = name.chars().take(40).collect();
            let detail = format!("a name has 1 to {NAME_BYTES} bytes, none of them a control character");
            return Err(invalid(&shown.escape_debug().to_string(), detail));
        }
        let bytes: usize = wanted.parameters.iter().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > PARAMETER_BYTES {
            return Err(invalid(
                name,
                format!("its parameters have {bytes} bytes; {PARAMETER_BYTES} is the limit"),
            ));
        }
        if let Some(parameter) = wanted.mutable_parameters.keys().next() {
            let parameter: String = parameter.chars().take(80).collect();
            return Err(invalid(
                name,
                format!("{parameter:?}: {} volumes have no parameters that can change", self.driver),
            ));
        }
        if wanted.source.is_some() {
            return Err(invalid(name, format!("{} volumes cannot begin as a copy of another", self.driver)));
        }
        let size = wanted.size.required.unwrap_or(0);
        if i64::try_from(size).is_err() || !wanted.size.contains(size) {
            return Err(invalid(name, "the least size that is asked for is above the limit"));
        }
        self.check_forms(backend, name, &wanted.forms, &wanted.parameters)?;
        Ok(size)
    }
}

#[async_trait]
impl Provision for Nominal {
    async fn create(&self, wanted: &NewVolume, _secrets: &Secrets) -> Result<StoredVolume, Fault> {
        let core = self.core()?;
        let size = self.examine(core.backend(self.driver)?.as_ref(), wanted)?;
        let id = id_of(&wanted.name);
        let lane = self.lane(&core, &id)?;
        let row = ProvisionedRow {
            name: wanted.name.clone(),
            size,
            context: wanted.parameters.clone(),
            created_at: now(),
        };
        let old = {
            let tables = core.tables.lock();
            let old = tables.provisioned.get(&(self.driver, id.clone())).cloned();
            if old.is_none() && tables.provisioned.len() >= VOLUMES {
                let detail = format!("{VOLUMES} volumes are provisioned; delete some");
                return Err(Fault::new(
                    FaultKind::ResourceExhausted,
                    "provision volume",
                    &wanted.name,
                    detail,
                ));
            }
            old
        };
        if let Some(old) = old {
            let other = match () {
                () if old.name != row.name => "another name",
                () if old.context != row.context => "other parameters",
                () if !wanted.size.contains(old.size) => "another size",
                () => return Ok(stored(&id, &old)),
            };
            let detail = format!("a volume is there already with {other}");
            return Err(Fault::new(FaultKind::AlreadyExists, "provision volume", &wanted.name, detail));
        }
        let put = Change::PutProvisioned(self.driver, id.clone(), row.clone());
        self.change(&core, &id, lane, put).await?;
        tracing::info!(volume = %id, driver = %self.driver, "volume provisioned");
        Ok(stored(&id, &row))
    }

    async fn delete(&self, id: &str, _secrets: &Secrets) -> Result<(), Fault> {
        let core = self.core()?;
        let lane = self.lane(&core, id)?;
        if self.row(&core, id).is_err() {
            return Ok(());
        }
        self.change(&core, id, lane, Change::DropProvisioned(self.driver, id.to_owned())).await?;
        tracing::info!(volume = %id, driver = %self.driver, "provisioned volume deleted");
        Ok(())
    }

    async fn volume(&self, id: &str) -> Result<StoredVolume, Fault> {
        Ok(stored(id, &self.row(self.core()?.as_ref(), id)?))
    }

    async fn volumes(&self, page: &PageRequest) -> Result<Page<StoredVolume>, Fault> {
        let after = match &page.start {
            Some(token) => {
                let id = id_in(token).ok_or_else(|| {
                    Fault::new(
                        FaultKind::InvalidArgument,
                        "list volumes",
                        "",
                        "the page token is not one of ours",
                    )
                })?;
                Bound::Excluded((self.driver, id.to_owned()))
            }
            None => Bound::Included((self.driver, String::new())),
        };
        let limit = if page.limit == 0 { PAGE } else { page.limit.min(PAGE) };
        let core = self.core()?;
        let tables = core.tables.lock();
        let rest = tables.provisioned.range((after, Bound::Unbounded));
        let mut rest = rest.take_while(|((driver, _), _)| *driver == self.driver);
        let entries: Vec<_> = rest.by_ref().take(limit).map(|((_, id), row)| stored(id, row)).collect();
        let more = rest.next().is_some();
        let next = entries.last().filter(|_| more).map(|last| token_of(&last.id));
        Ok(Page { entries, next })
    }

    async fn check(&self, id: &str, forms: &[Form], parameters: &OptionMap) -> Result<(), Fault> {
        let core = self.core()?;
        let row = self.row(&core, id)?;
        let backend = core.backend(self.driver)?;
        self.check_forms(backend.as_ref(), id, forms, &row.context)?;
        if !parameters.is_empty() && *parameters != row.context {
            self.check_forms(backend.as_ref(), id, forms, parameters)?;
            return Err(invalid(id, "the volume was made with other parameters"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_is_its_own_id_and_any_other_gets_a_digest() {
        assert_eq!(id_of("pvc-0a1b"), "pvc-0a1b");
        for name in ["", "-x", "a b", "a/../b", "é", &"x".repeat(129)] {
            let id = id_of(name);
            assert!(id.len() <= 128 && id.starts_with("volume-") && id_of(&id) == id, "{id}");
        }
        assert_ne!(id_of("a b"), id_of("a  b"));
    }

    #[test]
    fn only_our_own_tokens_are_taken() {
        for id in ["a", "a.b", "x".repeat(128).as_str()] {
            assert_eq!(id_in(&token_of(id)), Some(id));
        }
        for bad in ["", ".", "a", "invalid-token", "0000000000000000.a"] {
            assert_eq!(id_in(bad), None, "{bad}");
        }
    }
}
