//! What users type for a CVMFS volume: its name and options. The only place that looks at these texts.
//!
//! A volume's name may say everything: `cms.cern.ch`, `cms.cern.ch@tag`, `cms.cern.ch#hash`, or `cvmfs` for all
//! repositories. Options have short names for what is often needed, and every client parameter that makes sense
//! for one volume can be given by its own name (`CVMFS_…`). Nothing is ignored and nothing is guessed: an unknown option names the nearest
//! known one, and two statements that contradict each other are refused.

mod name;
pub mod vocabulary;

use volume::{
    Caller, CvmfsAllSpec, CvmfsSpec, Fault, FaultKind, Frontend, OptionMap, Revision, VolumeSpec, nearest,
};

use crate::client::config::{ClientConfig, Origin, Parameters};
use crate::client::fqrn::Fqrn;
use crate::client::hash::Digest;
use crate::client::history::{DATE_EXPECTED, parse_date};
use vocabulary::{Meaning, Scope};

pub use name::{Reference, check_tag};

/// Most options of one volume.
const OPTIONS_MAX: usize = 128;
/// Longest value of an option in bytes.
const VALUE_MAX: usize = 64 << 10;

/// Turns a volume's name and options into its spec.
///
/// # Errors
/// [`FaultKind::InvalidArgument`] says which option is wrong and what would be right;
/// [`FaultKind::PermissionDenied`] for options that this frontend's users may not set. Never panics.
pub fn parse(name: Option<&str>, options: &OptionMap, caller: &Caller) -> Result<VolumeSpec, Fault> {
    let mut typed = Typed::default();
    if options.len() > OPTIONS_MAX {
        return Err(refused("", format!("{} options; {OPTIONS_MAX} is the limit", options.len())));
    }
    for (option, value) in options {
        typed.take(option, value, caller)?;
    }
    match typed.target(name)? {
        Target::All => typed.all(),
        Target::One(fqrn, revision) => typed.one(fqrn, revision),
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
}

/// What is to be served.
enum Target {
    All,
    One(Fqrn, Option<Revision>),
}

impl Typed {
    fn take(&mut self, option: &str, value: &str, caller: &Caller) -> Result<(), Fault> {
        if value.len() > VALUE_MAX || value.contains('\0') {
            return Err(refused(
                option,
                format!("its value has more than {VALUE_MAX} bytes, or a zero byte"),
            ));
        }
        let known = vocabulary::find(option).ok_or_else(|| unknown(option))?;
        if let Some(scope) = known.scope(value)
            && matches!(caller.frontend, Frontend::Flexvolume | Frontend::Csi)
        {
            let why = match scope {
                Scope::File => "it names a file of the node",
                Scope::Privilege => "it raises privileges on the node",
            };
            let detail = format!("{why}, so only the node's own configuration may set it");
            return Err(Fault::new(
                FaultKind::PermissionDenied,
                "parse volume",
                format!("option {option}"),
                detail,
            ));
        }
        match known.meaning {
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
        }
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
            (None, None) => Err(refused("repository", "is missing; for example repository=cms.cern.ch")),
        }
    }

    fn all(self) -> Result<VolumeSpec, Fault> {
        if let Some((option, _)) = self.revisions.first() {
            let detail =
                format!("{option} names a revision of one repository, but this volume is all of them");
            return Err(refused("", detail));
        }
        self.check_values(&"any.cern.ch".parse().expect("a repository name"))?;
        Ok(VolumeSpec::CvmfsAll(CvmfsAllSpec { parameters: self.parameters }))
    }

    fn one(mut self, fqrn: Fqrn, named: Option<Revision>) -> Result<VolumeSpec, Fault> {
        if let Some(revision) = named {
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
        self.check_values(&fqrn)?;
        let revision = self.revisions.pop().map_or(Revision::Trunk, |(_, revision)| revision);
        Ok(VolumeSpec::Cvmfs(CvmfsSpec {
            repository: fqrn.to_string(),
            revision,
            parameters: self.parameters,
        }))
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
                let option = self.set_by.get(&error.name).map_or(error.name.as_str(), String::as_str);
                Err(refused(option, format!("{:?} is no value of it: {}", error.value, error.expected)))
            }
        }
    }
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
