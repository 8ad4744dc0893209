//! `cvmfs showconfig`: what the client would use, and where each value comes from.

use cvmfs::client::config::{ConfigError, ConfigTree, chain};
use cvmfs::client::fqrn::{Fqrn, FqrnError};
use volume::OptionMap;

use crate::cli::Settings;

/// The configuration cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShowError {
    /// Not a repository.
    #[error(transparent)]
    Name(#[from] FqrnError),
    /// A file of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon's settings.
    #[error(transparent)]
    Settings(#[from] crate::config::ConfigError),
}

/// Prints `NAME=value    # origin`, or JSON.
pub(crate) fn run(repository: &str, json: bool, settings: &Settings) -> Result<(), ShowError> {
    let config = settings.read()?;
    let fqrn: Fqrn = repository.parse()?;
    let tree = ConfigTree::new(&config.cvmfs.config_dir);
    let parameters = chain::read(&tree, Some(&fqrn), &OptionMap::new())?;
    if json {
        let all: serde_json::Map<_, _> = parameters
            .iter()
            .map(|(name, setting)| {
                let value = serde_json::json!({"value": setting.value, "origin": setting.origin.to_string()});
                (name.to_owned(), value)
            })
            .collect();
        println!("{}", serde_json::Value::Object(all));
    } else {
        for (name, setting) in parameters.iter() {
            println!("{name}={}    # from {}", quoted(&setting.value), setting.origin);
        }
    }
    Ok(())
}

/// As a shell would read it back.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:@%+-,=".contains(c);
    if value.chars().all(plain) { value.to_owned() } else { format!("'{}'", value.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_are_quoted_for_a_shell() {
        assert_eq!(quoted("http://a/b"), "http://a/b");
        assert_eq!(quoted("a;b|DIRECT"), "'a;b|DIRECT'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
