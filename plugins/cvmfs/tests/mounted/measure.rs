//! Numbers for people: `cargo test --release -p cvmfs --test mounted measure -- --ignored --nocapture`.
//!
//! The memory of a worker is measured on a process of its own, as it has in real life.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::adoption::{Children, child, drop_kernel_caches, line, mount_for};
use crate::can_mount;
use crate::published::{Published, noise};

fn resident_kib(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field =
        |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    format!("{} {} {}", field("VmRSS:"), field("RssAnon:"), field("VmHWM:"))
}

fn timed(what: &str, program: &str, arguments: &[&str]) {
    let begun = Instant::now();
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status().unwrap();
    println!("{what}: {:.3} s ({status})", begun.elapsed().as_secs_f64());
}

#[test]
#[ignore = "a measurement, not a check"]
fn measure() {
    if !can_mount() {
        return;
    }
    let published = Published::new();
    for directory in 0..600 {
        for file in 0..58 {
            let path =
                format!("release-{:02}/package-{directory:03}/lib/module_{file:02}.py", directory % 12);
            published.write(&path, noise(directory * 58 + file, 700 + (file as usize * 97) % 5000));
        }
        if directory < 12 {
            published.write(&format!("release-{directory:02}/.cvmfscatalog"), "");
        }
    }
    published.publish();
    let payload = serde_json::to_vec(&published.setup().payload()).unwrap();
    let (directory, connection, watchdog) = mount_for(payload);
    let mount = watchdog.0.clone();
    let device = Stdio::from(connection.try_clone().unwrap().into_fd());
    let mut worker = Children(vec![child("worker", directory.path(), device)]);
    let begun = Instant::now();
    line(&mut worker.0[0], "SERVING").expect("the worker serves");
    println!("prepare and serve: {:.3} s", begun.elapsed().as_secs_f64());
    let pid = worker.0[0].id();
    println!("idle: {}", resident_kib(pid));
    let root = mount.to_str().unwrap();
    timed("find, catalogs cold", "find", &[root]);
    timed("find, warm", "find", &[root]);
    drop_kernel_caches();
    timed("find, kernel cold", "find", &[root]);
    timed("stat of all, warm", "find", &[root, "-newer", "/"]);
    drop_kernel_caches();
    timed("stat of all, kernel cold", "find", &[root, "-newer", "/"]);
    println!("after find: {}", resident_kib(pid));
    timed("read of all, cold", "sh", &["-c", &format!("find {root} -type f -print0 | xargs -0 cat")]);
    timed("read of all, warm", "sh", &["-c", &format!("find {root} -type f -print0 | xargs -0 cat")]);
    drop_kernel_caches();
    timed("read of all, kernel cold", "sh", &["-c", &format!("find {root} -type f -print0 | xargs -0 cat")]);
    println!("after reading all: {}", resident_kib(pid));
    println!("state file: {} bytes", Path::new(&directory.path().join("state")).metadata().unwrap().len());
}
