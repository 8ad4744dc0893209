//! What the author of a pod may ask of the real daemon, through kubelet's FlexVolume and CSI calls, and what a
//! PersistentVolume may have.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use system_tests::csi_node::{CsiNode, CsiVolume};
use system_tests::daemon::{Daemon, Scene};
use system_tests::process;
use system_tests::site::Site;
use system_tests::wait;
use tonic::Code;

const REPO: &str = "mini.cern.ch";

/// A node with a daemon whose administrator has written `rules` into its `[cvmfs]` table.
struct Node<'scene> {
    scene: &'scene Scene,
    daemon: Daemon<'scene>,
    driver: PathBuf,
}

impl<'scene> Node<'scene> {
    fn start(scene: &'scene Scene, rules: &str) -> Node<'scene> {
        let kubelet = scene.path("kubelet");
        fs::create_dir_all(&kubelet).unwrap();
        let file = scene.path("volplane.toml");
        let csi = format!(
            "[csi]\nnode_id = 'n1'\nregister = false\n[csi.cvmfs]\nendpoint = 'unix://{}'",
            scene.path("csi.sock").display()
        );
        fs::write(&file, format!("kubelet_dir = {kubelet:?}\n[cvmfs]\n{rules}\n{csi}\n")).unwrap();
        let daemon = Daemon::start_with(scene, &["--config", file.to_str().unwrap()]);
        let plugins = scene.path("volumeplugins");
        let mut install = daemon.command(&["flexvolume", "install", "--dir", plugins.to_str().unwrap()]);
        process::run(&mut install);
        Node { scene, daemon, driver: plugins.join("cern~cvmfs/cvmfs") }
    }

    fn call(&self, arguments: &[&str]) -> Value {
        let output = process::output_within(Command::new(&self.driver).args(arguments), wait::LONG);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn target(&self, pod: &str) -> PathBuf {
        let target = self.scene.path("kubelet/pods").join(pod).join("volumes/cern~cvmfs/v");
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        target
    }

    /// Kubelet's `mount` with what a pod's author wrote.
    fn mount(&self, target: &Path, options: &[(&str, &str)]) -> Value {
        let mut all = json!({"kubernetes.io/fsType": "", "kubernetes.io/readwrite": "rw",
            "kubernetes.io/pvOrVolumeName": "v", "kubernetes.io/pod.name": "p",
            "kubernetes.io/pod.namespace": "default", "kubernetes.io/pod.uid": "u"});
        for (name, value) in options {
            all[*name] = json!(value);
        }
        self.call(&["mount", target.to_str().unwrap(), &all.to_string()])
    }

    /// What the pod's events say; nothing is mounted then.
    fn refused(&self, options: &[(&str, &str)]) -> String {
        let target = self.target("refused");
        let answer = self.mount(&target, options);
        assert_eq!(answer["status"], "Failure", "{options:?}: {answer}");
        assert_eq!(self.daemon.mounts(), Vec::<Value>::new(), "{options:?}");
        answer["message"].as_str().unwrap().to_owned()
    }

    /// What kubelet does with a volume of a pod: stage where there is a staging place, publish, and take back. Answers the
    /// mount, or the driver's refusal, after which nothing is mounted.
    fn csi(&self, volume: &CsiVolume) -> Result<Value, (Code, String)> {
        let node = CsiNode::connect(&self.scene.path("csi.sock"));
        let target = self.scene.path("kubelet/pods/u/volumes/kubernetes.io~csi/v/mount");
        let staged = if volume.staging.is_some() { node.stage(volume) } else { Ok(()) };
        if let Err(status) = staged.and_then(|()| node.publish(volume, &target)) {
            assert_eq!(self.daemon.mounts(), Vec::<Value>::new(), "{volume:?}");
            return Err((status.code(), status.message().to_owned()));
        }
        assert!(fs::read_dir(&target).unwrap().count() > 0);
        let mounts = self.daemon.mounts();
        assert_eq!(mounts.len(), 1, "{mounts:?}");
        node.unpublish(volume, &target).unwrap();
        if volume.staging.is_some() {
            node.unstage(volume).unwrap();
        }
        wait::until_true("the mount goes", || self.daemon.mounts().is_empty());
        Ok(mounts.into_iter().next().unwrap())
    }

    fn works(&self, options: &[(&str, &str)]) -> Value {
        let target = self.target("works");
        let answer = self.mount(&target, options);
        assert_eq!(answer["status"], "Success", "{options:?}: {answer}");
        assert!(fs::read_dir(&target).unwrap().count() > 0);
        let mounts = self.daemon.mounts();
        assert_eq!(self.call(&["unmount", target.to_str().unwrap()])["status"], "Success");
        wait::until_true("the mount goes", || self.daemon.mounts().is_empty());
        mounts.into_iter().next().unwrap()
    }
}

#[test]
fn without_a_word_of_the_administrator_a_pod_chooses_a_repository_and_its_revision() {
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let node = Node::start(&scene, "");
    let repo = ("repository", REPO);
    let plain = node.works(&[repo]);
    assert_eq!(plain["key"], REPO);
    let hash = plain["details"]["root_hash"].as_str().unwrap().to_owned();
    assert_eq!(node.works(&[repo, ("hash", &hash)])["key"], format!("{REPO}#{hash}"));
    let text = format!("# pinned\nCVMFS_ROOT_HASH={hash}\n");
    assert_eq!(node.works(&[repo, ("clientConfig", &text)])["key"], format!("{REPO}#{hash}"));

    let file = scene.path("volplane.toml").to_string_lossy().into_owned();
    let key = fs::read_to_string(fixtures::public_key(REPO)).unwrap();
    for (option, value, allow) in [
        ("timeout", "3", "cvmfs.pod_options"),
        ("server", "http://169.254.169.254/latest", "cvmfs.pod_servers"),
        ("proxy", "http://127.0.0.1:1", "cvmfs.pod_proxies"),
        ("clientConfig", "CVMFS_HTTP_PROXY=http://127.0.0.1:1", "cvmfs.pod_proxies"),
    ] {
        let said = node.refused(&[repo, (option, value)]);
        assert!(said.contains(allow) && said.contains(&file), "{said}");
    }
    for (option, value) in [
        ("public_key", "/etc/shadow"),
        ("public_key", key.as_str()),
        ("keys_dir", "/etc"),
        ("uid_map", "/etc/passwd"),
        ("suid", "yes"),
        ("quota", "1"),
        ("clientConfigFilepath", "/etc/shadow"),
    ] {
        let said = node.refused(&[repo, (option, value)]);
        assert!(said.contains(option) && said.contains("never"), "{said}");
    }
    let said = node.refused(&[repo, ("clientConfig", ". /etc/shadow")]);
    assert!(said.contains("files of the node"), "{said}");
    let said = node.refused(&[repo, ("propxy", "x")]);
    assert!(said.contains("did you mean proxy?"), "{said}");
}

#[test]
fn the_administrator_widens_and_narrows_it() {
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    site.configure(&scene, "test.cern.ch");
    let own = format!("{}/cvmfs/@fqrn@", site.url());
    let rules = format!(
        "pod_options = ['repository', 'timeout']\npod_servers = ['{own}']\npod_proxies = ['DIRECT']\n\
         pod_repositories = ['mini.*']\n"
    );
    let node = Node::start(&scene, &rules);
    let repo = ("repository", REPO);
    for option in [
        ("timeout", "3"),
        ("CVMFS_TIMEOUT", "3"),
        ("server", own.as_str()),
        ("CVMFS_SERVER_URL", &site.repository(REPO)),
        ("proxy", "DIRECT"),
    ] {
        node.works(&[repo, option]);
    }
    for (options, part) in [
        (&[repo, ("tag", "v1")][..], "cvmfs.pod_options"),
        (&[repo, ("proxy", "DIRECT;http://127.0.0.1:1")], "http://127.0.0.1:1"),
        (&[repo, ("server", &site.repository("test.cern.ch"))], "cvmfs.pod_servers"),
        (&[("repository", "test.cern.ch")], "cvmfs.pod_repositories"),
        (&[("repository", "*")], "cvmfs.pod_repositories"),
    ] {
        let said = node.refused(options);
        assert!(said.contains(part), "{said}");
    }
    // Who administers the node may do it all the same.
    let target = scene.path("by-hand");
    fs::create_dir_all(&target).unwrap();
    let target = target.to_str().unwrap();
    process::run(&mut node.daemon.command(&["mount", "test.cern.ch", target, "-o", "max_retries=2"]));
    process::run(&mut node.daemon.command(&["umount", target]));
}

#[test]
fn a_persistent_volume_may_have_what_an_inline_one_may_not() {
    let scene = Scene::new();
    let site = Site::fixtures(&scene);
    site.configure(&scene, REPO);
    let node = Node::start(&scene, "");
    let kubelet = scene.path("kubelet");
    let repo = ("repository", REPO);
    let key = fixtures::public_key(REPO);
    fs::write(scene.path("etc/more.conf"), "CVMFS_TIMEOUT=7\n").unwrap();
    let file = scene.path("etc/more.conf").to_string_lossy().into_owned();
    let keys = key.to_string_lossy().into_owned();
    let config = format!(
        "CVMFS_SERVER_URL={}\nCVMFS_PUBLIC_KEY={keys}\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_CACHE_BASE=/elsewhere\n",
        site.repository(REPO)
    );
    let hash = node.csi(&CsiVolume::inline(1, &[repo])).unwrap()["details"]["root_hash"]
        .as_str()
        .unwrap()
        .to_owned();
    for attributes in [
        &[repo, ("clientConfig", config.as_str()), ("sharedMountID", "shared")][..],
        &[repo, ("clientConfigFilepath", &file)],
        &[repo, ("public_key", &keys), ("timeout", "9")],
    ] {
        let mount = node.csi(&CsiVolume::persistent(&kubelet, "pv-1", attributes)).unwrap();
        assert_eq!(mount["details"]["root_hash"], hash.as_str(), "{attributes:?}");
        let (code, said) = node.csi(&CsiVolume::inline(2, attributes)).unwrap_err();
        assert_eq!(code, Code::PermissionDenied, "{attributes:?}: {said}");
        assert!(said.contains("pods may"), "{said}");
    }
    // What pins a revision is anybody's.
    let pinned = format!("CVMFS_ROOT_HASH={hash}\n");
    for attributes in [&[repo, ("hash", hash.as_str())][..], &[repo, ("clientConfig", &pinned)]] {
        for volume in [CsiVolume::persistent(&kubelet, REPO, attributes), CsiVolume::inline(3, attributes)] {
            assert_eq!(node.csi(&volume).unwrap()["key"], format!("{REPO}#{hash}"));
        }
    }
    // A handle is no repository's name: without the attribute it is all of /cvmfs.
    assert_eq!(node.csi(&CsiVolume::persistent(&kubelet, REPO, &[])).unwrap()["key"], "cvmfs");
    let (code, said) =
        node.csi(&CsiVolume::persistent(&kubelet, "pv-2", &[("repositry", REPO)])).unwrap_err();
    assert_eq!(code, Code::InvalidArgument, "{said}");
    assert!(said.contains("did you mean repository?"), "{said}");
}
