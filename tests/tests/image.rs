//! The container image: its form, what is in it, and that it runs.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::fs;
use std::process::Command;

use system_tests::daemon::Scene;
use system_tests::engine::{self, Engine};
use system_tests::image::{self, NAME, USER, Unpacked};
use system_tests::process;

#[test]
fn the_image_is_whole_small_and_the_same_again() {
    let scene = Scene::new();
    let archive = image::archive(&scene, "volplane.tar");
    let again = image::archive(&scene, "again.tar");
    assert!(fs::read(&archive).unwrap() == fs::read(again).unwrap(), "two builds differ");
    // Debug binaries are larger; those that are released are well below this.
    let mib = fs::metadata(&archive).unwrap().len() >> 20;
    assert!(mib < 40, "{mib} MiB");

    let image = Unpacked::of(&archive, scene.path("unpacked"));
    assert_eq!(image.json("oci-layout")["imageLayoutVersion"], "1.0.0");
    let index = image.json("index.json");
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["io.containerd.image.name"], NAME);
    let manifest = image.json_blob(entry);
    let config = image.json_blob(&manifest["config"]);
    let layer = image.blob(&manifest["layers"][0]);

    // The form for older engines says the same.
    let older = &image.json("manifest.json")[0];
    assert_eq!(older["RepoTags"][0], NAME);
    assert!(layer.ends_with(older["Layers"][0].as_str().unwrap()));

    let content = process::run(Command::new("sh").arg("-c").arg("gzip -dc \"$0\" | sha256sum").arg(&layer));
    let content = content.split(' ').next().unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{content}"));
    assert_eq!(config["config"]["User"], USER, "not root unless a pod says so");
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/volplane");
    let labels = &config["config"]["Labels"];
    for label in ["title", "description", "licenses", "version", "created"] {
        let value = labels[format!("org.opencontainers.image.{label}")].as_str();
        assert!(value.is_some_and(|value| !value.is_empty()), "label {label}: {labels}");
    }

    // What is in it: our programs and what they load, no shell, nothing that anybody could write or that has privileges.
    let listing = process::run(Command::new("tar").arg("-tzvf").arg(&layer));
    let files: Vec<&str> = listing.lines().filter(|line| line.starts_with('-')).collect();
    for line in &files {
        let (mode, path) = (line.split(' ').next().unwrap(), line.rsplit(' ').next().unwrap());
        assert!(!mode.contains('s') && &mode[8..9] != "w", "{line}");
        let known = [
            "./usr/bin/volplane",
            "./lib",
            "./usr/lib",
            "./etc/passwd",
            "./etc/group",
            "./etc/nsswitch.conf",
        ];
        assert!(known.iter().any(|known| path.starts_with(known)), "{path} does not belong there");
    }
    assert!(files.len() < 16, "{files:#?}");
}

#[test]
fn the_programs_run_in_the_image_alone() {
    let scene = Scene::new();
    let root = scene.path("root");
    image::root(&root);
    let run = |program: &str, arguments: &[&str]| {
        let script =
            format!("mount --rbind /proc \"$0/proc\" && exec chroot --userspec={USER} \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", &script]).arg(&root).arg(program).args(arguments);
        process::run(&mut command)
    };
    assert!(run("/usr/bin/volplane", &["--version"]).starts_with("volplane "));
    run("/usr/bin/volplane", &["serve", "--check"]);
    if image::programs().len() > 1 {
        // As the chart's init container does.
        run(
            "/usr/bin/volplane",
            &["flexvolume", "install", "--dir=/tmp", "--vendor=cern", "--run-dir=/run/volplane"],
        );
        let said = run("/tmp/cern~cvmfs/cvmfs", &["init"]);
        assert!(said.contains("\"Success\""), "{said}");
    }
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert!(passwd.contains(&format!("volplane:x:{USER}:")), "{passwd}");
}

#[test]
fn an_engine_loads_the_archive_and_builds_the_same_from_the_containerfile() {
    const TEST: &str = "image: an_engine_loads_the_archive_and_builds_the_same_from_the_containerfile";
    let programs = match engine::programs() {
        Ok(programs) => programs,
        Err(reason) => return process::skip(TEST, &reason),
    };
    let scene = Scene::new();
    let archive = image::archive(&scene, "volplane.tar");
    let context = scene.path("context");
    image::root(&context);
    let engine = Engine::start(&scene, programs, &[]);
    engine.docker(&["load", "-i", archive.to_str().unwrap()]);
    let strict = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--network", "none"];
    let version = |name: &str| engine.docker(&[&strict[..], &[name, "--version"]].concat());
    assert!(version(NAME).starts_with("volplane "));

    let containerfile = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/image/Containerfile");
    let argument = format!("VERSION={}", env!("CARGO_PKG_VERSION"));
    let context = context.to_str().unwrap();
    let mut build = engine.command(&[
        "build",
        "-q",
        "-t",
        "built",
        "--build-arg",
        &argument,
        "-f",
        containerfile,
        context,
    ]);
    process::run(build.env("DOCKER_BUILDKIT", "0"));
    assert_eq!(version("built"), version(NAME));
    let settings = |name: &str, what: &str| {
        engine.docker(&["inspect", "--format", &format!("{{{{json .Config.{what}}}}}"), name])
    };
    for what in ["User", "Entrypoint", "Cmd"] {
        assert_eq!(settings("built", what), settings(NAME, what), "{what}");
    }
}
