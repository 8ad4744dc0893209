//! The packages that `make package` makes, installed and used.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::path::{Path, PathBuf};
use std::process::Command;

use system_tests::daemon::Scene;
use system_tests::engine::{self, Engine, IMAGE};
use system_tests::process;
use system_tests::site::Site;

fn dist() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("dist")
}

fn package() -> Option<PathBuf> {
    let entries = std::fs::read_dir(dist()).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|ext| ext == "deb"))
}

/// A copy-on-write view of this machine's root, so that installing a package changes nothing outside.
struct Machine {
    scene: Scene,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine { scene: Scene::new() };
        // Overlayfs wants its upper directories on a file system of its own kind; a tmpfs does.
        let base = machine.scene.path("machine");
        std::fs::create_dir_all(&base).unwrap();
        process::run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&base));
        for dir in ["upper", "work", "root"] {
            std::fs::create_dir_all(base.join(dir)).unwrap();
        }
        let options = format!("lowerdir=/,upperdir={0}/upper,workdir={0}/work", base.display());
        process::run(
            Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(machine.root()),
        );
        machine
    }

    fn root(&self) -> PathBuf {
        self.scene.path("machine/root")
    }

    fn run(&self, script: &str) -> String {
        process::run(Command::new("chroot").arg(self.root()).args(["sh", "-c", script]))
    }
}

#[test]
fn the_debian_package_installs_and_goes() {
    let Some(package) = package() else {
        return process::skip(
            "packages: the_debian_package_installs_and_goes",
            "dist/ has no package (make package)",
        );
    };
    let machine = Machine::new();
    std::fs::copy(&package, machine.root().join("volplane.deb")).unwrap();
    machine.run("dpkg -i /volplane.deb");
    assert!(machine.run("volplane --version").starts_with("volplane "));
    assert!(machine.run("getent passwd volplane").contains("nologin"));
    assert!(machine.run("zcat /usr/share/man/man1/volplane.1.gz").contains("volplane"));
    for file in [
        "/lib/systemd/system/volplane.service",
        "/lib/systemd/system/volplane.socket",
        "/etc/volplane/volplane.toml",
    ] {
        machine.run(&format!("test -s {file}"));
    }
    // Kubelet's driver comes with it, and needs nothing of the system that it is placed on.
    let placed =
        machine.run("mount -t proc proc /proc && volplane flexvolume install --dir /plugins && umount /proc");
    assert!(placed.ends_with("/plugins/cern~cvmfs/cvmfs: placed"), "{placed}");
    assert!(machine.run("env -i /plugins/cern~cvmfs/cvmfs init").contains("Success"));
    // The shipped configuration is one that the daemon takes.
    machine.run("volplane serve --check --config /etc/volplane/volplane.toml");
    machine.run("dpkg -P volplane && ! test -e /usr/bin/volplane");
}

#[test]
fn the_units_are_what_systemd_understands() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return process::skip(
            "packages: the_units_are_what_systemd_understands",
            "systemd-analyze is not installed",
        );
    }
    let Some(package) = package() else {
        return process::skip(
            "packages: the_units_are_what_systemd_understands",
            "dist/ has no package (make package)",
        );
    };
    let machine = Machine::new();
    std::fs::copy(&package, machine.root().join("volplane.deb")).unwrap();
    machine.run("dpkg -i /volplane.deb");
    let said = machine.run("systemd-analyze verify --man=no /lib/systemd/system/volplane.service 2>&1 | grep -i volplane || true");
    assert!(!said.contains("Unknown") && !said.contains("Invalid"), "{said}");
}

#[test]
fn the_managed_plugin_serves_a_container() {
    const TEST: &str = "packages: the_managed_plugin_serves_a_container";
    let programs = match engine::programs() {
        Ok(programs) => programs,
        Err(reason) => return process::skip(TEST, &reason),
    };
    let plugin = dist().join("docker-plugin");
    if !plugin.exists() {
        return process::skip(TEST, "dist/ has no managed plugin (make package)");
    }
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, "mini.cern.ch");
    let engine = Engine::start(&scene, programs, &[]);
    engine.docker(&["plugin", "create", "volplane/cvmfs:test", plugin.to_str().unwrap()]);
    let config = format!("config.source={}", scene.path("etc").display());
    engine.docker(&["plugin", "set", "volplane/cvmfs:test", &config]);
    engine.docker(&["plugin", "enable", "volplane/cvmfs:test"]);
    // Key paths in the configuration are the host's; inside the plugin the keys lie in /etc/cvmfs/keys.
    let key = "CVMFS_PUBLIC_KEY=/etc/cvmfs/keys/mini.cern.ch.pub";
    engine.docker(&[
        "volume",
        "create",
        "-d",
        "volplane/cvmfs:test",
        "-o",
        "repository=mini.cern.ch",
        "-o",
        key,
        "mini",
    ]);
    let names = engine.docker(&["run", "--rm", "--network", "none", "-v", "mini:/mnt", IMAGE, "ls", "/mnt"]);
    assert!(!names.is_empty());
    engine.docker(&["volume", "rm", "mini"]);
    engine.docker(&["plugin", "disable", "-f", "volplane/cvmfs:test"]);
    engine.docker(&["plugin", "rm", "-f", "volplane/cvmfs:test"]);
}
