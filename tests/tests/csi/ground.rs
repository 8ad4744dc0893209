//! A node: a site, a daemon with the driver, and a kubelet.

use std::path::Path;

use system_tests::daemon::{Daemon, Scene};
use system_tests::kubelet::Kubelet;
use system_tests::site::Site;
use system_tests::wait;

/// The repository that pods use.
pub(crate) const REPO: &str = "mini.cern.ch";

/// Paths of all mounts at or below a directory.
pub(crate) fn mounts_below(directory: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    places.filter(|place| Path::new(place).starts_with(directory)).map(str::to_owned).collect()
}

/// Whether a pod sees the repository there.
pub(crate) fn shows(target: &Path) -> bool {
    std::fs::read_dir(target).is_ok_and(|entries| entries.flatten().count() > 0)
}

/// A node of a cluster.
pub(crate) struct Node<'scene> {
    pub(crate) kubelet: Kubelet,
    pub(crate) daemon: Daemon<'scene>,
    pub(crate) site: Site,
}

impl<'scene> Node<'scene> {
    pub(crate) fn start(scene: &'scene Scene) -> Node<'scene> {
        Node::start_with(scene, &[])
    }

    pub(crate) fn start_with(scene: &'scene Scene, more: &[&str]) -> Node<'scene> {
        let site = Site::fixtures(scene);
        site.configure(scene, REPO);
        let kubelet = Kubelet::new(scene);
        let mut arguments = kubelet.arguments();
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let daemon = Daemon::start_with(scene, &arguments);
        Node { kubelet, daemon, site }
    }

    /// References of the mount with this key.
    pub(crate) fn references(&self, key: &str) -> usize {
        let mount = self.daemon.mount(key);
        mount.map_or(0, |mount| mount["references"].as_array().unwrap().len())
    }

    /// Nothing is left: no mount in kubelet's directory, none in the registry.
    pub(crate) fn is_clean(&self) {
        assert_eq!(mounts_below(self.kubelet.root()), Vec::<String>::new());
        wait::until_true("all mounts are gone", || self.daemon.mounts().is_empty());
    }
}
