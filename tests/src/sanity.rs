//! csi-sanity, the conformance test of Kubernetes, against a driver on a socket.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::{checks, process};

/// Longest time of a run; it takes seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// The RPCs for which csi-sanity can send secrets.
const SECRETS: [&str; 13] = [
    "CreateVolumeSecret",
    "DeleteVolumeSecret",
    "ControllerPublishVolumeSecret",
    "ControllerUnpublishVolumeSecret",
    "ControllerValidateVolumeCapabilitiesSecret",
    "NodeStageVolumeSecret",
    "NodePublishVolumeSecret",
    "CreateSnapshotSecret",
    "DeleteSnapshotSecret",
    "ControllerExpandVolumeSecret",
    "ControllerModifyVolumeSecret",
    "ListSnapshotsSecret",
    "GetSnapshotSecret",
];

/// A run of csi-sanity.
pub struct Sanity {
    program: PathBuf,
    work: PathBuf,
    arguments: Vec<String>,
}

/// What came of a run, each spec by its full text.
#[derive(Debug)]
pub struct Outcome {
    /// Specs that passed.
    pub passed: Vec<String>,
    /// Specs that were not run, with csi-sanity's own reason.
    pub skipped: BTreeMap<String, String>,
}

impl Sanity {
    /// A run against the driver at `socket`. Targets and staging places are below `kubelet_dir`, reports and files in `work`.
    ///
    /// # Errors
    /// Why csi-sanity cannot be had here.
    pub fn new(socket: &Path, kubelet_dir: &Path, work: &Path) -> Result<Sanity, String> {
        let program = checks::programs()?.join("csi-sanity");
        let below = |name: &str| kubelet_dir.join(name).display().to_string();
        let arguments = vec![
            format!("--csi.endpoint=unix://{}", socket.display()),
            format!("--csi.mountdir={}", below("sanity-target")),
            format!("--csi.stagingdir={}", below("sanity-staging")),
        ];
        Ok(Sanity { program, work: work.to_owned(), arguments })
    }

    /// With a flag of csi-sanity, for example `--csi.testvolumesize=1`.
    #[must_use]
    pub fn with(mut self, argument: impl Into<String>) -> Sanity {
        self.arguments.push(argument.into());
        self
    }

    /// With a flag that names a YAML file of texts by name.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn with_map(self, flag: &str, map: &[(&str, &str)]) -> Sanity {
        let lines: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {value:?}\n")).collect();
        let file = self.work.join(flag.trim_start_matches("--csi."));
        fs::write(&file, lines.concat()).expect("the directory is ours");
        self.with(format!("{flag}={}", file.display()))
    }

    /// With one secret for every RPC that can have some.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn with_secret(self, name: &str, value: &str) -> Sanity {
        let lines = SECRETS.map(|rpc| format!("{rpc}:\n  {name}: {value:?}\n"));
        let file = self.work.join("secrets");
        fs::write(&file, lines.concat()).expect("the directory is ours");
        self.with(format!("--csi.secrets={}", file.display()))
    }

    /// Runs it.
    ///
    /// # Panics
    /// When a spec fails or the report cannot be read; the text has what csi-sanity says, and `log`.
    pub fn run(self, log: impl Fn() -> String) -> Outcome {
        let report = self.work.join("report.json");
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg("--ginkgo.no-color");
        command.arg(format!("--ginkgo.json-report={}", report.display()));
        let output = process::output_within(&mut command, LIMIT);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let failed = || format!("csi-sanity: {}\n{said}\n--- the driver's log ---\n{}", output.status, log());
        let report = fs::read(&report).unwrap_or_else(|error| panic!("{error}\n{}", failed()));
        let report: Value = serde_json::from_slice(&report).expect("the report is JSON");
        let mut outcome = Outcome { passed: Vec::new(), skipped: BTreeMap::new() };
        let suites = report.as_array().expect("the report is a list of suites");
        let specs = suites.iter().flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten());
        for spec in specs.filter(|spec| spec["LeafNodeType"] == "It") {
            let containers = spec["ContainerHierarchyTexts"].as_array().into_iter().flatten();
            let texts: Vec<&str> =
                containers.chain([&spec["LeafNodeText"]]).filter_map(Value::as_str).collect();
            let name = texts.join(" ");
            match spec["State"].as_str() {
                Some("passed") => outcome.passed.push(name),
                Some("skipped") => {
                    let reason = spec["Failure"]["Message"].as_str().unwrap_or_default();
                    outcome.skipped.insert(name, reason.to_owned());
                }
                Some("pending") => {
                    outcome.skipped.insert(name, "switched off in csi-sanity itself".to_owned());
                }
                _ => panic!("{name}: {}\n{}", spec["State"], failed()),
            }
        }
        assert!(output.status.success(), "{}", failed());
        outcome
    }
}

impl Outcome {
    /// Holds the run against the skips that are expected, by the beginning of a spec's text, each with our reason; prints
    /// all of them.
    ///
    /// # Panics
    /// When a spec was skipped that is not expected to be, or an expectation met none: then it is out of date.
    pub fn expect_skips(&self, what: &str, expected: &[(&str, &str)]) {
        println!("csi-sanity on {what}: {} passed, {} skipped", self.passed.len(), self.skipped.len());
        let is_of = |spec: &str, begin: &str| spec.starts_with(begin);
        let mut unexpected = Vec::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (spec, reason) in &self.skipped {
            match expected.iter().find(|(begin, _)| is_of(spec, begin)) {
                Some((_, why)) => {
                    println!("  skipped: {spec}: {why}");
                    *counts.entry(why).or_default() += 1;
                }
                None => unexpected.push(format!("{spec} ({reason})")),
            }
        }
        assert!(unexpected.is_empty(), "{what}: not expected to be skipped: {unexpected:#?}");
        for (why, count) in counts {
            process::skip(&format!("{count} specs of csi-sanity on {what}"), why);
        }
        for (begin, why) in expected {
            assert!(
                self.skipped.keys().any(|spec| is_of(spec, begin)),
                "{what}: nothing is skipped of {begin:?} any more ({why})"
            );
        }
    }
}
