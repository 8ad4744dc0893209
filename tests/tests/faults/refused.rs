//! What must not be mounted.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cvmfs::publish::forge::CASES;
use serde_json::json;
use system_tests::daemon::Scene;
use system_tests::relay::{Manner, Relay};
use system_tests::site::Site;
use system_tests::wait;

use crate::calm::{Calm, configure, forge};

/// Both doors refuse `name` with all these words; nothing is left.
fn refused(calm: &Calm<'_>, name: &str, words: &[&str]) {
    for said in [calm.mount_fails(name), calm.engine_mount_fails(name)] {
        for word in words {
            assert!(said.contains(word), "{name}: {word:?} is not in: {said}");
        }
    }
    calm.nothing_else_is_left();
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The file of a repository's root catalog.
fn root_catalog(repository: &Path) -> PathBuf {
    let manifest = fs::read(repository.join(".cvmfspublished")).unwrap();
    let text = String::from_utf8_lossy(&manifest).into_owned();
    let hash = text.lines().find_map(|line| line.strip_prefix('C')).unwrap();
    repository.join("data").join(&hash[..2]).join(format!("{}C", &hash[2..]))
}

#[test]
fn what_does_not_exist_or_is_not_trusted_is_named() {
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    for fqrn in ["test.cern.ch", "expired.cern.ch", "badsig.cern.ch", "wrongkey.cern.ch", "nosuch.cern.ch"] {
        site.configure(&scene, fqrn);
    }
    let keyless = "CVMFS_PUBLIC_KEY=/nonexistent/keyless.pub\n";
    scene.configure(
        "mini.cern.ch",
        &site.repository("mini.cern.ch"),
        &fixtures::public_key("mini.cern.ch"),
        keyless,
    );
    let calm = Calm::start(&scene, "");

    refused(&calm, "nosuch.cern.ch", &["nosuch.cern.ch", "not found"]);
    refused(&calm, "test.cern.ch@nosuchtag", &["nosuchtag", "tag"]);
    refused(&calm, "mini.cern.ch", &["/nonexistent/keyless.pub"]);
    refused(&calm, "expired.cern.ch", &["whitelist", "expired"]);
    refused(&calm, "badsig.cern.ch", &["signature"]);
    refused(&calm, "wrongkey.cern.ch", &["whitelist", "key"]);
    refused(&calm, &format!("test.cern.ch#{}", "0".repeat(40)), &["0000"]);
    calm.finish();
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let scene = Scene::new();
    let calm = Calm::start(&scene, "");
    let long = "n".repeat(5000);
    for name in [
        "../../etc",
        "../calm.example.org",
        "calm.example.org/../x",
        "/etc",
        "..",
        ".",
        "",
        "a b",
        "x\ny",
        "\u{202e}x.y",
        &long,
    ] {
        let made = calm.engine("Create", &json!({"Name": name, "Opts": {"repository": "calm.example.org"}}));
        assert!(made.refusal().len() < 1000, "{name:?}: {made:?}");
        calm.engine("Mount", &json!({"Name": name, "ID": "c0ffee"})).refusal();
        calm.engine("Remove", &json!({"Name": name})).refusal();
        let said = calm.mount_fails(name);
        assert!(said.len() < 1000, "{said}");
    }
    assert!(
        calm.engine("List", &json!({})).success()["Volumes"]
            .as_array()
            .unwrap()
            .iter()
            .all(|v| v["Name"] == "calm.example.org")
    );
    calm.nothing_else_is_left();
    calm.finish();
}

#[test]
fn catalogs_that_are_none_are_refused() {
    let scene = Scene::new();
    let site = Site::serve(&scene, scene.path("www"), "site");
    let mut names = Vec::new();
    for (number, case) in CASES.iter().filter(|case| !case.mounts).enumerate() {
        let fqrn = format!("insane{number}.example.org");
        (case.make)(&forge(&scene, &fqrn)).unwrap();
        configure(&scene, &fqrn, &site.repository(&fqrn), "");
        names.push(fqrn);
    }
    assert!(names.len() > 3);
    let truncated = "truncated.example.org";
    forge(&scene, truncated);
    configure(&scene, truncated, &site.repository(truncated), "");
    let catalog = root_catalog(&scene.path("www/cvmfs").join(truncated));
    let bytes = fs::read(&catalog).unwrap();
    fs::write(&catalog, &bytes[..bytes.len() / 2]).unwrap();

    let calm = Calm::start(&scene, "");
    for name in &names {
        refused(&calm, name, &[name, "catalog"]);
    }
    refused(&calm, truncated, &["catalog"]);
    // Once it is whole again, it is a repository like any other.
    fs::write(&catalog, bytes).unwrap();
    calm.mount(truncated);
    calm.umount(truncated);
    calm.finish();
}

#[test]
fn proxies_and_servers_that_are_dead_silent_or_slow_are_named_in_time() {
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    let relay = Relay::before(site.url());
    let key = |fqrn| fixtures::public_key(fqrn);
    let (closed, server) = (closed_port(), closed_port());
    let proxy = format!("CVMFS_HTTP_PROXY=http://127.0.0.1:{closed}\n");
    scene.configure("mini.cern.ch", &site.repository("mini.cern.ch"), &key("mini.cern.ch"), &proxy);
    let dead = format!("http://127.0.0.1:{server}/cvmfs/rmd160.cern.ch");
    scene.configure("rmd160.cern.ch", &dead, &key("rmd160.cern.ch"), "");
    let sick = format!("{}/cvmfs/test.cern.ch", relay.url());
    scene.configure("test.cern.ch", &sick, &key("test.cern.ch"), "");
    let calm = Calm::start(&scene, "cvmfs.deadline_seconds = 3\n");

    refused(&calm, "mini.cern.ch", &[&format!("127.0.0.1:{closed}"), "proxy"]);
    refused(&calm, "rmd160.cern.ch", &[&format!("127.0.0.1:{server}")]);
    for manner in [Manner::Silent, Manner::Drip] {
        relay.set(manner);
        let begun = Instant::now();
        let said = calm.mount_fails("test.cern.ch");
        assert!(said.contains(relay.url().as_str()), "{manner:?}: {said}");
        // The engine waits for a shorter time and hears at least that it was too short.
        calm.engine_mount_fails("test.cern.ch");
        assert!(begun.elapsed() < wait::LONG, "{manner:?}: {:?} for two refusals", begun.elapsed());
        calm.nothing_else_is_left();
    }
    relay.set(Manner::Pass);
    calm.mount("test.cern.ch");
    calm.umount("test.cern.ch");
    calm.finish();
}
