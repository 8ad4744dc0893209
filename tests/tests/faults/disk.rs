//! Disks that are full.

use std::fs;
use std::path::Path;
use std::process::Command;

use system_tests::daemon::Scene;
use system_tests::process;
use system_tests::site::Site;
use system_tests::wait;

use crate::calm::{Calm, configure, publish};

const REPO: &str = "big.example.org";

/// Puts a file system of this size on a directory; it goes with the scene.
fn small_disk(directory: &Path, size: &str) {
    let option = format!("size={size},mode=0755");
    process::run(Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(directory));
}

fn fill(file: &Path) {
    let mut command = Command::new("dd");
    command.args(["if=/dev/zero", "bs=4k", "status=none"]).arg(format!("of={}", file.display()));
    let filled = process::output_within(&mut command, wait::LONG);
    assert!(!filled.status.success(), "the disk is full now");
}

#[test]
fn a_full_cache_disk_costs_the_cache_and_not_the_service() {
    let scene = Scene::new();
    small_disk(&scene.path("cache"), "12m");
    let source = scene.path("source");
    fs::create_dir_all(&source).unwrap();
    for number in 0..24_u32 {
        let bytes: Vec<u8> =
            (0..1_500_000_u32).map(|at| (at.wrapping_mul(2_654_435_761 + number) >> 23) as u8).collect();
        fs::write(source.join(format!("file{number}")), bytes).unwrap();
    }
    publish(&scene, REPO, &source);
    let site = Site::serve(&scene, scene.path("www"), "site");
    configure(&scene, REPO, &site.repository(REPO), "");
    let calm = Calm::start(&scene, "");
    let at = calm.mount(REPO);
    let compare = || process::run(Command::new("diff").arg("-r").arg(&source).arg(&at));
    compare();
    fill(&scene.path("cache/ballast"));
    compare();
    fs::remove_file(scene.path("cache/ballast")).unwrap();
    compare();
    calm.umount(REPO);
    // And when the disk is full from the start.
    fill(&scene.path("cache/ballast"));
    let at = calm.mount(REPO);
    process::run(Command::new("cmp").arg(source.join("file7")).arg(at.join("file7")));
    calm.umount(REPO);
    calm.finish();
}

#[test]
fn a_full_state_disk_is_named_and_leaves_nothing() {
    let scene = Scene::new();
    small_disk(&scene.path("state"), "2m");
    let site = Site::fixtures(&scene);
    site.configure(&scene, "mini.cern.ch");
    let calm = Calm::start(&scene, "");
    fill(&scene.path("state/ballast"));
    let output = process::output_within(&mut calm.daemon.command(&["mount", "mini.cern.ch"]), wait::LONG);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("full") || said.contains("space"), "{said}");
        calm.nothing_else_is_left();
    }
    fs::remove_file(scene.path("state/ballast")).unwrap();
    calm.mount("mini.cern.ch");
    calm.umount("mini.cern.ch");
    calm.finish();
}
