//! What users type for a CVMFS volume: its name and options. The only place that looks at these texts.
//!
//! A volume's name may say everything: `cms.cern.ch`, `cms.cern.ch@tag`, `cms.cern.ch#hash`, or `cvmfs` for all
//! repositories. Options have short names for what is often needed, and every client parameter that makes sense
//! for one volume can be given by its own name (`CVMFS_…`). Nothing is ignored and nothing is guessed: an unknown option names the nearest
//! known one, and two statements that contradict each other are refused.

mod client_config;
pub mod form;
mod name;
mod pods;
pub mod vocabulary;

use volume::{
    Author, Caller, CvmfsAllSpec, CvmfsSpec, Fault, FaultKind, Frontend, OptionMap, Revision, VolumeSpec,
    nearest,
};

use crate::client::config::{ClientConfig, Origin, Parameters};
use crate::client::fqrn::Fqrn;
use crate::client::hash::Digest;
use crate::client::history::{DATE_EXPECTED, parse_date};
use vocabulary::Meaning;

pub use name::{Reference, check_tag};
pub use pods::{PodOptions, PodProxies, PodRepositories, PodRules, PodRulesError, PodServers};

/// The attribute that names a file with configuration; the one entry of a spec's parameters that is no parameter. The
/// file is read when the volume is mounted.
pub const CONFIG_FILE: &str = "clientConfigFilepath";

/// Most options of one volume.
const OPTIONS_MAX: usize = 128;
/// Longest value of an option in bytes.
const VALUE_MAX: usize = 64 << 10;

/// Turns a volume's name and options into its spec.
///
/// # Errors
/// [`FaultKind::InvalidArgument`] says which option is wrong and what would be right;
/// [`FaultKind::PermissionDenied`] for what a pod's author may not ask for. Never panics.
pub fn parse(
    name: Option<&str>,
    options: &OptionMap,
    caller: &Caller,
    rules: &PodRules,
) -> Result<VolumeSpec, Fault> {
    let rules = match caller.author {
        Author::Admin => None,
        Author::Pod => Some(rules),
    };
    // In Kubernetes a volume's name is a handle of somebody's choice and says nothing.
    let name = match caller.frontend {
        Frontend::Docker | Frontend::Podman | Frontend::Cli => name,
        Frontend::Flexvolume | Frontend::Csi => None,
    };
    let mut typed = Typed::default();
    if options.len() > OPTIONS_MAX {
        return Err(refused("", format!("{} options; {OPTIONS_MAX} is the limit", options.len())));
    }
    for (option, value) in options {
        typed.take(option, value, rules)?;
    }
    let target = match (typed.repository.is_none(), name, caller.frontend) {
        (true, None, Frontend::Csi) => Target::All,
        _ => typed.target(name)?,
    };
    match target {
        Target::All => typed.all(rules),
        Target::One(fqrn, revision) => typed.one(fqrn, revision, rules),
    }
}

/// An error about an option (or about the volume as a whole).
fn refused(option: &str, detail: impl Into<String>) -> Fault {
    let subject = if option.is_empty() { String::new() } else { format!("option {option}") };
    Fault::new(FaultKind::InvalidArgument, "parse volume", subject, detail)
}

/// Options sorted by what they are about.
#[derive(Default)]
struct Typed {
    repository: Option<String>,
    /// With the option that named each.
    revisions: Vec<(String, Revision)>,
    parameters: OptionMap,
    /// The option that set each parameter.
    set_by: OptionMap,
    /// Text of client configuration.
    client_config: Option<String>,
}

/// What is to be served.
enum Target {
    All,
    One(Fqrn, Option<Revision>),
}

impl Typed {
    fn take(&mut self, option: &str, value: &str, rules: Option<&PodRules>) -> Result<(), Fault> {
        if value.len() > VALUE_MAX || value.contains('\0') {
            return Err(refused(
                option,
                format!("its value has more than {VALUE_MAX} bytes, or a zero byte"),
            ));
        }
        let known = vocabulary::find(option).ok_or_else(|| unknown(option))?;
        self.meant(option, known.meaning, value, rules)
    }

