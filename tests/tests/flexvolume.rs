//! Kubelet's FlexVolume calls, as they were seen with real kubelets, against a real daemon and a real repository.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use system_tests::daemon::{Daemon, Scene, binary};
use system_tests::document;
use system_tests::flexvolume::{Answer, Kubelet, Pod, is_mountpoint};
use system_tests::process;
use system_tests::site::Site;
use system_tests::wait;

const REPO: &str = "lhcb.cern.ch";
const DRIVER: &str = "cern/cvmfs";
/// Within this time kubelet hears that there is no daemon.
const SOON: Duration = Duration::from_secs(5);

/// A node with a repository in reach.
struct Node {
    kubelet: Kubelet,
    site: Site,
    scene: Scene,
}

impl Node {
    fn new(install: &[&str]) -> Node {
        let scene = Scene::new();
        let source = scene.path("source");
        fs::create_dir_all(source.join("lib")).unwrap();
        fs::write(source.join("lib/hello"), "hello from lhcb\n").unwrap();
        let repository = scene.path("www/cvmfs").join(REPO);
        fs::create_dir_all(repository.parent().unwrap()).unwrap();
        let mut publish = Command::new(binary());
        publish.args(["cvmfs", "publish", REPO]).arg(&source).arg("--repository-dir").arg(&repository);
        process::run(publish.arg("--keys-dir").arg(scene.path("keys")));
        let site = Site::serve(&scene, scene.path("www"), "site");
        let node = Node { kubelet: Kubelet::new(&scene, install), site, scene };
        node.configure(&node.site);
        node
    }

    fn configure(&self, site: &Site) {
        let key = self.scene.path("keys").join(format!("{REPO}.pub"));
        self.scene.configure(REPO, &site.repository(REPO), &key, "");
    }

    fn daemon(&self) -> Daemon<'_> {
        let root = self.scene.path("kubelet");
        Daemon::start_with(&self.scene, &["--kubelet-dir", root.to_str().unwrap()])
    }

    fn start(&self, pod: &Pod) -> Option<Answer> {
        self.kubelet.set_up(pod, &pod.volumes[0])
    }

    fn started(&self, pod: &Pod) {
        let answer = self.start(pod).expect("the driver is called");
        assert_eq!((answer.status(), answer.exit), ("Success", Some(0)), "{answer:?}");
        self.reads(pod);
    }

    fn delete(&self, pod: &Pod) {
        if let Some(answer) = self.kubelet.tear_down(pod, &pod.volumes[0]) {
            assert_eq!((answer.status(), answer.exit), ("Success", Some(0)), "{answer:?}");
        }
        assert!(!self.target(pod).exists());
    }

    fn target(&self, pod: &Pod) -> PathBuf {
        self.kubelet.target(pod, &pod.volumes[0])
    }

    fn reads(&self, pod: &Pod) {
        let mut cat = Command::new("cat");
        let said =
            process::output_within(cat.arg(self.target(pod).join("lib/hello")), Duration::from_secs(30));
        assert_eq!(String::from_utf8_lossy(&said.stdout), "hello from lhcb\n", "{said:?}");
    }

    fn mount(&self, pod: &Pod) -> Answer {
        let options = self.kubelet.options(pod, &pod.volumes[0]);
        self.kubelet.call(DRIVER, &["mount", self.target(pod).to_str().unwrap(), &options])
    }

    fn unmount(&self, target: &Path) -> Answer {
        self.kubelet.call(DRIVER, &["unmount", target.to_str().unwrap()])
    }
}

fn lhcb(name: &str) -> Pod {
    Pod::with(name, &[("repository", REPO)])
}

/// Failed, with nothing left.
fn failed(node: &Node, pod: &Pod, answer: &Answer) {
    assert_eq!(answer.status(), "Failure", "{answer:?}");
    assert!(!is_mountpoint(&node.target(pod)), "kubelet would take it for success");
}

fn references(daemon: &Daemon<'_>) -> usize {
    daemon.mount(REPO).map_or(0, |mount| mount["references"].as_array().unwrap().len())
}

fn nothing_is_left(daemon: &Daemon<'_>) {
    wait::until_true("the mount is gone", || daemon.mounts().is_empty());
}

