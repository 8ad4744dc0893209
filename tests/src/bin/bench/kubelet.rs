//! Kubelet's rows: FlexVolume and CSI mounts of what is attached, one by one and many at once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use system_tests::csi_node::{CsiNode, CsiVolume};
use system_tests::daemon::{Daemon, Scene};
use system_tests::process;
use system_tests::wait;

use crate::note;
use crate::rows::{Bench, Figures};
use crate::subject::{REPO, Volplane};

/// Volumes of the crowd, each with a mount of its own.
const VOLUMES: usize = 50;
/// Pods that use each of them.
const PODS: usize = 10;
/// Calls that a row of one by one is the best of.
const CALLS: usize = 20;

/// Measures them all, with a daemon of their own.
pub(crate) fn measure(bench: &Bench, volplane: &Volplane<'_>) -> Result<Figures, String> {
    let mut figures = Figures::new();
    let mut outcome = Ok(());
    let settings = |scene: &Scene| {
        let file = scene.path("volplane.toml");
        let (kubelet, socket) = (scene.path("kubelet"), scene.path("csi.sock"));
        let text = format!(
            "kubelet_dir = {kubelet:?}\n[csi]\nnode_id = \"bench\"\nregister = false\n[csi.cvmfs]\nendpoint = \
             \"unix://{}\"\n",
            socket.display()
        );
        std::fs::create_dir_all(&kubelet)
            .and_then(|()| std::fs::write(&file, text))
            .expect("the scene is ours");
        vec!["--config".to_owned(), file.to_string_lossy().into_owned()]
    };
    volplane.with_settings(&settings, &mut |scene, daemon| {
        outcome = flexvolume(bench, scene, daemon, &mut figures)
            .and_then(|()| csi(bench, scene, daemon, &mut figures));
    });
    outcome.map(|()| figures)
}

fn best(figures: &mut Figures, key: &'static str, new: f64) {
    note(&format!("  {key}: {new:.3}"));
    let best = figures.get(key).map_or(new, |old| old.min(new));
    figures.insert(key, best);
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

fn gone(daemon: &Daemon<'_>) {
    wait::until_true("the mounts go with their last users", || daemon.mounts().is_empty());
}

fn flexvolume(
    bench: &Bench,
    scene: &Scene,
    daemon: &Daemon<'_>,
    figures: &mut Figures,
) -> Result<(), String> {
    let plugins = scene.path("volumeplugins");
    process::run(daemon.command(&["flexvolume", "install"]).arg("--dir").arg(&plugins));
    let driver = plugins.join("cern~cvmfs/cvmfs");
    let options =
        json!({"repository": REPO, "kubernetes.io/fsType": "", "kubernetes.io/readwrite": "ro"}).to_string();
    let target = |pod: &str| -> Result<PathBuf, String> {
        let target = scene.path("kubelet/pods").join(pod).join("volumes/cern~cvmfs/v");
        std::fs::create_dir_all(&target).map_err(|error| error.to_string())?;
        Ok(target)
    };
    let call = |arguments: &[&str]| -> Result<f64, String> {
        let begun = Instant::now();
        let output = Command::new(&driver).args(arguments).output().map_err(|error| error.to_string())?;
        let took = milliseconds(begun);
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if answer["status"] == "Success" { Ok(took) } else { Err(format!("{arguments:?}: {answer}")) }
    };
    let utf8 = |path: &Path| path.to_string_lossy().into_owned();
    let (first, second) = (utf8(&target("first")?), utf8(&target("second")?));
    for _ in 0..bench.sizes.repeats {
        call(&["mount", &first, &options])?;
        for _ in 0..CALLS {
            std::fs::create_dir_all(&second).map_err(|error| error.to_string())?;
            best(figures, "flexvolume-mount", call(&["mount", &second, &options])?);
            best(figures, "flexvolume-unmount", call(&["unmount", &second])?);
        }
        call(&["unmount", &first])?;
        std::fs::create_dir_all(&first).map_err(|error| error.to_string())?;
        gone(daemon);
    }
    Ok(())
}

fn csi(bench: &Bench, scene: &Scene, daemon: &Daemon<'_>, figures: &mut Figures) -> Result<(), String> {
    let node = CsiNode::connect(&scene.path("csi.sock"));
    let kubelet = scene.path("kubelet");
    let target = |volume: &str, pod: usize| {
        kubelet.join(format!("pods/pod-{pod}/volumes/kubernetes.io~csi/{volume}/mount"))
    };
    let said = |status: tonic::Status| format!("{:?}: {}", status.code(), status.message());

    let volume = CsiVolume::persistent(&kubelet, "one", &[("repository", REPO)]);
    for _ in 0..bench.sizes.repeats {
        let begun = Instant::now();
        node.stage(&volume).map_err(said)?;
        best(figures, "csi-attach", milliseconds(begun));
        for pod in 0..CALLS {
            let target = target("one", pod);
            let begun = Instant::now();
            node.publish(&volume, &target).map_err(said)?;
            best(figures, "csi-publish", milliseconds(begun));
            node.unpublish(&volume, &target).map_err(said)?;
        }
        node.unstage(&volume).map_err(said)?;
        gone(daemon);
    }

    // A parameter of its own gives each a mount of its own.
    let volumes: Vec<CsiVolume> = (0..VOLUMES)
        .map(|number| {
            let ttl = (number + 1).to_string();
            CsiVolume::persistent(&kubelet, &format!("v{number}"), &[("repository", REPO), ("max_ttl", &ttl)])
        })
        .collect();
    let mut uses = Vec::new();
    for pod in 0..PODS {
        for volume in &volumes {
            uses.push((volume.clone(), target(&volume.id, pod)));
        }
    }
    for _ in 0..bench.sizes.repeats {
        let begun = Instant::now();
        node.stage_all(&volumes).map_err(said)?;
        best(figures, "csi-crowd-stage", begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        node.publish_all(&uses).map_err(said)?;
        best(figures, "csi-crowd-publish", begun.elapsed().as_secs_f64());
        let mounts = daemon.mounts().len();
        if mounts != VOLUMES {
            return Err(format!("{mounts} mounts for {VOLUMES} volumes"));
        }
        let begun = Instant::now();
        node.unpublish_all(&uses).map_err(said)?;
        best(figures, "csi-crowd-unpublish", begun.elapsed().as_secs_f64());
        for volume in &volumes {
            node.unstage(volume).map_err(said)?;
        }
        gone(daemon);
    }
    Ok(())
}
