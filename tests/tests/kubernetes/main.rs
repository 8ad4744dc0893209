//! The frontends for Kubernetes with a real, current one: what a user applies, and what happens to nodes.
//!
//! One cluster serves all tests, one after another, as bringing it up costs more than most of them. Each test begins and ends
//! with no pod and no mount. Words after `--` select tests by parts of their names.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod trial;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use system_tests::daemon::Scene;
use system_tests::{kubernetes, process};

use crate::trial::Trial;

/// A test and what it is called.
type Test = (&'static str, fn(&mut Trial<'_>));

/// All tests, in the order in which they run.
const TESTS: &[Test] = &[("a_pod_runs_at_all", trial::a_pod_runs_at_all)];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    let tests: Vec<&Test> = TESTS.iter().filter(|(name, _)| chosen(name)).collect();
    let programs = match kubernetes::programs() {
        Ok(programs) => programs,
        Err(reason) => {
            tests.iter().for_each(|(name, _)| process::skip(&format!("kubernetes: {name}"), &reason));
            return ExitCode::SUCCESS;
        }
    };
    let begun = Instant::now();
    let scene = Scene::new();
    let Ok(mut trial) = catch_unwind(|| Trial::new(&scene, programs)) else {
        println!("test result: FAILED. 0 passed; {} failed; the cluster did not come up", tests.len());
        return ExitCode::FAILURE;
    };
    println!("the cluster is up after {:.1?}", begun.elapsed());
    let mut failed = Vec::new();
    for (name, test) in &tests {
        let begun = Instant::now();
        let mut outcome = catch_unwind(AssertUnwindSafe(|| test(&mut trial)));
        if outcome.is_ok() {
            outcome = catch_unwind(AssertUnwindSafe(|| trial.is_clean()));
        }
        println!(
            "test {name} ... {} ({:.1?})",
            if outcome.is_ok() { "ok" } else { "FAILED" },
            begun.elapsed()
        );
        if outcome.is_err() {
            failed.push(*name);
            trial.show_logs();
            // The next test needs a node without a trace of this one.
            if catch_unwind(AssertUnwindSafe(|| trial.sweep())).is_err() {
                println!("the cluster is beyond repair; what comes after {name} is not run");
                break;
            }
        }
    }
    let passed = tests.len() - failed.len();
    drop(trial);
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    failed.iter().for_each(|name| println!("failed: {name}"));
    println!(
        "test result: {word}. {passed} passed; {} failed; finished in {:.1?}",
        failed.len(),
        begun.elapsed()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