    /// Takes a value in. `option` is its name in messages.
    fn meant(
        &mut self,
        option: &str,
        meaning: Meaning,
        value: &str,
        rules: Option<&PodRules>,
    ) -> Result<(), Fault> {
        if let Some(rules) = rules {
            rules.check_option(option, meaning)?;
        }
        match meaning {
            Meaning::Refused(reason) => Err(refused(option, reason)),
            Meaning::Repository => {
                let value = value.trim();
                self.repository = Some(value.to_owned());
                if value.is_empty() { Err(refused(option, "is empty")) } else { Ok(()) }
            }
            Meaning::Tag => self.revision(option, name::tag(value).map_err(|what| refused(option, what))?),
            Meaning::Hash => {
                let digest: Digest =
                    value.trim().parse().map_err(|error| refused(option, format!("{error}")))?;
                self.revision(option, Revision::Hash(digest.to_string()))
            }
            Meaning::Date => match parse_date(value.trim()) {
                Some(_) => self.revision(option, Revision::Date(value.trim().to_owned())),
                None => Err(refused(option, DATE_EXPECTED)),
            },
            Meaning::Parameter(parameter) => self.parameter(option, parameter, value),
            Meaning::ClientConfig => {
                self.client_config = Some(value.to_owned());
                Ok(())
            }
            Meaning::ClientConfigFile if value.starts_with('/') => self.parameter(option, CONFIG_FILE, value),
            Meaning::ClientConfigFile => {
                Err(refused(option, format!("{value:?} is no absolute path of a file on this node")))
            }
            Meaning::SharedMount => check_shared_mount(option, value),
        }
    }

    /// What `clientConfig` assigns, as if each were an option.
    fn configure(&mut self, fqrn: &Fqrn, rules: Option<&PodRules>) -> Result<(), Fault> {
        let Some(text) = self.client_config.take() else { return Ok(()) };
        if self.parameters.contains_key(CONFIG_FILE) {
            let detail = "options clientConfig and clientConfigFilepath exclude each other; give one of them";
            return Err(refused("", detail));
        }
        for assignment in client_config::assignments(fqrn, &text)? {
            let client_config::Assignment { label, name, value, meaning } = assignment;
            match (meaning, rules) {
                // Empty is not set, and unlike a parameter's value takes nothing back.
                (Some(Meaning::Tag | Meaning::Hash | Meaning::Date), _) if value.trim().is_empty() => {}
                // A site's files may have these too: they are not followed, and nobody fails for it.
                (Some(Meaning::Refused(reason)), None) => {
                    tracing::warn!(repository = %fqrn, parameter = name, "not followed in clientConfig: {reason}");
                }
                (Some(meaning), _) => self.meant(&label, meaning, &value, rules)?,
                // As in a site's files: a variable for symlinks and for what follows in the text.
                (None, None) => drop(self.parameters.insert(name, value)),
                (None, Some(_)) => {
                    let detail = format!(
                        "it sets {name}, which is no parameter of the client; pods may set only those"
                    );
                    return Err(refused(client_config::NAME, detail));
                }
            }
        }
        Ok(())
    }

    fn revision(&mut self, option: &str, revision: Revision) -> Result<(), Fault> {
        self.revisions.push((format!("option {option}"), revision));
        Ok(())
    }

    fn parameter(&mut self, option: &str, parameter: &str, value: &str) -> Result<(), Fault> {
        let names_file = vocabulary::FILES.contains(&parameter);
        let paths = value.split(':').filter(|path| !path.is_empty());
        if names_file && !vocabulary::is_inline_key(value) && !paths.clone().all(|path| path.starts_with('/'))
        {
            return Err(refused(option, format!("{value:?} is no absolute path of a file on this node")));
        }
        if let Some(before) = self.set_by.insert(parameter.to_owned(), option.to_owned())
            && self.parameters.get(parameter).is_some_and(|other| other != value)
        {
            return Err(refused(
                option,
                format!("option {before} already sets {parameter} to something else"),
            ));
        }
        self.parameters.insert(parameter.to_owned(), value.to_owned());
        Ok(())
    }

    /// What the name and the option `repository` say together.
    fn target(&self, name: Option<&str>) -> Result<Target, Fault> {
        let all = name == Some("cvmfs");
        let named = name.map(|text| text.parse::<Reference>());
        match (self.repository.as_deref(), named) {
            (Some("*"), Some(Ok(reference))) => Err(refused(
                "repository",
                format!("`*` stands for all repositories, but the volume's name says {}", reference.fqrn),
            )),
            (Some("*"), _) => Ok(Target::All),
            (Some(text), _) if all => Err(refused(
                "repository",
                format!("{text:?}, but the volume name `cvmfs` stands for all repositories"),
            )),
            (Some(text), named) => {
                let reference: Reference =
                    text.parse().map_err(|what| refused("repository", format!("{what}")))?;
                let mut revision = reference.revision;
                if let Some(Ok(Reference { fqrn, revision: Some(other) })) = named {
                    let differs = revision.as_ref().is_some_and(|revision| *revision != other);
                    if fqrn != reference.fqrn || differs {
                        let name = name.unwrap_or_default();
                        return Err(refused(
                            "repository",
                            format!("{text:?}, but the volume's name says {name}"),
                        ));
                    }
                    revision = Some(other);
                } else if let Some(Err(what)) =
                    name.filter(|name| name.contains('/')).map(str::parse::<Reference>)
                {
                    return Err(refused("", what.to_string()));
                }
                Ok(Target::One(reference.fqrn, revision))
            }
            (None, _) if all => Ok(Target::All),
            (None, Some(Ok(reference))) => Ok(Target::One(reference.fqrn, reference.revision)),
            (None, Some(Err(what))) => {
                let detail = format!("{what}; a volume of another name needs option repository=REPOSITORY");
                Err(refused("", detail))
            }
            (None, None) => Err(refused(
                "repository",
                "is missing; for example repository=cms.cern.ch, or repository=* for all",
            )),
        }
    }

