//! The Helm chart, rendered by the real helm.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize as _;
use serde_json::Value;

use crate::{checks, process, wait};

/// The chart's directory.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes/volplane")
}

/// How the chart is installed: `helm … --set KEY=VALUE -f FILE`.
#[derive(Debug, Clone, Default)]
pub struct Values {
    arguments: Vec<String>,
}

impl Values {
    /// Those of the chart.
    pub fn defaults() -> Values {
        Values::default()
    }

    /// Sets one, as helm's `--set` does.
    #[must_use]
    pub fn set(mut self, key_and_value: &str) -> Values {
        self.arguments.extend(["--set".to_owned(), key_and_value.to_owned()]);
        self
    }

    /// Sets one to a value with any characters in its keys.
    #[must_use]
    pub fn set_json(mut self, key: &str, value: &Value) -> Values {
        self.arguments.extend(["--set-json".to_owned(), format!("{key}={value}")]);
        self
    }

    /// Reads a file of values; a relative path is one in packaging/kubernetes.
    #[must_use]
    pub fn file(mut self, path: &str) -> Values {
        let path = directory().join("..").join(path);
        self.arguments.extend(["-f".to_owned(), path.display().to_string()]);
        self
    }
}

/// The helm program.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
}

impl Helm {
    /// Finds or builds it.
    ///
    /// # Errors
    /// Why it cannot be had, for the list of skipped tests.
    pub fn find() -> Result<Helm, String> {
        Ok(Helm { program: checks::programs()?.join("helm") })
    }

    fn run(&self, arguments: &[&str], values: &Values) -> Output {
        let mut command = Command::new(&self.program);
        // Nobody's plugins, repositories or clusters.
        command.env_clear().env("HOME", "/nonexistent").args(arguments).args(&values.arguments);
        process::output_within(&mut command, wait::LONG)
    }

    /// `helm lint --strict`; what it says.
    ///
    /// # Errors
    /// The same when it is not content.
    pub fn lint(&self, values: &Values) -> Result<String, String> {
        let chart = directory();
        text(&self.run(&["lint", "--strict", chart.to_str().expect("paths are UTF-8")], values))
    }

    /// The manifest as helm would apply it, of the release `release` in `namespace`.
    ///
    /// # Errors
    /// What helm says when it refuses the values.
    pub fn manifest(&self, release: &str, namespace: &str, values: &Values) -> Result<String, String> {
        let chart = directory();
        let chart = chart.to_str().expect("paths are UTF-8");
        text(&self.run(&["template", release, chart, "--namespace", namespace], values))
    }

    /// The same, parsed.
    ///
    /// # Panics
    /// When helm refuses or its output is no YAML.
    pub fn objects(&self, release: &str, namespace: &str, values: &Values) -> Vec<Value> {
        let manifest = self.manifest(release, namespace, values);
        parse(&manifest.unwrap_or_else(|error| panic!("{values:?}: {error}")))
    }
}

fn text(output: &Output) -> Result<String, String> {
    let all = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy);
    if output.status.success() { Ok(all[0].clone().into_owned()) } else { Err(all.concat()) }
}

/// The documents of a YAML text, empty ones left out.
///
/// # Panics
/// When it is not YAML.
pub fn parse(yaml: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{error}:\n{yaml}")))
        .filter(|document| !document.is_null())
        .collect()
}
