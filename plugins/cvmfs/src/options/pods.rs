//! What the author of a pod may ask for.
//!
//! Inline volumes (CSI, FlexVolume) are written by whoever may make pods; their options become part of a mount that the
//! node's daemon makes. So they are held against a list that the node's administrator writes. The list is short by
//! default; servers and proxies are allowed by value, never by name alone; and some options are nobody's but the
//! administrator's, whatever the list says: those are refused when the list is read.
//!
//! [`Author::Admin`](volume::Author) is never held against these rules.

use std::collections::BTreeSet;
use std::path::PathBuf;

use volume::{Fault, FaultKind, OptionMap, nearest};

use super::vocabulary::{self, FILES, Meaning, PROXIES, SERVERS};
use crate::client::config::{Proxy, ProxyGroups, ServerList, ServerUrl};
use crate::client::fqrn::Fqrn;

/// Most entries of one list.
const ENTRIES_MAX: usize = 1000;
/// Why a pod's author may not name files, whichever option does it.
const NODE_FILE: &str = "it names a file of the node, a key or another identity";

/// The administrator's lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodRules {
    /// Options by name.
    pub options: PodOptions,
    /// Values of options that name servers.
    pub servers: PodServers,
    /// Values of options that name proxies.
    pub proxies: PodProxies,
    /// Repositories.
    pub repositories: PodRepositories,
    /// The file that has these lists, for messages.
    pub file: PathBuf,
}

/// Options that a pod's author may set, in their canonical names.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct PodOptions(BTreeSet<&'static str>);

/// Server URLs; `@fqrn@` and `@org@` stand for the repository's name and its first part.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct PodServers(Vec<String>);

/// Proxies; `DIRECT` is one.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct PodProxies(Vec<Proxy>);

/// Patterns of repository names, in which `*` stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct PodRepositories(Vec<String>);

/// A list that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodRulesError {
    /// An option that does not exist.
    #[error("{option:?} is no option{hint}")]
    Unknown {
        /// What the list says.
        option: String,
        /// `; did you mean …?`, or nothing.
        hint: String,
    },
    /// An option that pods can never have.
    #[error("{option} cannot be allowed for pods: {reason}")]
    Never {
        /// The option.
        option: String,
        /// Why.
        reason: &'static str,
    },
    /// An option that is allowed by value.
    #[error("{option} is allowed by value: list the values in {list} instead")]
    ByValue {
        /// The option.
        option: String,
        /// The key of that list.
        list: &'static str,
    },
    /// A value that is no server, proxy or pattern.
    #[error("{0}")]
    Value(String),
    /// Too long a list.
    #[error("{0} entries; {ENTRIES_MAX} is the limit")]
    TooMany(usize),
}

/// Who may set an option when it is not an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Whoever the list of options says.
    Listed,
    /// By value, from the list with this key.
    ByValue(&'static str),
    /// Nobody; why.
    Never(&'static str),
}

fn rule(meaning: Meaning) -> Rule {
    match meaning {
        Meaning::Parameter(name) if FILES.contains(&name) => Rule::Never(NODE_FILE),
        Meaning::Parameter(name) if SERVERS.contains(&name) => Rule::ByValue("cvmfs.pod_servers"),
        Meaning::Parameter(name) if PROXIES.contains(&name) => Rule::ByValue("cvmfs.pod_proxies"),
        Meaning::Parameter("CVMFS_SUID") => Rule::Never("it raises privileges on the node"),
        Meaning::Parameter("CVMFS_QUOTA_LIMIT") => {
            Rule::Never("all volumes of a node share one cache, and the smallest limit counts")
        }
        Meaning::ClientConfigFile => Rule::Never(NODE_FILE),
        Meaning::Refused(reason) => Rule::Never(reason),
        Meaning::Repository
        | Meaning::Tag
        | Meaning::Hash
        | Meaning::Date
        | Meaning::ClientConfig
        | Meaning::SharedMount
        | Meaning::Parameter(_) => Rule::Listed,
    }
}

/// One name for an option that has several.
fn canonical(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::Repository => "repository",
        Meaning::Tag => "tag",
        Meaning::Hash => "hash",
        Meaning::Date => "date",
        Meaning::ClientConfig => "clientConfig",
        Meaning::ClientConfigFile => "clientConfigFilepath",
        Meaning::SharedMount => "sharedMountID",
        Meaning::Parameter(name) => name,
        Meaning::Refused(_) => "",
    }
}

impl PodRules {
    /// Checks that a pod's author may set an option. Values of servers and proxies are checked by
    /// [`check_places`](Self::check_places).
    pub(super) fn check_option(&self, option: &str, meaning: Meaning) -> Result<(), Fault> {
        let detail = match rule(meaning) {
            Rule::ByValue(_) => return Ok(()),
            Rule::Listed if self.options.0.contains(canonical(meaning)) => return Ok(()),
            Rule::Listed => format!(
                "pods may not set it here; the administrator allows it in cvmfs.pod_options of {}, or gives it in a CSI \
                 PersistentVolume or StorageClass",
                self.file.display()
            ),
            Rule::Never(reason) => format!(
                "pods may never set it: {reason}; the administrator gives it in a CSI PersistentVolume, a StorageClass \
                 or the node's own configuration"
            ),
        };
        Err(denied(option, detail))
    }

