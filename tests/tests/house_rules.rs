//! The rules of the house that no compiler checks: crate edges, file length, names, where `unsafe` may stand.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines a source file may have with its tests (400 is the aim); longer ones must be named below with their reason.
const MAX_LINES: usize = 450;

/// Files above the limit, each with the number of lines it may have and why it is not split.
const LONGER: &[(&str, usize, &str)] = &[];

/// Module names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];

/// Crates in which `unsafe` may stand, and what for.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("crates/fuse/", "ioctls on /dev/fuse"),
    ("crates/host/", "file descriptors inherited by number"),
    ("crates/supervisor/", "what happens between fork and exec, and credentials"),
];

/// Which workspace crates each crate may depend on (doc/architecture.md). Test-only edges are not listed.
const EDGES: &[(&str, &[&str])] = &[
    ("volume", &[]),
    ("host", &[]),
    ("fuse", &[]),
    ("registry", &["host", "volume"]),
    ("supervisor", &["fuse", "host", "volume"]),
    ("cvmfs", &["fuse", "host", "volume"]),
    ("docker", &["volume"]),
    ("proto", &[]),
    ("csi", &["proto", "volume"]),
    ("flexvolume", &["volume"]),
    (
        "volplane",
        &["csi", "cvmfs", "docker", "flexvolume", "fuse", "host", "registry", "supervisor", "volume"],
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// All Rust files that git tracks or would track, relative to the root, with their content.
fn sources() -> BTreeMap<String, String> {
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "*.rs"])
        .current_dir(root())
        .output()
        .expect("git runs");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .filter_map(|path| Some((path.to_owned(), fs::read_to_string(root().join(path)).ok()?)))
        .collect()
}

#[test]
fn crates_depend_downwards_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let members: BTreeSet<&str> = packages.iter().map(|p| p["name"].as_str().unwrap()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        if package["manifest_path"].as_str().unwrap().starts_with(root().join("tests").to_str().unwrap()) {
            continue;
        }
        let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
            wrong.push(format!("{name} has no row in EDGES"));
            continue;
        };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            if members.contains(to) && dependency["kind"].is_null() && !allowed.contains(&to) {
                wrong.push(format!("{name} -> {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that the architecture does not have: {wrong:#?}");
}

#[test]
fn files_stay_short() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let limit = LONGER.iter().find(|(file, ..)| *file == path).map_or(MAX_LINES, |(_, lines, _)| *lines);
        // Tests of their own file may be as long as they need.
        let is_test = ["/tests.rs", "/scenarios.rs", "/model.rs"].iter().any(|end| path.ends_with(end))
            || path.contains("/tests/");
        let lines = text.lines().count();
        if !is_test && lines > limit {
            long.push(format!("{path}: {lines} lines, {limit} allowed"));
        }
    }
    assert!(long.is_empty(), "split by idea, or give the reason in LONGER: {long:#?}");
}

#[test]
fn modules_are_named_after_what_they_hold() {
    let empty: Vec<String> = sources()
        .into_keys()
        .filter(|path| {
            Path::new(path).components().any(|part| {
                let name = Path::new(part.as_os_str()).file_stem().unwrap_or_default();
                EMPTY_NAMES.iter().any(|empty| name == *empty)
            })
        })
        .collect();
    assert!(empty.is_empty(), "name the noun: {empty:#?}");
}

#[test]
fn unsafe_stands_only_where_it_must() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if path.starts_with("tests/") {
            continue;
        }
        let allowed = UNSAFE_ALLOWED.iter().any(|(prefix, _)| path.starts_with(prefix));
        let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
        if !allowed && code.clone().any(|line| line.contains("unsafe {") || line.contains("unsafe fn")) {
            wrong.push(path.clone());
        }
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        if is_root && !allowed && !text.contains("#![forbid(unsafe_code)]") {
            wrong.push(format!("{path}: #![forbid(unsafe_code)] is missing"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_points_out_of_the_project() {
    let listed = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let outside = [concat!("/wo", "rk/"), concat!("../sha", "red"), concat!("/ro", "ot/.")];
    let mut wrong = Vec::new();
    for path in String::from_utf8(listed.stdout).unwrap().lines() {
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        wrong
            .extend(outside.iter().filter(|part| text.contains(*part)).map(|part| format!("{path}: {part}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
