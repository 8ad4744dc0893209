//! What `status` says of a volume's health, which is also what Kubernetes is told of it (NodeGetVolumeHealth).

use std::fs;
use std::process::Command;

use serde_json::Value;
use system_tests::daemon::Scene;
use system_tests::process;
use system_tests::relay::{Manner, Relay};
use system_tests::site::Site;
use system_tests::wait;

use crate::calm::{Calm, configure, publish};

const REPO: &str = "ill.example.org";

fn health(calm: &Calm<'_>) -> Value {
    calm.daemon.mount(REPO).expect("the mount is listed")
}

fn becomes(calm: &Calm<'_>, words: &[&str]) -> Value {
    let says = || health(calm)["health"].as_str().unwrap_or_default().to_owned();
    wait::patiently(&format!("health says {words:?}"), says, || {
        let text = says();
        words.iter().all(|word| text.contains(word)).then(|| health(calm))
    })
}

#[test]
fn trouble_is_told_with_its_begin_and_goes_when_it_is_over() {
    let scene = Scene::new();
    let source = scene.path("ill-source");
    fs::create_dir_all(&source).unwrap();
    for name in ["known", "unknown", "other"] {
        fs::write(source.join(name), name.repeat(5000)).unwrap();
    }
    publish(&scene, REPO, &source);
    let site = Site::serve(&scene, scene.path("www"), "site");
    let relay = Relay::before(site.url());
    let short = "CVMFS_TIMEOUT=1\nCVMFS_TIMEOUT_DIRECT=1\nCVMFS_MAX_RETRIES=0\n";
    configure(&scene, REPO, &format!("{}/cvmfs/{REPO}", relay.url()), short);
    let calm = Calm::start(&scene, "cvmfs.deadline_seconds = 5\n");
    let at = calm.mount(REPO);
    becomes(&calm, &["healthy"]);
    assert_eq!(fs::read_to_string(at.join("known")).unwrap(), "known".repeat(5000));

    // Nobody answers: what is cached is served, and the volume says since when it may be old.
    relay.set(Manner::Silent);
    let refresh = || process::output_within(&mut calm.daemon.command(&["refresh"]), wait::LONG);
    assert!(!refresh().status.success());
    let ill = becomes(&calm, &["since 20", "cannot look for a new revision", "revision 2 is served", REPO]);
    assert_eq!(ill["state"], "live");
    assert_eq!(fs::read_to_string(at.join("known")).unwrap(), "known".repeat(5000));
    for name in ["unknown", "other"] {
        let output = process::output_within(Command::new("cat").arg(at.join(name)), wait::LONG);
        assert!(String::from_utf8_lossy(&output.stderr).contains("Input/output error"), "{output:?}");
    }
    let ill = becomes(&calm, &["no server or proxy answers well since 20"]);
    assert!(ill["last_error"].as_str().is_some_and(|text| text.contains("20")), "{ill}");

    relay.set(Manner::Pass);
    wait::until_true("it is looked for again", || refresh().status.success());
    assert_eq!(fs::read_to_string(at.join("unknown")).unwrap(), "unknown".repeat(5000));
    becomes(&calm, &["healthy"]);

    // A worker that dies is told while it is away, and counted.
    let worker = calm.daemon.worker(REPO).unwrap();
    process::run(Command::new("kill").args(["-9", &worker.to_string()]));
    wait::until_true("the next worker serves", || {
        let now = health(&calm);
        now["restarts"] == 1 && now["health"] == "healthy" && now["state"] == "live"
    });
    assert_eq!(fs::read_to_string(at.join("other")).unwrap(), "other".repeat(5000));
    calm.umount(REPO);
    calm.finish();
}