    /// Checks where a pod's volume would be fetched from. `name_of` is the option that set a parameter.
    pub(super) fn check_places<'a>(
        &self,
        fqrn: &Fqrn,
        parameters: &OptionMap,
        name_of: impl Fn(&'a str) -> String,
    ) -> Result<(), Fault> {
        for name in SERVERS.iter().chain(PROXIES) {
            let Some(value) = parameters.get(*name).filter(|value| !value.trim().is_empty()) else {
                continue;
            };
            let (stranger, list) = match rule(Meaning::Parameter(name)) {
                Rule::ByValue(list @ "cvmfs.pod_servers") => (self.foreign_server(fqrn, value), list),
                Rule::ByValue(list) => (self.foreign_proxy(value), list),
                Rule::Listed | Rule::Never(_) => continue,
            };
            if let Some(stranger) = stranger {
                let file = self.file.display();
                let detail = format!(
                    "pods may use only what the administrator lists in {list} of {file}, and {stranger:?} is not in it"
                );
                return Err(denied(&name_of(name), detail));
            }
        }
        Ok(())
    }

    /// The first server of a list that is not allowed.
    fn foreign_server(&self, fqrn: &Fqrn, value: &str) -> Option<String> {
        let Ok(list) = fqrn.fill_template(value).parse::<ServerList>() else { return Some(shown(value)) };
        let filled = self.servers.0.iter().map(|text| fqrn.fill_template(text).parse::<ServerUrl>());
        let allowed: Vec<ServerUrl> = filled.flatten().collect();
        list.urls().iter().find(|url| !allowed.contains(url)).map(|url| shown(&url.to_string()))
    }

    /// The first proxy of a list that is not allowed.
    fn foreign_proxy(&self, value: &str) -> Option<String> {
        let Ok(proxies) = value.parse::<ProxyGroups>() else { return Some(shown(value)) };
        if proxies.auto {
            return Some("auto".to_owned());
        }
        let foreign = proxies.groups.iter().flatten().find(|proxy| !self.proxies.0.contains(proxy));
        foreign.map(|proxy| shown(&proxy.to_string()))
    }

    /// Checks that a pod may have this repository; `None` is all of them.
    pub(super) fn check_repository(&self, fqrn: Option<&Fqrn>) -> Result<(), Fault> {
        let name = fqrn.map_or("*", Fqrn::as_str);
        if self.repositories.0.iter().any(|pattern| fits(pattern.as_bytes(), name.as_bytes())) {
            return Ok(());
        }
        let what = fqrn.map_or("the tree of all repositories".to_owned(), |fqrn| fqrn.to_string());
        let detail = format!(
            "pods may not use {what} here; the administrator lists what they may use in cvmfs.pod_repositories of {}",
            self.file.display()
        );
        Err(denied("repository", detail))
    }
}

fn denied(option: &str, detail: String) -> Fault {
    Fault::new(FaultKind::PermissionDenied, "parse volume", format!("option {option}"), detail)
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Whether a pattern with `*` fits a whole text. Linear in memory, at most pattern times text in time.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl Default for PodOptions {
    fn default() -> Self {
        let names =
            ["repository", "tag", "hash", "date", "clientConfig", "sharedMountID", "CVMFS_AUTO_UPDATE"];
        PodOptions(names.into_iter().collect())
    }
}

impl Default for PodRepositories {
    fn default() -> Self {
        PodRepositories(vec!["*".to_owned()])
    }
}

fn bounded(list: Vec<String>) -> Result<Vec<String>, PodRulesError> {
    if list.len() > ENTRIES_MAX { Err(PodRulesError::TooMany(list.len())) } else { Ok(list) }
}

impl TryFrom<Vec<String>> for PodOptions {
    type Error = PodRulesError;

    fn try_from(list: Vec<String>) -> Result<Self, PodRulesError> {
        let mut names = BTreeSet::new();
        for option in bounded(list)? {
            let Some(known) = vocabulary::find(&option) else {
                let near = nearest(&shown(&option), vocabulary::names());
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                return Err(PodRulesError::Unknown { option: shown(&option), hint });
            };
            match rule(known.meaning) {
                Rule::Listed => names.insert(canonical(known.meaning)),
                Rule::ByValue(list) => return Err(PodRulesError::ByValue { option, list }),
                Rule::Never(reason) => return Err(PodRulesError::Never { option, reason }),
            };
        }
        Ok(PodOptions(names))
    }
}

impl TryFrom<Vec<String>> for PodServers {
    type Error = PodRulesError;

    fn try_from(list: Vec<String>) -> Result<Self, PodRulesError> {
        let any: Fqrn = "any.cern.ch".parse().expect("a repository name");
        for text in &list {
            if text.contains([';', '|']) {
                return Err(PodRulesError::Value(format!("{text:?}: give each server an entry of its own")));
            }
            let url = any.fill_template(text).parse::<ServerUrl>();
            url.map_err(|error| PodRulesError::Value(error.to_string()))?;
        }
        Ok(PodServers(bounded(list)?))
    }
}

impl TryFrom<Vec<String>> for PodProxies {
    type Error = PodRulesError;

    fn try_from(list: Vec<String>) -> Result<Self, PodRulesError> {
        let proxies = bounded(list)?.iter().map(|text| text.trim().parse()).collect::<Result<_, _>>();
        proxies.map(PodProxies).map_err(|error| PodRulesError::Value(error.to_string()))
    }
}

impl TryFrom<Vec<String>> for PodRepositories {
    type Error = PodRulesError;

    fn try_from(list: Vec<String>) -> Result<Self, PodRulesError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.*".contains(c);
        match list.iter().find(|text| text.is_empty() || text.len() > 127 || !text.chars().all(allowed)) {
            Some(wrong) => Err(PodRulesError::Value(format!(
                "{:?} is no pattern of repository names: use letters, digits, `-`, `_`, `.` and `*`",
                shown(wrong)
            ))),
            None => Ok(PodRepositories(bounded(list)?)),
        }
    }
}
