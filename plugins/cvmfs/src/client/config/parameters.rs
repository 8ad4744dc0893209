//! Values by name, each with where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// Path of a file, or words like `built-in default` or `volume option`.
    pub source: String,
    /// Line in the file, from 1; 0 where there is none.
    pub line: u32,
}

impl Origin {
    /// A line of a file.
    pub fn file(path: impl Into<String>, line: u32) -> Self {
        Origin { source: path.into(), line }
    }

    /// What this program brings with it.
    pub fn built_in() -> Self {
        Origin { source: "built-in default".to_owned(), line: 0 }
    }

    /// What was asked for this volume.
    pub fn volume_option() -> Self {
        Origin { source: "volume option".to_owned(), line: 0 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.source) } else { write!(f, "{}:{}", self.source, self.line) }
    }
}

/// A value and its origin.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Setting {
    /// The text, with templates and variables already replaced.
    pub value: String,
    /// Where it was set last.
    pub origin: Origin,
}

/// A value that its parameter cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?} ({origin}): {expected}")]
pub struct ParameterError {
    /// The parameter.
    pub name: String,
    /// What it was set to, at most 200 characters of it.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub expected: String,
}

/// Parameters by name, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Parameters(BTreeMap<String, Setting>);

impl Parameters {
    /// Without any.
    pub fn new() -> Self {
        Parameters::default()
    }

    /// Sets one, replacing what was there.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>, origin: Origin) {
        self.0.insert(name.into(), Setting { value: value.into(), origin });
    }

    /// Forgets one.
    pub fn unset(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The value with its origin, also an empty one.
    pub fn setting(&self, name: &str) -> Option<&Setting> {
        self.0.get(name)
    }

    /// The value; an empty one counts as not set, as in most files of sites.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|setting| setting.value.as_str()).filter(|value| !value.is_empty())
    }

    /// The value as a type; `None` when it is not set or empty.
    ///
    /// # Errors
    /// The value is none of the type's; the error names parameter, origin and what the type expects.
    pub fn typed<T>(&self, name: &str) -> Result<Option<T>, ParameterError>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|error: T::Err| self.error(name, error.to_string()))
    }

    /// An error about a parameter's value.
    pub fn error(&self, name: &str, expected: impl Into<String>) -> ParameterError {
        let setting = self.0.get(name);
        ParameterError {
            name: name.to_owned(),
            value: setting.map(|setting| setting.value.chars().take(200).collect()).unwrap_or_default(),
            origin: setting.map_or_else(Origin::built_in, |setting| setting.origin.clone()),
            expected: expected.into(),
        }
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    /// Names and values without origins: what symlinks with variables see.
    pub fn environment(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, setting)| (name.clone(), setting.value.clone())).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
