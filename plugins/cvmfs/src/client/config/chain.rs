//! The files of a configuration in the order in which the C++ client reads them (`options.cc`).
//!
//! `default.conf`, `default.d/*.conf`, `default.local`, `domain.d/<domain>.conf` and `.local`, `config.d/<fqrn>.conf` and
//! `.local`; a later value wins. Files of a configuration *repository* (`CVMFS_CONFIG_REPOSITORY`), which the C++
//! client mounts and reads in between, are left out: a node's configuration comes from the node. What a site's files do
//! not say for the three best-known domains is [built in](super::builtin).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use volume::OptionMap;

use super::shell::{Shell, ShellError};
use super::tree::{ConfigTree, FILE_LIMIT};
use super::{Origin, ParameterError, Parameters, builtin};
use crate::client::fqrn::Fqrn;

/// Most repositories that are listed for a node.
const REPOSITORIES_MAX: usize = 10_000;
/// Fixed after `default.d`; later files cannot change it.
const PROTECTED: &str = "CVMFS_CONFIG_REPOSITORY";

/// Why a repository's configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be evaluated.
    #[error(transparent)]
    Shell(#[from] ShellError),
    /// A value is none of its parameter.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// A file is there but cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said, or why it is unfit.
        error: io::Error,
    },
    /// No server is known.
    #[error(
        "no server is known for {repository}: write CVMFS_SERVER_URL=\"http://HOST/cvmfs/@fqrn@\" into {}, or give \
         option server",
        file.display()
    )]
    NoServer {
        /// The repository.
        repository: Fqrn,
        /// The file to make.
        file: PathBuf,
    },
    /// No master key is known.
    #[error(
        "no master key is known for {repository} ({looked}): put the repository's public key into {}, or give option \
         public_key",
        file.display()
    )]
    NoKey {
        /// The repository.
        repository: Fqrn,
        /// Where was looked.
        looked: String,
        /// The file to make.
        file: PathBuf,
    },
}

/// Reads what the files say for a repository, or for the node as a whole.
///
/// # Errors
/// A file that cannot be read or evaluated.
pub fn read(
    tree: &ConfigTree,
    repository: Option<&Fqrn>,
    overrides: &OptionMap,
) -> Result<Parameters, ConfigError> {
    let mut parameters = Parameters::new();
    parameters.set("CVMFS_MOUNT_DIR", "/cvmfs", Origin::built_in());
    run_file(tree, &tree.path("default.conf"), repository, &mut parameters, false)?;
    for path in tree.list(&tree.path("default.d"), ".conf") {
        run_file(tree, &path, repository, &mut parameters, false)?;
    }
    let mut rest = vec![tree.path("default.local")];
    if let Some(fqrn) = repository {
        let (domains, repositories) = (tree.path("domain.d"), tree.path("config.d"));
        for suffix in ["conf", "local"] {
            rest.push(domains.join(format!("{}.{suffix}", fqrn.domain())));
        }
        for suffix in ["conf", "local"] {
            rest.push(repositories.join(format!("{fqrn}.{suffix}")));
        }
    }
    for path in rest {
        run_file(tree, &path, repository, &mut parameters, true)?;
    }
    if let Some(fqrn) = repository {
        builtin::complete(fqrn, &mut parameters);
        for (name, value) in overrides {
            parameters.set(name, fqrn.fill_template(value), Origin::volume_option());
        }
        let filled: Vec<_> = parameters
            .iter()
            .filter(|(_, setting)| setting.value.contains('@'))
            .map(|(name, setting)| {
                (name.to_owned(), fqrn.fill_template(&setting.value), setting.origin.clone())
            })
            .collect();
        for (name, value, origin) in filled {
            parameters.set(name, value, origin);
        }
    }
    if let Ok(host) = nix::sys::utsname::uname() {
        parameters.set("CVMFS_ARCH", host.machine().to_string_lossy(), Origin::built_in());
    }
    Ok(parameters)
}

/// Runs one file, if it is there, over what the files before it have set.
fn run_file(
    tree: &ConfigTree,
    path: &Path,
    repository: Option<&Fqrn>,
    parameters: &mut Parameters,
    protect: bool,
) -> Result<(), ConfigError> {
    let text = match tree.read(path, FILE_LIMIT) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(()),
        Err(error) => return Err(ConfigError::Unreadable { path: path.to_owned(), error }),
    };
    for (name, assigned) in evaluate(tree, path, &text, repository, parameters)? {
        if protect && name == PROTECTED && parameters.get(PROTECTED) != Some(assigned.value.as_str()) {
            tracing::warn!(file = %assigned.file, line = assigned.line, "{PROTECTED} can be set in default.d only");
            continue;
        }
        parameters.set(name, assigned.value, Origin::file(assigned.file, assigned.line));
    }
    Ok(())
}

/// What a file that a volume names assigns (`clientConfigFilepath`), by name.
///
/// # Errors
/// It is not there, or cannot be read or evaluated.
pub fn read_file(tree: &ConfigTree, path: &Path, repository: &Fqrn) -> Result<OptionMap, ConfigError> {
    let unreadable = |error| ConfigError::Unreadable { path: path.to_owned(), error };
    let text = tree.read(path, FILE_LIMIT).map_err(unreadable)?;
    let text = text.ok_or_else(|| unreadable(io::ErrorKind::NotFound.into()))?;
    let assigned = evaluate(tree, path, &text, Some(repository), &Parameters::new())?;
    Ok(assigned.into_iter().map(|(name, assigned)| (name, assigned.value)).collect())
}

/// The assignments of one file's text, given what is set already.
///
/// # Errors
/// It cannot be evaluated. Never panics, whatever the text is.
pub fn evaluate(
    files: &dyn super::shell::Files,
    path: &Path,
    text: &str,
    repository: Option<&Fqrn>,
    before: &Parameters,
) -> Result<BTreeMap<String, super::shell::Assigned>, ShellError> {
    let mut environment = before.environment();
    if let Some(fqrn) = repository {
        environment.insert("CVMFS_FQRN".to_owned(), fqrn.to_string());
    }
    let mut shell = Shell::new(files, environment);
    shell.run(&path.to_string_lossy(), text)?;
    Ok(shell.into_assigned())
}

/// Repositories that the node names: `CVMFS_REPOSITORIES` and the files in `config.d`. Sorted.
///
/// # Errors
/// A file that cannot be read or evaluated.
pub fn configured(tree: &ConfigTree) -> Result<Vec<String>, ConfigError> {
    let parameters = read(tree, None, &OptionMap::new())?;
    let domain = parameters.get("CVMFS_DEFAULT_DOMAIN").unwrap_or("cern.ch");
    let listed = parameters.get("CVMFS_REPOSITORIES").unwrap_or_default();
    let mut names: Vec<String> = listed
        .split([',', ' ', '\t', '\n'])
        .filter(|name| !name.is_empty())
        .map(|name| if name.contains('.') { name.to_owned() } else { format!("{name}.{domain}") })
        .collect();
    for suffix in [".conf", ".local"] {
        for path in tree.list(&tree.path("config.d"), suffix) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            names.push(name.trim_end_matches(suffix).to_owned());
        }
    }
    names.retain(|name| name.parse::<Fqrn>().is_ok());
    names.sort();
    names.dedup();
    names.truncate(REPOSITORIES_MAX);
    Ok(names)
}

#[cfg(test)]
mod tests;
