//! Lives and deaths of workers and daemons, with real processes and real mounts.
//!
//! Without the standard harness: this binary is also the worker (first argument `worker`), which must have one thread
//! when it begins, and a daemon that can be killed (first argument `daemon`).

#![allow(unreachable_pub, missing_docs, clippy::unwrap_used)] // one test binary, read by its authors

mod container;
mod ground;
mod hostile;
mod memory;
mod nurseries;
mod releases;
mod stories;
mod versions;

use std::sync::Arc;

use nix::unistd::{Gid, Uid};
use supervisor::WorkerUser;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("worker") => {
            let number = |at: usize| arguments[at].parse::<u32>().unwrap();
            let user = (arguments.len() > 7)
                .then(|| WorkerUser { uid: Uid::from_raw(number(5)), gid: Gid::from_raw(number(7)) });
            supervisor::worker_main(Arc::new(memory::Memory), user).unwrap();
        }
        Some("knock") => hostile::knock(&arguments[2..]),
        Some("old-worker") => versions::old_worker_main(&arguments[2..]),
        Some("nursery") => nurseries::nursery_main(&arguments[2..]),
        Some("daemon") => stories::daemon_main(&arguments[2..]),
        _ => run(&arguments[1..]),
    }
}

fn all() -> impl Iterator<Item = &'static (&'static str, fn())> {
    stories::ALL.iter().chain(nurseries::ALL).chain(releases::ALL).chain(hostile::ALL).chain(versions::ALL)
}

/// The stories whose name contains the first argument that is no option.
fn run(arguments: &[String]) {
    if !Uid::effective().is_root() {
        println!("skipped: mounting needs root");
        return;
    }
    if arguments.iter().any(|argument| argument == "--list") {
        all().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with("--"));
    let chosen: Vec<_> =
        all().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))).collect();
    let mut failed = Vec::new();
    for (name, story) in &chosen {
        let result = std::panic::catch_unwind(story);
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        if result.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:?}");
    println!("{} passed", chosen.len());
}