    fn all(self, rules: Option<&PodRules>) -> Result<VolumeSpec, Fault> {
        if self.client_config.is_some() || self.parameters.contains_key(CONFIG_FILE) {
            let detail =
                "is missing: clientConfig and clientConfigFilepath configure one repository, so name it";
            return Err(refused("repository", detail));
        }
        if let Some((option, _)) = self.revisions.first() {
            let detail =
                format!("{option} names a revision of one repository, but this volume is all of them");
            return Err(refused("", detail));
        }
        let any = "any.cern.ch".parse().expect("a repository name");
        if let Some(rules) = rules {
            rules.check_repository(None)?;
            rules.check_places(&any, &self.parameters, |name| self.named(name))?;
        }
        self.check_values(&any)?;
        Ok(VolumeSpec::CvmfsAll(CvmfsAllSpec { parameters: self.parameters }))
    }

    fn one(
        mut self,
        fqrn: Fqrn,
        named: Option<Revision>,
        rules: Option<&PodRules>,
    ) -> Result<VolumeSpec, Fault> {
        self.configure(&fqrn, rules)?;
        if let Some(revision) = named.clone() {
            self.revisions.insert(0, ("the volume's name".to_owned(), revision));
        }
        if let Some((first, revision)) = self.revisions.first() {
            let contradiction = self.revisions.iter().find(|(_, other)| other != revision);
            if let Some((second, _)) = contradiction {
                return Err(refused(
                    "",
                    format!("{first} and {second} name different revisions; give one of them"),
                ));
            }
        }
        if let Some(rules) = rules {
            match &named {
                Some(Revision::Tag(_)) => rules.check_option("repository", Meaning::Tag)?,
                Some(Revision::Hash(_)) => rules.check_option("repository", Meaning::Hash)?,
                Some(Revision::Date(_) | Revision::Trunk) | None => {}
            }
            rules.check_repository(Some(&fqrn))?;
            rules.check_places(&fqrn, &self.parameters, |name| self.named(name))?;
        }
        self.check_values(&fqrn)?;
        let revision = self.revisions.pop().map_or(Revision::Trunk, |(_, revision)| revision);
        Ok(VolumeSpec::Cvmfs(CvmfsSpec {
            repository: fqrn.to_string(),
            revision,
            parameters: self.parameters,
        }))
    }

    /// The option that set a parameter.
    fn named(&self, parameter: &str) -> String {
        self.set_by.get(parameter).map_or(parameter, String::as_str).to_owned()
    }

    /// Refuses values that their parameters cannot have, now and not when the volume is mounted.
    fn check_values(&self, fqrn: &Fqrn) -> Result<(), Fault> {
        if self.parameters.contains_key("CVMFS_PUBLIC_KEY") && self.parameters.contains_key("CVMFS_KEYS_DIR")
        {
            return Err(refused("", "options public_key and keys_dir both name keys; give one of them"));
        }
        let mut parameters = Parameters::new();
        parameters.set("CVMFS_SERVER_URL", "http://localhost/cvmfs/@fqrn@", Origin::built_in());
        for (name, value) in &self.parameters {
            parameters.set(name, fqrn.fill_template(value), Origin::volume_option());
        }
        match ClientConfig::from_parameters(&parameters) {
            Ok(_) => Ok(()),
            Err(error) => {
                let option = self.named(&error.name);
                Err(refused(&option, format!("{:?} is no value of it: {}", error.value, error.expected)))
            }
        }
    }
}

/// cvmfs-csi names a directory after it, so it has the form of one. Here it changes nothing: volumes with the same
/// configuration share a mount anyway, and others never do.
fn check_shared_mount(option: &str, value: &str) -> Result<(), Fault> {
    let allowed = |c: char| c.is_ascii_graphic() && c != '/';
    if (1..=255).contains(&value.len()) && value.chars().all(allowed) && !matches!(value, "." | "..") {
        return Ok(());
    }
    Err(refused(option, "is no name of 1 to 255 printable characters without blanks and `/`"))
}

fn unknown(option: &str) -> Fault {
    let short: String = option.chars().take(80).collect();
    let detail = match nearest(&short, vocabulary::names()) {
        Some(near) => format!("is not known; did you mean {near}?"),
        None if short.starts_with("CVMFS_") => "is no parameter of the CernVM-FS client".to_owned(),
        None => {
            format!("is not known; known are {} and CVMFS_ parameters", vocabulary::short_names().join(", "))
        }
    };
    refused(&short, detail)
}

#[cfg(test)]
mod tests;
