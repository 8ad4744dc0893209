//! `make bench`: volplane against a plain tree on ext4 and against the published crate `cvmfs`, in one run on one machine.
//!
//! `bench [PEER]` prints a Markdown table; progress goes to standard error. `BENCH_QUICK=1` takes small sizes, to
//! try the benchmark itself; `BENCH_ONLY=frontends` the rows of Docker and Kubernetes alone. Every row is measured several times and the best is taken: other load can only make it worse.

mod kubelet;
mod own;
mod rows;
mod subject;
mod table;
mod tree;
mod work;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use system_tests::daemon::{Scene, binary};
use system_tests::process;
use system_tests::site::Site;

use subject::{Peer, Plain, REPO, Repository, Volplane};
use tree::Sizes;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("work") => work::run(&arguments[1..]),
        Some("--help") => {
            println!("bench [PEER]\nPEER is the program cvmfs-cli of the crate cvmfs.");
            Ok(())
        }
        peer => compare(peer.map(PathBuf::from)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says on standard error what goes on.
pub(crate) fn note(text: &str) {
    eprintln!("bench: {text}");
}

/// Runs a workload in a process of its own, killed when it takes too long.
pub(crate) fn workload(arguments: &[&str], names: &Path) -> Result<work::Figure, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let seconds = work::LIMIT.as_secs().to_string();
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", &seconds]).arg(own).arg("work").args(arguments).env(work::NAMES, names);
    let output = process::output_within(&mut command, work::LIMIT + Duration::from_secs(30));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    work::Figure::parse(&text).ok_or_else(|| {
        format!("{arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    })
}

/// Drops the kernel's pages, names and inodes. Only the benchmark does this, never a test.
pub(crate) fn drop_kernel_caches() {
    let _ = Command::new("sync").status();
    if let Err(error) = fs::write("/proc/sys/vm/drop_caches", "3") {
        note(&format!("the kernel's caches cannot be dropped: {error}"));
    }
}

fn compare(peer: Option<PathBuf>) -> Result<(), String> {
    let mut sizes = if std::env::var_os("BENCH_QUICK").is_some() { Sizes::QUICK } else { Sizes::FULL };
    if let Some(repeats) = std::env::var("BENCH_REPEATS").ok().and_then(|text| text.parse().ok()) {
        sizes.repeats = repeats;
    }
    let scene = Scene::new();
    let (plain, names) = (scene.path("plain"), scene.path("names"));
    note("building the tree");
    tree::build(&plain, &names, sizes).map_err(|error| format!("the tree: {error}"))?;
    note("publishing it");
    publish(&scene, &plain);
    let site = Site::serve(&scene, scene.path("www"), "site");
    let repository = Repository {
        url: site.repository(REPO),
        key: scene.path(&format!("keys/{REPO}.pub")),
        plain,
        used: RefCell::default(),
    };

    let mut bench = rows::Bench { names, sizes };
    let volplane = Volplane(&repository);
    if std::env::var("BENCH_ONLY").is_ok_and(|part| part == "frontends") {
        let mut ours = own::docker_alone(&bench, &volplane)?;
        ours.extend(kubelet::measure(&bench, &volplane)?);
        let rows = rows::rows(&ours, &rows::Figures::new(), &rows::Figures::new(), sizes);
        print!("{}", table::markdown(&rows.into_iter().filter(|row| row.ours.is_some()).collect::<Vec<_>>()));
        return Ok(());
    }
    note("ext4");
    let plain = bench.cached(&Plain(&repository))?;
    note("volplane");
    let mut ours = bench.cold(&volplane)?;
    ours.extend(bench.cached(&volplane)?);
    ours.extend(own::measure(&bench, &volplane, &site)?);
    ours.extend(kubelet::measure(&bench, &volplane)?);
    let theirs = peer.map_or_else(rows::Figures::new, |program| {
        note("crate cvmfs");
        // Once: it takes minutes for what the others do in seconds.
        bench.sizes.repeats = 1;
        let peer = Peer { repository: &repository, program };
        let mut figures = rows::Figures::new();
        for part in [bench.cold(&peer), bench.cached(&peer)] {
            match part {
                Ok(part) => figures.extend(part),
                Err(error) => note(&format!("crate cvmfs: {error}")),
            }
        }
        figures
    });
    print!("{}", table::markdown(&rows::rows(&ours, &plain, &theirs, sizes)));
    Ok(())
}

fn publish(scene: &Scene, plain: &Path) {
    let mut command = Command::new(binary());
    command.args(["cvmfs", "publish", REPO]).arg(plain).args(["--tag", "v1", "--quiet"]);
    command.arg("--repository-dir").arg(scene.path("www/cvmfs").join(REPO));
    command.arg("--keys-dir").arg(scene.path("keys"));
    let output = process::output_within(&mut command, Duration::from_secs(900));
    assert!(output.status.success(), "publish: {}", String::from_utf8_lossy(&output.stderr));
    // A mirror has them; the crate asks for each four times within 24 seconds when it is not there.
    for name in [".cvmfs_last_snapshot", ".cvmfs_is_snapshotting"] {
        let path = scene.path("www/cvmfs").join(REPO).join(name);
        fs::write(path, "Sat Nov 21 12:00:00 UTC 2026\n").expect("the repository is ours");
    }
}