#[test]
fn the_old_plugins_pod_starts_reads_and_ends() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let blocks = document::blocks(&document::read(root, "doc/kubernetes.md"));
    let manifest = blocks.iter().find(|block| block.text.contains("driver: \"cern/cvmfs\"")).unwrap();
    let pod = Pod::of_manifest(&manifest.text, "5d5a1b3a-0d2f-4d2d-9a52-0e3a7f4d6c11");
    assert_eq!((pod.name.as_str(), pod.volumes.len()), ("nginx", 1));
    assert_eq!(pod.volumes[0].options, *json!({"repository": REPO}).as_object().unwrap());

    let init = node.kubelet.call(DRIVER, &["init"]);
    assert_eq!((init.status(), init.exit), ("Success", Some(0)));
    assert_eq!(init.json["capabilities"]["attach"], false);
    node.started(&pod);
    let target = node.target(&pod);
    assert!(target.ends_with("pods/5d5a1b3a-0d2f-4d2d-9a52-0e3a7f4d6c11/volumes/cern~cvmfs/lhcb"));
    let mount = daemon.mount(REPO).unwrap();
    let place = target.display();
    assert_eq!(mount["references"], json!([format!("flexvolume|{place}|{place}")]));
    // Kubelet asked for rw, as the pod did not say otherwise.
    let refused = fs::write(target.join("new"), "").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let full = process::run(Command::new("stat").args(["-f", "-c", "%b"]).arg(&target));
    assert_ne!(full, "0", "supportsMetrics: kubelet asks statfs");
    node.delete(&pod);
    nothing_is_left(&daemon);
    assert!(daemon.log().contains("nginx"), "the log tells whose volume it was");
}

#[test]
fn calls_that_cvmfs_does_not_have_are_not_supported() {
    let node = Node::new(&[]);
    for arguments in [
        &["getvolumename", "{}"][..],
        &["attach", "{}", "node-1"],
        &["waitforattach", "/dev/x", "{}"],
        &["isattached", "{}", "node-1"],
        &["mountdevice", "/d", "/dev/x", "{}"],
        &["unmountdevice", "/d"],
        &["detach", "lhcb", "node-1"],
        &["expandvolume", "{}", "/d", "2", "1"],
        &["expandfs", "{}", "/dev/x", "/d", "2", "1"],
        &["frobnicate"],
        &[],
    ] {
        assert_eq!(node.kubelet.call(DRIVER, arguments).status(), "Not supported", "{arguments:?}");
    }
}

#[test]
fn the_argument_order_before_1_6_works_too() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let pod = lhcb("old");
    let target = node.target(&pod);
    fs::create_dir_all(&target).unwrap();
    let options = r#"{"kubernetes.io/fsType":"","kubernetes.io/readwrite":"rw","repository":"lhcb.cern.ch"}"#;
    let answer = node.kubelet.call(DRIVER, &["mount", target.to_str().unwrap(), "", options]);
    assert_eq!(answer.status(), "Success", "{answer:?}");
    node.reads(&pod);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

#[test]
fn repeated_calls_change_nothing() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let pod = lhcb("twice");
    let target = node.target(&pod);
    assert_eq!(node.unmount(&target).status(), "Success", "of what never was");
    node.started(&pod);
    assert!(node.start(&pod).is_none(), "kubelet does not even ask");
    assert_eq!(node.mount(&pod).status(), "Success");
    assert_eq!(references(&daemon), 1);
    assert_eq!(node.unmount(&target).status(), "Success");
    assert_eq!(node.unmount(&target).status(), "Success");
    nothing_is_left(&daemon);
    assert!(!is_mountpoint(&target));
}

#[test]
fn two_pods_share_one_mount_and_leave_in_any_order() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let (first, second) = (lhcb("first"), lhcb("second"));
    node.started(&first);
    let worker = daemon.worker(REPO);
    node.started(&second);
    assert_eq!((references(&daemon), daemon.worker(REPO), daemon.mounts().len()), (2, worker, 1));
    node.delete(&first);
    node.reads(&second);
    assert_eq!(references(&daemon), 1);
    node.delete(&second);
    nothing_is_left(&daemon);
}

