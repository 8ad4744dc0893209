//! Mounts that are taken down while a mount namespace that nobody here can see goes on using them.

use std::process::{Command, Output};

use serde_json::json;
use supervisor::Pool;
use volume::{Driver, Released, WorkerPool};

use crate::container::Container;
use crate::ground::{Ground, exists, is_alive, kill, right_content, wait_for};
use crate::stories;

pub const ALL: &[(&str, fn())] = &[
    ("a_mount_held_elsewhere_is_served_until_it_is_let_go", a_mount_held_elsewhere),
    ("the_next_daemon_finds_a_mount_that_is_held_elsewhere", the_next_daemon_finds_it),
    ("a_mount_held_by_an_open_file_is_served_until_it_is_closed", held_by_an_open_file),
];

/// A container that has bound the mount and nothing else of it.
fn hold(ground: &Ground) -> Container {
    std::fs::create_dir_all(ground.path("held")).unwrap();
    let script = format!(
        "mount --bind {mnt} {held}; umount {mnt}; touch {holding}; exec sleep 600",
        mnt = ground.mountpoint().display(),
        held = ground.path("held").display(),
        holding = ground.path("holding").display(),
    );
    let container = Container::start("private", &script);
    wait_for("the container's bind", || exists(&ground.path("holding")).then_some(()));
    container
}

/// Reads a file in the container.
fn read_in(container: &Container, ground: &Ground) -> Output {
    let pid = container.first().unwrap().to_string();
    let mut command = Command::new("nsenter");
    command.args(["-m", "-t", &pid, "timeout", "-s", "KILL", "20", "cat"]);
    command.arg(ground.path("held/plain")).output().unwrap()
}

fn released(ground: &Ground, pool: &Pool) -> Vec<Released> {
    ground.runtime.block_on(pool.released())
}

fn files(ground: &Ground) -> usize {
    std::fs::read_dir(ground.path("run/workers")).unwrap().count()
}

fn served_again(ground: &Ground, pool: &Pool, restarts: u64) -> Released {
    wait_for("a new worker", || {
        let found = released(ground, pool).into_iter().next()?;
        (found.worker_pid.is_some() && found.restarts == restarts).then_some(found)
    })
}

fn a_mount_held_elsewhere() {
    let ground = Ground::new();
    let pool = ground.pool();
    let first = ground.launch(&pool, json!({})).pid;
    let mut container = hold(&ground);
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted() && ground.report(&pool).is_none());
    let held = released(&ground, &pool);
    assert_eq!((held.len(), held[0].worker_pid), (1, Some(first)));
    assert_eq!(held[0].key, Ground::key());
    assert!(right_content(&read_in(&container, &ground).stdout));
    // Key and mountpoint are free.
    let second = ground.launch(&pool, json!({})).pid;
    assert_ne!(first, second);
    assert!(right_content(&ground.read("plain").stdout));
    // It is looked after like any other.
    kill(first);
    let again = served_again(&ground, &pool, 1);
    assert!(right_content(&read_in(&container, &ground).stdout));
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted() && !is_alive(second));
    assert!(right_content(&read_in(&container, &ground).stdout));
    container.kill();
    wait_for("the end of the mount", || released(&ground, &pool).is_empty().then_some(()));
    wait_for("the worker's end", || (!is_alive(again.worker_pid.unwrap())).then_some(()));
    assert_eq!(files(&ground), 0);
}

fn the_next_daemon_finds_it() {
    let ground = Ground::new();
    let mut daemon = stories::start_daemon(&ground, "{}");
    let worker = stories::worker_of(&ground);
    let mut container = hold(&ground);
    std::fs::write(ground.path("stop"), "").unwrap();
    wait_for("the daemon to take the mount down", || exists(&ground.path("stopped")).then_some(()));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(right_content(&read_in(&container, &ground).stdout));
    let pool = ground.pool();
    assert!(ground.runtime.block_on(pool.survivors(Driver::Cvmfs)).is_empty());
    let held = released(&ground, &pool);
    assert_eq!((held.len(), held[0].worker_pid), (1, Some(worker)));
    ground.launch(&pool, json!({}));
    kill(worker);
    served_again(&ground, &pool, 1);
    assert!(right_content(&read_in(&container, &ground).stdout));
    container.kill();
    wait_for("the end of the mount", || released(&ground, &pool).is_empty().then_some(()));
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
    assert_eq!(files(&ground), 0);
}

fn held_by_an_open_file() {
    let ground = Ground::new();
    let pool = ground.pool();
    ground.launch(&pool, json!({}));
    let script = format!("exec 3<{0}/plain; touch {1}; read line; cat <&3", "$0", "$1");
    let mut reader = Command::new("sh")
        .args(["-c", &script])
        .args([ground.mountpoint(), ground.path("holding")])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the open file", || exists(&ground.path("holding")).then_some(()));
    // Somebody has unmounted it lazily, so the kernel does not call it busy.
    host::mount::detach(&ground.mountpoint()).unwrap();
    ground.stop(&pool).unwrap();
    assert_eq!(released(&ground, &pool).len(), 1);
    drop(reader.stdin.take());
    let output = reader.wait_with_output().unwrap();
    assert!(right_content(&output.stdout));
    wait_for("the end of the mount", || released(&ground, &pool).is_empty().then_some(()));
    wait_for("its files to go", || (files(&ground) == 0).then_some(()));
}
