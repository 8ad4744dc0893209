//! What a newcomer does wrong, and what is said to it: what happened, and what to do.

use std::fs;
use std::process::Command;

use system_tests::daemon::{Scene, binary};
use system_tests::process;
use system_tests::wait;

use crate::calm::Calm;

/// Runs `volplane ARGUMENTS`, which must end with this code and say all the words.
fn says(arguments: &[&str], code: i32, words: &[&str]) {
    let output = process::output_within(Command::new(binary()).args(arguments), wait::LONG);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: {word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
}

#[test]
fn wrong_usage_is_answered_with_the_right_one() {
    says(&["--help"], 0, &["Usage: volplane", "serve", "status", "mount", "Examples", "docker run"]);
    says(&[], 2, &["Usage: volplane"]);
    says(&["statsu"], 2, &["status"]);
    says(&["volume"], 2, &["ls", "create", "rm", "inspect"]);
    says(&["mount"], 2, &["<NAME>", "Usage"]);
    says(&["mount", "-o", "tag", "x.y", "/mnt"], 2, &["key=value"]);
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().to_str().unwrap();
    for command in [&["status"][..], &["volume", "ls"], &["mount", "x.y"], &["umount", "x.y"], &["refresh"]] {
        let arguments = [command, &["--run-dir", run]].concat();
        says(&arguments, 1, &["no daemon answers", run, "volplane serve", "--run-dir"]);
    }
    let said =
        process::output_within(Command::new(binary()).args(["cvmfs", "showconfig", "nodots"]), wait::LONG);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.matches("no repository name").count(), 1, "said once: {said}");
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("volplane.toml");
    for (text, words) in [
        ("stat_dir = '/x'", &["stat_dir", "did you mean", "state_dir"][..]),
        ("[cvmfs]\ndeadline = 3", &["cvmfs.deadline", "deadline_seconds"]),
        ("[cvmfs]\ndeadline_seconds = 0", &["cvmfs.deadline_seconds", "1 to 3600"]),
        ("run_dir = 'relative'", &["run_dir", "absolute"]),
        ("run_dir = 3", &["run_dir", "line 1"]),
        ("[[[", &["line 1"]),
        ("[log]\nlevel = 'wat'", &["log.level", "wat", "debug"]),
        ("[metrics]\nlisten = '0.0.0.0:80'", &["loopback"]),
    ] {
        fs::write(&file, text).unwrap();
        says(&["serve", "--check", "--config", file.to_str().unwrap()], 1, words);
    }
    says(&["serve", "--config", "/nonexistent.toml"], 1, &["/nonexistent.toml", "No such file"]);
}

#[test]
fn a_second_daemon_on_the_same_directories_is_refused() {
    let scene = Scene::new();
    let calm = Calm::start(&scene, "");
    let path = |part: &str| scene.path(part).to_string_lossy().into_owned();
    // Each directory that two would share, with the others of its own.
    for shared in ["run", "state", "plugins"] {
        let directory = |part: &str| if part == shared { path(part) } else { path(&format!("other-{part}")) };
        let (run, state, plugins) = (directory("run"), directory("state"), directory("plugins"));
        let arguments = ["serve", "--run-dir", &run, "--state-dir", &state, "--docker-socket-dir", &plugins];
        says(&arguments, 1, &[&path(shared), "another daemon"]);
    }
    calm.nothing_else_is_left();
    calm.finish();
}

#[test]
fn what_was_never_mounted_cannot_be_unmounted() {
    let scene = Scene::new();
    let calm = Calm::start(&scene, "");
    let run = scene.path("run").to_string_lossy().into_owned();
    let calms = scene.path("calm").to_string_lossy().into_owned();
    for target in ["/mnt", "nothing.example.org", "calm.example.org", &format!("{calms}/directory")] {
        says(&["umount", target, "--run-dir", &run], 1, &["nothing is mounted there", "volplane status"]);
    }
    calm.finish();
}
