//! The frontends for Kubernetes with a real, current one: what a user applies, and what happens to nodes.
//!
//! One cluster serves all tests, one after another, as bringing it up costs more than most of them. Each test begins and ends
//! with no pod and no mount. Words after `--` select tests by parts of their names.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

mod chart;
mod csi;
mod flex;
mod life;
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
const TESTS: &[Test] = &[
    ("a_pod_of_the_old_plugin_runs_unchanged", flex::a_pod_of_the_old_plugin_runs_unchanged),
    ("a_secret_and_a_group_come_with_the_volume", flex::a_secret_and_a_group_come_with_the_volume),
    (
        "a_refused_flexvolume_says_why_in_the_pods_events",
        flex::a_refused_flexvolume_says_why_in_the_pods_events,
    ),
    ("an_inline_volume_shows_the_repository", csi::an_inline_volume_shows_the_repository),
    (
        "an_inline_volume_can_ask_for_a_tag_and_a_directory",
        csi::an_inline_volume_can_ask_for_a_tag_and_a_directory,
    ),
    ("a_claim_is_provided_by_the_provisioner", csi::a_claim_is_provided_by_the_provisioner),
    ("all_of_cvmfs_is_in_one_pod", csi::all_of_cvmfs_is_in_one_pod),
    ("two_pods_with_one_repository_share_a_mount", csi::two_pods_with_one_repository_share_a_mount),
    ("a_refused_volume_says_why_in_the_pods_events", csi::a_refused_volume_says_why_in_the_pods_events),
    ("flexvolume_and_csi_share_one_mount", flex::flexvolume_and_csi_share_one_mount),
    ("pods_read_on_while_kubelet_restarts", life::pods_read_on_while_kubelet_restarts),
    ("pods_read_on_while_the_daemon_is_upgraded", life::pods_read_on_while_the_daemon_is_upgraded),
    ("pods_read_on_when_a_worker_is_killed", life::pods_read_on_when_a_worker_is_killed),
    ("pods_deleted_by_force_leave_nothing", life::pods_deleted_by_force_leave_nothing),
    (
        "a_pod_deleted_while_the_daemon_is_down_leaves_nothing",
        life::a_pod_deleted_while_the_daemon_is_down_leaves_nothing,
    ),
    ("the_api_server_takes_the_chart", chart::the_api_server_takes_the_chart),
    (
        "the_charts_pods_serve_and_are_upgraded_under_a_reader",
        chart::the_charts_pods_serve_and_are_upgraded_under_a_reader,
    ),
    ("pods_come_back_after_a_power_cut", life::pods_come_back_after_a_power_cut),
];

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
        trial::show_logs(&scene);
        println!("test result: FAILED. 0 passed; {} failed; the cluster did not come up", tests.len());
        return ExitCode::FAILURE;
    };
    println!("the cluster is up after {:.1?}", begun.elapsed());
    let (mut passed, mut failed) = (0, Vec::new());
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
        if outcome.is_ok() {
            passed += 1;
        } else {
            failed.push(*name);
            trial::show_logs(&scene);
            // The next test needs a node without a trace of this one.
            if catch_unwind(AssertUnwindSafe(|| trial.sweep())).is_err() {
                println!("the cluster is beyond repair; what comes after {name} fails too");
                let done = tests.iter().position(|test| test.0 == *name).map_or(tests.len(), |at| at + 1);
                failed.extend(tests[done..].iter().map(|test| test.0));
                break;
            }
        }
    }
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
