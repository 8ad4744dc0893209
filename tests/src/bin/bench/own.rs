//! Rows that only volplane has: mounting from the cache, the Docker socket, opens in flight, memory.

use std::fs;
use std::path::Path;
use std::process::Command;

use system_tests::daemon::{Daemon, Scene};
use system_tests::process::{self, Running};
use system_tests::site::Site;
use system_tests::wait;

use crate::rows::{Bench, Figures};
use crate::subject::{REPO, Volplane, connection, docker_call, mount, of_process, unmount};
use crate::work;

/// Measures them all.
pub(crate) fn measure(bench: &Bench, volplane: &Volplane<'_>, site: &Site) -> Result<Figures, String> {
    let mut figures = Figures::new();
    let mut outcome = Ok(());
    volplane.with_daemon(&mut |scene, daemon| {
        outcome = memory(bench, scene, daemon, &mut figures)
            .and_then(|()| attach(bench, scene, daemon, &mut figures))
            .and_then(|()| docker(bench, scene, &mut figures));
    });
    outcome?;
    let mut outcome = Ok(());
    volplane.with_daemon(&mut |scene, daemon| outcome = opens(bench, scene, daemon, site, &mut figures));
    outcome.map(|()| figures)
}

/// The Docker socket's rows alone.
pub(crate) fn docker_alone(bench: &Bench, volplane: &Volplane<'_>) -> Result<Figures, String> {
    let mut figures = Figures::new();
    let mut outcome = Ok(());
    volplane.with_daemon(&mut |scene, _| outcome = docker(bench, scene, &mut figures));
    outcome.map(|()| figures)
}

/// Megabytes (10^6 bytes) that `/proc/PID/status` gives in KiB.
fn megabytes(pid: u32, name: &str) -> Result<f64, String> {
    of_process(pid, name)
        .map(|kib| kib as f64 * 1024.0 / 1e6)
        .ok_or_else(|| format!("{name} of {pid} is not known"))
}

fn worker(daemon: &Daemon<'_>) -> Result<u32, String> {
    daemon
        .worker(REPO)
        .and_then(|pid| u32::try_from(pid).ok())
        .ok_or_else(|| "the mount has no worker".to_owned())
}

fn memory(bench: &Bench, scene: &Scene, daemon: &Daemon<'_>, figures: &mut Figures) -> Result<(), String> {
    let target = scene.path("tree");
    mount(daemon, &target);
    let pid = worker(daemon)?;
    figures.insert("memory-idle", megabytes(pid, "VmRSS")?);
    figures.insert("memory-private", megabytes(pid, "RssAnon")?);
    bench.run("read", &target.join("small"), 8)?;
    bench.run("stream", &target.join("large/data"), 128 * 1024)?;
    bench.run("stat", &target, 1)?;
    figures.insert("memory-read", megabytes(pid, "VmRSS")?);
    figures.insert("memory-peak", megabytes(pid, "VmHWM")?);
    figures.insert("memory-daemon", megabytes(daemon.pid(), "VmRSS")?);
    unmount(daemon, &target);
    Ok(())
}

fn attach(bench: &Bench, scene: &Scene, daemon: &Daemon<'_>, figures: &mut Figures) -> Result<(), String> {
    let target = scene.path("again");
    for _ in 0..bench.sizes.repeats.max(3) {
        let milliseconds = mount(daemon, &target);
        least(figures, "mount-cached", milliseconds);
        fs::metadata(&target).map_err(|error| error.to_string())?;
        unmount(daemon, &target);
    }
    Ok(())
}

fn docker(bench: &Bench, scene: &Scene, figures: &mut Figures) -> Result<(), String> {
    let socket = scene.path("plugins/cvmfs.sock");
    let name = |id: &str| format!(r#"{{"Name":"{REPO}","ID":"{id}"}}"#);
    docker_call(&socket, "Create", &format!(r#"{{"Name":"{REPO}","Opts":{{}}}}"#))?;
    for round in 0..bench.sizes.repeats.max(3) {
        let first = format!("first-{round}");
        let (milliseconds, _) = docker_call(&socket, "Mount", &name(&first))?;
        least(figures, "docker-attach", milliseconds);
        for number in 0..20 {
            let id = format!("second-{number}");
            let (milliseconds, _) = docker_call(&socket, "Mount", &name(&id))?;
            least(figures, "docker-mount", milliseconds);
            docker_call(&socket, "Unmount", &name(&id))?;
        }
        docker_call(&socket, "Unmount", &name(&first))?;
    }
    Ok(())
}

fn least(figures: &mut Figures, key: &'static str, milliseconds: f64) {
    let best = figures.get(key).map_or(milliseconds, |old| old.min(milliseconds));
    figures.insert(key, best);
}

/// Thousands of opens while the server is stopped; then it goes on, and they must all end well.
fn opens(
    bench: &Bench,
    scene: &Scene,
    daemon: &Daemon<'_>,
    site: &Site,
    figures: &mut Figures,
) -> Result<(), String> {
    let (target, log) = (scene.path("tree"), scene.path("log/opens"));
    mount(daemon, &target);
    let pid = worker(daemon)?;
    // Catalogs and names are here, contents are not.
    bench.run("stat", &target.join("small"), 1)?;
    let connection = connection(&target).ok_or("the mount is not in the mount table")?;
    let control = scene.path("fusectl");
    fs::create_dir_all(&control).map_err(|error| error.to_string())?;
    process::run(Command::new("mount").args(["-t", "fusectl", "none"]).arg(&control));
    let waiting = control.join(connection).join("waiting");
    let own = std::env::current_exe().map_err(|error| error.to_string())?;

    site.freeze();
    let mut command = Command::new(own);
    command.args(["work", "open"]).arg(target.join("small")).arg(bench.sizes.opens.to_string());
    let mut running = Running::start(command.env(work::NAMES, &bench.names), &log);
    let (mut most, mut threads) = (0, 0);
    let begun = std::time::Instant::now();
    while begun.elapsed().as_millis() < 3000 && most < bench.sizes.opens {
        most = most.max(number_in(&waiting));
        threads = threads.max(of_process(pid, "Threads").unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    threads = threads.max(of_process(pid, "Threads").unwrap_or(0));
    site.thaw();
    wait::until_true("the opens end", || running.ended().is_some());
    let text = fs::read_to_string(&log).unwrap_or_default();
    let figure = work::Figure::parse(&text).ok_or_else(|| format!("opens: {text}"))?;
    figures.insert("opens", most as f64);
    figures.insert("opens-threads", threads as f64);
    figures.insert("opens-good", figure.count as f64);
    unmount(daemon, &target);
    Ok(())
}

/// The number of requests that wait for an answer on a FUSE connection, as fusectl says it.
fn number_in(path: &Path) -> usize {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