#[test]
fn twenty_pods_at_once_get_one_mount() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let pods: Vec<Pod> = (0..20).map(|number| lhcb(&format!("pod-{number}"))).collect();
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| node.started(pod));
        }
    });
    assert_eq!((references(&daemon), daemon.mounts().len()), (20, 1));
    std::thread::scope(|scope| {
        for pod in pods.iter().rev() {
            scope.spawn(|| node.delete(pod));
        }
    });
    nothing_is_left(&daemon);
}

#[test]
fn a_restarted_kubelet_leaves_running_pods_alone_and_clears_those_that_are_gone() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let (running, gone) = (lhcb("running"), lhcb("gone"));
    node.started(&running);
    node.started(&gone);
    // Kubelet is down while `gone` is deleted; the next one knows it from the directories that are left.
    assert_eq!(node.kubelet.call(DRIVER, &["init"]).status(), "Success");
    assert!(node.start(&running).is_none());
    node.delete(&gone);
    node.reads(&running);
    node.delete(&running);
    nothing_is_left(&daemon);
}

#[test]
fn a_rebooted_node_mounts_anew() {
    let node = Node::new(&[]);
    let mut daemon = node.daemon();
    let pod = lhcb("rebooted");
    node.started(&pod);
    let worker = daemon.worker(REPO).unwrap();
    daemon.kill();
    process::run(Command::new("kill").args(["-9", &worker.to_string()]));
    // What a reboot leaves: the directories, and no mount.
    process::run(Command::new("umount").arg("-l").arg(node.target(&pod)));
    process::run(Command::new("umount").arg("-l").arg(node.scene.path("run/mounts").join(REPO)));
    fs::remove_dir_all(node.scene.path("run")).unwrap();
    daemon.launch();
    node.started(&pod);
    assert_eq!(references(&daemon), 1);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

#[test]
fn a_mount_that_failed_succeeds_when_the_server_is_back() {
    let mut node = Node::new(&[]);
    node.site.kill();
    let daemon = node.daemon();
    let pod = lhcb("patient");
    for _ in 0..2 {
        let answer = node.start(&pod).unwrap();
        failed(&node, &pod, &answer);
        assert_eq!(answer.exit, Some(1));
        assert!(answer.message().contains(REPO), "{answer:?}");
        assert!(!node.target(&pod).exists(), "kubelet removes the directory");
    }
    drop(daemon);
    let back = Site::serve(&node.scene, node.scene.path("www"), "back");
    node.configure(&back);
    let daemon = node.daemon();
    node.started(&pod);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

#[test]
fn an_overrun_deadline_leaves_nothing_and_the_next_try_succeeds() {
    let node = Node::new(&["--mount-deadline", "2"]);
    let daemon = node.daemon();
    let pod = lhcb("late");
    node.site.freeze();
    let answer = node.start(&pod).unwrap();
    failed(&node, &pod, &answer);
    assert!(answer.message().contains("within 2 s"), "{answer:?}");
    node.site.thaw();
    // Until it is taken back the driver says that it is busy; at no time a mount is left that nobody was told of.
    wait::until_true("the next try succeeds", || match node.start(&pod) {
        Some(answer) => answer.status() == "Success",
        None => panic!("a mountpoint was left behind"),
    });
    node.reads(&pod);
    assert_eq!(references(&daemon), 1);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

#[test]
fn a_killed_call_leaves_nothing() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let pod = lhcb("killed");
    let target = node.target(&pod);
    fs::create_dir_all(&target).unwrap();
    node.site.freeze();
    let options = node.kubelet.options(&pod, &pod.volumes[0]);
    let mut call = node.kubelet.begin(DRIVER, &["mount", target.to_str().unwrap(), &options]);
    wait::until_true("the mount is being made", || {
        daemon.mount(REPO).is_some_and(|mount| mount["state"] == "attaching")
    });
    call.kill();
    wait::until_true("the daemon notices", || daemon.log().contains("went away before it was answered"));
    node.site.thaw();
    wait::until_true("nothing is under way", || {
        assert!(!is_mountpoint(&target));
        daemon.mount(REPO).is_none_or(|mount| mount["state"] != "attaching")
    });
    assert_eq!(references(&daemon), 0);
    assert!(!is_mountpoint(&target));
    node.started(&pod);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

/// A call that is killed is one that failed: what it was doing is taken back at whatever point it was. Only between its
/// confirmation and its end a mount stays, whole, which kubelet then takes for what it wanted.
#[test]
fn a_call_killed_at_any_moment_leaves_all_or_nothing() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let other = lhcb("other");
    node.started(&other);
    let pod = lhcb("shot");
    let target = node.target(&pod);
    let options = node.kubelet.options(&pod, &pod.volumes[0]);
    let mut killed = 0;
    for round in 0..60 {
        fs::create_dir_all(&target).unwrap();
        let mut call = node.kubelet.begin(DRIVER, &["mount", target.to_str().unwrap(), &options]);
        // Not a wait for anything: rounds are to be cut at different moments.
        std::thread::sleep(Duration::from_micros(300 * round));
        let done = call.ended().is_some();
        call.kill();
        killed += usize::from(!done);
        wait::until_true("books and mount table agree", || {
            let held = references(&daemon) == 2;
            held == is_mountpoint(&target) && (held || !done)
        });
        // While it is being taken back, kubelet's unmount hears that it is busy, and comes again.
        wait::until_true("it is unmounted", || node.unmount(&target).status() == "Success");
        node.delete(&pod);
        node.reads(&other);
    }
    assert!(killed > 0, "no round was cut");
    assert_eq!(references(&daemon), 1);
    node.delete(&other);
    nothing_is_left(&daemon);
}

#[test]
fn pods_of_a_hanging_server_hold_up_no_others() {
    let node = Node::new(&[]);
    let healthy = Site::serve(&node.scene, fixtures::public().join("www"), "healthy");
    healthy.configure(&node.scene, "mini.cern.ch");
    let daemon = node.daemon();
    node.site.freeze();
    let waiting: Vec<_> = (0..80)
        .map(|number| {
            let pod = lhcb(&format!("waiting-{number}"));
            let target = node.target(&pod);
            fs::create_dir_all(&target).unwrap();
            let options = node.kubelet.options(&pod, &pod.volumes[0]);
            (node.kubelet.begin(DRIVER, &["mount", target.to_str().unwrap(), &options]), target)
        })
        .collect();
    wait::until_true("they are being mounted", || daemon.log().matches("mount for a pod").count() >= 80);
    let pod = Pod::with("healthy", &[("repository", "mini.cern.ch")]);
    assert_eq!(node.start(&pod).unwrap().status(), "Success");
    assert!(fs::read_dir(node.target(&pod)).unwrap().count() > 0);
    node.delete(&pod);
    let targets: Vec<PathBuf> = waiting
        .into_iter()
        .map(|(mut call, target)| {
            call.kill();
            target
        })
        .collect();
    wait::until_true("the daemon notices, or had given up itself", || {
        let log = daemon.log();
        log.matches("before it was answered").count() + log.matches("refused fault").count() >= targets.len()
    });
    node.site.thaw();
    wait::until_true("nothing is under way", || {
        assert!(!targets.iter().any(|target| is_mountpoint(target)));
        daemon.mount(REPO).is_none_or(|mount| mount["state"] != "attaching")
    });
    assert_eq!(references(&daemon), 0);
}

#[test]
fn whatever_it_is_given_and_whatever_is_closed_one_object_comes_out() {
    let node = Node::new(&[]);
    let driver = node.kubelet.driver(DRIVER);
    let one_object = |output: &std::process::Output, what: &str| {
        assert!(output.stderr.is_empty(), "{what}: {output:?}");
        let text = std::str::from_utf8(&output.stdout).unwrap();
        let object: serde_json::Value =
            serde_json::from_str(text).unwrap_or_else(|_| panic!("{what}: {output:?}"));
        assert!(object["status"].is_string(), "{what}: {object}");
    };
    let broken = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let deep = "[".repeat(100_000);
    let long = "x".repeat(120_000);
    let words = ["mount", "unmount", "init", "/proc/1/mem", "{}", &deep, &long, "\n", "-", "--help", "null"];
    for first in words {
        for second in words {
            let mut command = Command::new(&driver);
            command.args([first, second]).arg(broken).args(["{\"a\": \"b\"}"]);
            one_object(&process::output_within(&mut command, wait::LONG), first);
            let mut command = Command::new(&driver);
            command.args([first, second]).env_clear();
            one_object(&process::output_within(&mut command, wait::LONG), first);
        }
    }
    // Descriptors that are closed, a directory that is gone, an argument list without the program's name.
    let place = driver.display();
    for script in [
        format!("exec {place} init <&- 2>&-"),
        format!("mkdir {place}.dir && cd {place}.dir && rmdir {place}.dir && exec {place} init"),
        format!("ulimit -n 8; exec {place} unmount /nonexistent/x"),
        format!("exec -a '' {place} init"),
        format!("exec -a cvmfs {place} init"),
    ] {
        one_object(&process::output_within(Command::new("bash").args(["-c", &script]), wait::LONG), &script);
    }
    // Nobody reads: it ends all the same, and says nothing elsewhere.
    let unread = format!("{place} init 2>&1 >&- | wc -c; {place} init | true");
    let said = process::run(Command::new("bash").args(["-c", &unread]));
    assert_eq!(said.trim(), "0");
}

#[test]
fn without_a_daemon_kubelet_hears_so_soon() {
    let node = Node::new(&[]);
    let mut daemon = node.daemon();
    let (running, waiting) = (lhcb("running"), lhcb("waiting"));
    node.started(&running);
    daemon.kill();
    let refused = |answer: &Answer| {
        assert_eq!(answer.status(), "Failure", "{answer:?}");
        assert!(
            answer.message().contains("control.sock") && answer.message().contains("start it"),
            "{answer:?}"
        );
        assert!(answer.took < SOON, "{answer:?}");
    };
    let answer = node.start(&waiting).unwrap();
    refused(&answer);
    failed(&node, &waiting, &answer);
    assert_eq!(node.kubelet.call(DRIVER, &["init"]).status(), "Success");
    assert_eq!(node.unmount(&node.target(&waiting)).status(), "Success", "nothing is mounted there");
    refused(&node.unmount(&node.target(&running)));
    node.reads(&running);
    // A daemon that is there and says nothing is no better.
    daemon.launch();
    process::run(Command::new("kill").args(["-STOP", &daemon.pid().to_string()]));
    refused(&node.start(&waiting).unwrap());
    refused(&node.unmount(&node.target(&running)));
    process::run(Command::new("kill").args(["-CONT", &daemon.pid().to_string()]));
    node.started(&waiting);
    node.delete(&waiting);
    node.delete(&running);
    nothing_is_left(&daemon);
}

#[test]
fn a_daemon_killed_between_mount_and_unmount_is_not_missed() {
    let node = Node::new(&[]);
    let mut daemon = node.daemon();
    let pod = lhcb("through");
    node.started(&pod);
    daemon.kill();
    node.reads(&pod);
    daemon.launch();
    assert!(node.start(&pod).is_none());
    assert_eq!(references(&daemon), 1);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

#[test]
fn a_daemon_that_is_replaced_in_the_middle_of_a_mount_is_asked_again() {
    let node = Node::new(&[]);
    let mut daemon = node.daemon();
    let pod = lhcb("upgraded");
    let target = node.target(&pod);
    fs::create_dir_all(&target).unwrap();
    node.site.freeze();
    let options = node.kubelet.options(&pod, &pod.volumes[0]);
    let mut call = node.kubelet.begin(DRIVER, &["mount", target.to_str().unwrap(), &options]);
    wait::until_true("the mount is being made", || {
        daemon.mount(REPO).is_some_and(|mount| mount["state"] == "attaching")
    });
    daemon.kill();
    node.site.thaw();
    daemon.launch();
    let status = call.wait();
    // Either it was asked again in time, or kubelet tries again; a mount that nobody was told of is not left.
    assert_eq!(status.success(), is_mountpoint(&target), "{}", node.scene.log("flexvolume"));
    if !status.success() {
        node.started(&pod);
    }
    node.reads(&pod);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

#[test]
fn a_daemon_that_is_lost_in_the_middle_of_a_mount_leaves_nothing() {
    let node = Node::new(&[]);
    let mut daemon = node.daemon();
    let pod = lhcb("lost");
    let target = node.target(&pod);
    fs::create_dir_all(&target).unwrap();
    node.site.freeze();
    let options = node.kubelet.options(&pod, &pod.volumes[0]);
    let mut call = node.kubelet.begin(DRIVER, &["mount", target.to_str().unwrap(), &options]);
    wait::until_true("the mount is being made", || {
        daemon.mount(REPO).is_some_and(|mount| mount["state"] == "attaching")
    });
    daemon.kill();
    assert!(!call.wait().success());
    assert!(node.scene.log("flexvolume").contains("went away before"), "{}", node.scene.log("flexvolume"));
    assert!(!is_mountpoint(&target));
    node.site.thaw();
    daemon.launch();
    node.started(&pod);
    assert_eq!(references(&daemon), 1);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

#[test]
fn a_dead_mount_is_unmounted() {
    let node = Node::new(&[]);
    let mut daemon = node.daemon();
    let pod = lhcb("dead");
    let target = node.target(&pod);
    node.started(&pod);
    let worker = daemon.worker(REPO).unwrap();
    daemon.kill();
    process::run(Command::new("kill").args(["-9", &worker.to_string()]));
    wait::until_true("the mount is dead", || fs::read_dir(&target).is_err());
    assert_eq!(node.unmount(&target).status(), "Failure", "without a daemon");
    daemon.launch();
    node.delete(&pod);
    assert!(!is_mountpoint(&target));
    nothing_is_left(&daemon);
}

#[test]
fn a_mount_of_which_the_books_were_lost_is_unmounted() {
    let node = Node::new(&[]);
    let mut daemon = node.daemon();
    let pod = lhcb("forgotten");
    node.started(&pod);
    daemon.kill();
    fs::remove_dir_all(node.scene.path("state")).unwrap();
    daemon.launch();
    node.delete(&pod);
    assert!(!is_mountpoint(&node.target(&pod)));
    nothing_is_left(&daemon);
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let pod = lhcb("foreign");
    let target = node.target(&pod);
    fs::create_dir_all(&target).unwrap();
    fs::write(target.join("precious"), "data").unwrap();
    let occupied = node.mount(&pod);
    failed(&node, &pod, &occupied);
    assert!(occupied.message().contains("not empty"), "{occupied:?}");
    assert_eq!(node.unmount(&target).status(), "Success");
    assert_eq!(fs::read(target.join("precious")).unwrap(), b"data");

    process::run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&target));
    fs::write(target.join("precious"), "more").unwrap();
    let taken = node.mount(&pod);
    assert_eq!(taken.status(), "Failure");
    assert!(taken.message().contains("tmpfs"), "{taken:?}");
    let kept = node.unmount(&target);
    assert_eq!(kept.status(), "Failure");
    assert!(kept.message().contains("tmpfs"), "{kept:?}");
    assert_eq!(fs::read(target.join("precious")).unwrap(), b"more");
    process::run(Command::new("umount").arg(&target));
    nothing_is_left(&daemon);
}

#[test]
fn nothing_is_mounted_outside_kubelets_directory() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let outside = node.scene.path("outside");
    fs::create_dir_all(&outside).unwrap();
    let options = node.kubelet.options(&lhcb("x"), &lhcb("x").volumes[0]);
    let link = node.scene.path("kubelet/pods/link");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let dotted = node.scene.path("kubelet/pods/../../outside");
    for target in [&outside, &link, &link.join("sw"), &dotted] {
        let answer = node.kubelet.call(DRIVER, &["mount", target.to_str().unwrap(), &options]);
        assert_eq!(answer.status(), "Failure", "{target:?}: {answer:?}");
        let inside = target.starts_with(node.scene.path("kubelet"));
        assert!(inside || answer.message().contains("kubelet_dir"), "{answer:?}");
    }
    assert!(!is_mountpoint(&outside) && !is_mountpoint(&outside.join("sw")) && !outside.join("sw").exists());
    nothing_is_left(&daemon);
}

#[test]
fn options_are_those_of_a_pods_author_and_secrets_are_not_shown() {
    let node = Node::new(&[]);
    let daemon = node.daemon();
    let key = Pod::with("key", &[("repository", REPO), ("public_key", "/etc/shadow")]);
    let answer = node.start(&key).unwrap();
    failed(&node, &key, &answer);
    assert!(answer.message().contains("public_key"), "{answer:?}");
    let server = Pod::with("server", &[("repository", REPO), ("server", "http://192.0.2.1/cvmfs/@fqrn@")]);
    let answer = node.start(&server).unwrap();
    failed(&node, &server, &answer);
    assert!(answer.message().contains("server") && answer.message().contains("pod_servers"), "{answer:?}");
    let typo = Pod::with("typo", &[("repositry", REPO)]);
    let answer = node.start(&typo).unwrap();
    failed(&node, &typo, &answer);
    assert!(answer.message().contains("repository"), "{answer:?}");

    // A pod with everything that kubelet can say, all of which is let pass.
    let mut full = lhcb("full");
    full.fs_group = Some(1234);
    full.volumes[0].read_only = true;
    full.volumes[0].secrets = vec![("token".to_owned(), b"hunter2-hunter2".to_vec())];
    node.started(&full);
    node.delete(&full);
    let mut broken = lhcb("broken");
    broken.volumes[0].options.insert("kubernetes.io/secret/token".into(), json!("hunter2-%%"));
    let answer = node.start(&broken).unwrap();
    failed(&node, &broken, &answer);
    assert!(answer.message().contains("kubernetes.io/secret/token"), "{answer:?}");
    assert_eq!(answer.exit, Some(0), "else kubelet logs the arguments");
    assert!(!answer.message().contains("hunter2"));
    let log = daemon.log();
    assert!(!log.contains("hunter2") && !log.contains("aHVudGVyMi"), "{log}");
    nothing_is_left(&daemon);
}

#[test]
fn the_environment_wins_over_the_installation() {
    let mut node = Node::new(&["--run-dir", "/nonexistent/run"]);
    let scene_run = node.scene.path("run").to_str().unwrap().to_owned();
    let pod = lhcb("moved");
    let answer = node.start(&pod).unwrap();
    assert!(answer.message().contains("/nonexistent/run/control.sock"), "{answer:?}");
    node.kubelet.environment.push(("VOLPLANE_RUN_DIR".to_owned(), scene_run));
    let daemon = node.daemon();
    node.started(&pod);
    node.delete(&pod);
    nothing_is_left(&daemon);
}

#[test]
fn an_update_touches_only_what_has_changed() {
    let node = Node::new(&[]);
    let plugins = node.scene.path("volumeplugins");
    let run = node.scene.path("run");
    let volplane = |arguments: &[&str]| {
        process::run(Command::new(binary()).arg("flexvolume").args(arguments).arg("--dir").arg(&plugins))
    };
    let again = volplane(&["install", "--run-dir", run.to_str().unwrap()]);
    assert!(again.ends_with("cern~cvmfs/cvmfs: unchanged"), "{again}");
    fs::write(plugins.join("cern~cvmfs/cvmfs"), "#!/bin/sh\nexit 1\n").unwrap();
    let updated = volplane(&["install", "--run-dir", run.to_str().unwrap()]);
    assert!(updated.ends_with(": updated"), "{updated}");
    assert_eq!(node.kubelet.call(DRIVER, &["init"]).status(), "Success");
    let other = volplane(&["install", "--vendor", "example.org", "--drivers", "cvmfs"]);
    assert!(other.ends_with("example.org~cvmfs/cvmfs: placed"), "{other}");
    assert_eq!(node.kubelet.call("example.org/cvmfs", &["init"]).status(), "Success");
    let removed = volplane(&["uninstall"]);
    assert!(removed.ends_with("cern~cvmfs/cvmfs: removed"), "{removed}");
    assert!(!plugins.join("cern~cvmfs").exists() && plugins.join("example.org~cvmfs/cvmfs").exists());
    let refused = Command::new(binary())
        .args(["flexvolume", "install", "--drivers", "rbd", "--dir"])
        .arg(&plugins)
        .output()
        .unwrap();
    assert!(!refused.status.success(), "this build has no rbd");
}
