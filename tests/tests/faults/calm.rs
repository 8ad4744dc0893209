//! The other volume: it is read all the time, and what is left at the end is nothing but it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cvmfs::publish::forge::{Forge, test_keys};
use cvmfs::publish::{CreateOptions, PublishOptions, Publisher};
use serde_json::{Value, json};
use system_tests::daemon::{Daemon, Scene};
use system_tests::plugin::{self, Answer};
use system_tests::process::{self, Running};
use system_tests::site::Site;
use system_tests::wait;

/// The repository that nothing happens to.
const CALM: &str = "calm.example.org";

/// A scene with a daemon that serves the calm volume to a reader.
pub(crate) struct Calm<'scene> {
    pub(crate) scene: &'scene Scene,
    pub(crate) daemon: Daemon<'scene>,
    reader: Running,
    worker: Option<i32>,
    _site: Site,
}

impl<'scene> Calm<'scene> {
    /// Starts all of it; the daemon reads `config` (TOML).
    pub(crate) fn start(scene: &'scene Scene, config: &str) -> Calm<'scene> {
        let source = scene.path("calm-source");
        fs::create_dir_all(source.join("directory")).unwrap();
        for number in 0..40_usize {
            let bytes: Vec<u8> = (0..number * 4999).map(|at| (at * (number + 7) / 13) as u8).collect();
            fs::write(source.join("directory").join(format!("file{number}")), bytes).unwrap();
        }
        publish_below(&scene.path("calm-www"), CALM, &source);
        let site = Site::serve(scene, scene.path("calm-www"), "calm-site");
        configure(scene, CALM, &site.repository(CALM), "");

        fs::write(scene.path("volplane.toml"), config).unwrap();
        let file = scene.path("volplane.toml").to_string_lossy().into_owned();
        let daemon = Daemon::start_with(scene, &["--config", &file]);
        let target = scene.path("calm");
        fs::create_dir_all(&target).unwrap();
        process::run(&mut daemon.command(&["mount", CALM, target.to_str().unwrap()]));
        let mut command = Command::new(env!("CARGO_BIN_EXE_reader"));
        command.arg("files").arg(&target).arg(&source).arg(scene.path("calm-stop")).arg("7");
        let reader = Running::start(&mut command, &scene.path("log/calm-reader"));
        let worker = daemon.worker(CALM);
        assert!(worker.is_some(), "{:?}", daemon.mounts());
        Calm { scene, daemon, reader, worker, _site: site }
    }

    /// `volplane mount NAME` by hand, which must fail; answers what it says.
    pub(crate) fn mount_fails(&self, name: &str) -> String {
        let output = process::output_within(&mut self.daemon.command(&["mount", name]), wait::LONG);
        assert!(!output.status.success(), "mount {name} succeeded: {output:?}");
        String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
    }

    /// `volplane mount NAME` by hand; answers where it is.
    pub(crate) fn mount(&self, name: &str) -> PathBuf {
        process::run(&mut self.daemon.command(&["mount", name])).into()
    }

    /// Takes it back and waits until the mount has gone.
    pub(crate) fn umount(&self, name: &str) {
        process::run(&mut self.daemon.command(&["umount", name]));
        self.nothing_else_is_left();
    }

    /// A call as an engine sends it.
    pub(crate) fn engine(&self, call: &str, body: &Value) -> Answer {
        plugin::call(&self.scene.path("plugins/cvmfs.sock"), call, body)
    }

    /// What an engine does for `-v NAME:/mnt`; the volume may be created, but not mounted. Answers the text of the refusal.
    pub(crate) fn engine_mount_fails(&self, name: &str) -> String {
        self.engine("Create", &json!({"Name": name, "Opts": null})).success();
        let said = self.engine("Mount", &json!({"Name": name, "ID": "c0ffee"})).refusal().to_owned();
        self.engine("Remove", &json!({"Name": name})).success();
        said
    }

    /// The reader goes on and its worker is the same; nobody else has a mount, a reference, a process or a file.
    pub(crate) fn nothing_else_is_left(&self) {
        wait::until_true("only the calm volume is left", || {
            let left = self.left();
            assert!(
                left.iter().any(|thing| thing.contains("mount calm")),
                "the calm volume is gone: {left:?}"
            );
            left.len() == 1
        });
    }

    /// What there is: mounts with their references, kernel mounts, workers, files.
    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .daemon
            .mounts()
            .iter()
            .map(|mount| format!("mount {}", mount["key"].as_str().unwrap()))
            .collect();
        let run = self.scene.path("run");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted =
            table.lines().filter(|line| line.contains(" fuse") && line.contains(run.to_str().unwrap()));
        left.extend(mounted.filter(|line| !line.contains(CALM)).map(str::to_owned));
        let workers = children(self.daemon.pid()).into_iter().filter(|pid| Some(*pid) != self.worker);
        left.extend(workers.map(|pid| format!("process {pid}: {}", command_line(pid))));
        for directory in ["run/mounts", "run/workers"] {
            left.extend(names(&self.scene.path(directory)).into_iter().filter(|name| !name.contains(CALM)));
        }
        left
    }

    /// Ends the reader, which must have read and met no error, and the calm volume is the last to go.
    pub(crate) fn finish(mut self) {
        self.undisturbed();
        fs::write(self.scene.path("calm-stop"), b"").unwrap();
        let status = self.reader.wait();
        let said = self.scene.log("calm-reader");
        assert!(
            status.success() && said.contains("done ") && !said.contains("done 0"),
            "the calm reader: {said}"
        );
        process::run(&mut self.daemon.command(&["umount", self.scene.path("calm").to_str().unwrap()]));
        wait::until_true("nothing is left", || self.daemon.mounts().is_empty());
    }

    /// The reader reads on, from the same worker.
    pub(crate) fn undisturbed(&mut self) {
        assert!(self.reader.ended().is_none(), "the calm reader: {}", self.scene.log("calm-reader"));
        assert_eq!(self.daemon.worker(CALM), self.worker);
    }
}

/// Makes a repository signed with the test keys known to the daemon.
pub(crate) fn configure(scene: &Scene, fqrn: &str, server: &str, more: &str) {
    let key = scene.path("forge.pub");
    fs::write(&key, test_keys().public_key_pem()).unwrap();
    scene.configure(fqrn, server, &key, more);
}

/// Publishes a tree as repository below the scene's `www/`.
pub(crate) fn publish(scene: &Scene, fqrn: &str, source: &Path) -> Forge {
    publish_below(&scene.path("www"), fqrn, source)
}

fn publish_below(www: &Path, fqrn: &str, source: &Path) -> Forge {
    let repository = www.join("cvmfs").join(fqrn);
    fs::create_dir_all(repository.parent().unwrap()).unwrap();
    let publisher = Publisher::create(&repository, test_keys(), &CreateOptions::new(fqrn)).unwrap();
    publisher.publish(source, &PublishOptions::default(), &()).unwrap();
    Forge::new(publisher)
}

/// A new repository below the scene's `www/`.
pub(crate) fn forge(scene: &Scene, fqrn: &str) -> Forge {
    Forge::create(&scene.path("www/cvmfs").join(fqrn), fqrn).unwrap()
}

/// Processes that the process started and that still run.
pub(crate) fn children(pid: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .flat_map(|task| {
            let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()
        })
        .collect()
}

/// How it was started.
pub(crate) fn command_line(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
