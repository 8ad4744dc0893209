//! The tests.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::json;
use volume::{Driver, FaultKind, WorkerPool};

use crate::ground::{Ground, exists, is_alive, kill, right_content, status_line, wait_for};

pub const ALL: &[(&str, fn())] = &[
    ("a_mount_is_served_and_taken_down_without_a_trace", a_mount_is_served_and_taken_down_without_a_trace),
    ("a_worker_has_no_privileges", a_worker_has_no_privileges),
    ("a_worker_cannot_reach_beyond_its_cache", a_worker_cannot_reach_beyond_its_cache),
    ("a_refusal_of_the_worker_reaches_the_caller_and_leaves_nothing", a_refusal_leaves_nothing),
    ("a_killed_worker_is_replaced_and_its_unanswered_reads_are_answered", a_killed_worker_is_replaced),
    ("a_crash_loop_ends_in_errors_at_once_and_the_mount_can_be_made_anew", a_crash_loop_ends),
    ("a_stopped_worker_is_replaced_while_requests_wait", a_stopped_worker_is_replaced),
    ("a_mount_in_use_is_not_taken_down", a_mount_in_use_is_not_taken_down),
    ("an_unmount_by_others_ends_the_worker", an_unmount_by_others_ends_the_worker),
    ("the_next_pool_adopts_the_worker_of_a_killed_daemon", the_next_pool_adopts),
    ("a_hung_worker_of_a_killed_daemon_is_replaced", a_hung_worker_of_a_killed_daemon),
    ("daemon_and_worker_dead_without_a_store_are_cleaned_away", both_dead_without_a_store),
    ("files_are_passed_through_also_after_a_new_daemon", files_are_passed_through),
];

fn a_mount_is_served_and_taken_down_without_a_trace() {
    let ground = Ground::new();
    let pool = ground.pool();
    let report = ground.launch(&pool, json!({}));
    assert_eq!(report.revision.as_deref(), Some("adopted false"));
    assert!(right_content(&ground.read("plain").stdout));
    let refresh = ground.runtime.block_on(pool.refresh(&Ground::key()));
    assert_eq!(refresh.unwrap_err().kind, FaultKind::Unavailable);
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted() && !is_alive(report.pid));
    assert!(ground.report(&pool).is_none());
    assert_eq!(std::fs::read_dir(ground.path("run/workers")).unwrap().count(), 0);
    ground.stop(&pool).unwrap();
}

fn a_worker_has_no_privileges() {
    let ground = Ground::new();
    let pool = ground.pool();
    let pid = ground.launch(&pool, json!({})).pid;
    let uid = ground.config().user.unwrap().uid.to_string();
    assert_eq!(status_line(pid, "Uid:"), [uid.as_str(); 4].join(" "));
    assert_eq!(status_line(pid, "Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status_line(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_line(pid, "NoNewPrivs:"), "1");
    assert_eq!(status_line(pid, "Seccomp:"), "2");
    assert_eq!(std::fs::metadata(ground.path("cache/own")).unwrap().uid().to_string(), uid);
    assert_eq!(std::fs::metadata(ground.path("cache/own")).unwrap().mode() & 0o7777, 0o700);
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("PATH="));
    ground.stop(&pool).unwrap();
}

fn a_worker_cannot_reach_beyond_its_cache() {
    let ground = Ground::new();
    let pool = ground.pool();
    let open = ground.path("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::write(open.join("readable"), "x").unwrap();
    let request = ground.request(json!({"probe": open}));
    let can = ground.runtime.block_on(pool.launch(request)).unwrap_err().detail;
    if has_landlock() {
        assert_eq!(can, "thread resolve");
    } else {
        println!("skipped in part: this kernel has no Landlock");
        assert_eq!(can, "write-elsewhere read-elsewhere thread resolve");
    }
}

fn has_landlock() -> bool {
    let features = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    features.contains("landlock_create_ruleset")
}

fn a_refusal_leaves_nothing() {
    let ground = Ground::new();
    let pool = ground.pool();
    let fault = ground.runtime.block_on(pool.launch(ground.request(json!({"refuse": true})))).unwrap_err();
    assert_eq!((fault.kind, fault.detail.as_str()), (FaultKind::Untrusted, "this payload is refused"));
    assert!(!ground.is_mounted() && ground.report(&pool).is_none());
    assert_eq!(std::fs::read_dir(ground.path("run/workers")).unwrap().count(), 0);
}

fn a_killed_worker_is_replaced() {
    let ground = Ground::new();
    let pool = ground.pool();
    let first = ground.launch(&pool, json!({}));
    let stuck = ground.reader("stuck");
    wait_for("a waiting request", || (ground.read("plain").status.success()).then_some(()));
    kill(first.pid);
    let second = ground.wait_for_successor(&pool, first.pid);
    assert_eq!((second.restarts, second.revision.as_deref()), (1, Some("adopted true")));
    let output = stuck.wait_with_output().unwrap();
    assert!(output.status.success() && right_content(&output.stdout), "{output:?}");
    for round in 2..6 {
        let pid = ground.report(&pool).unwrap().unwrap().pid;
        let reader = ground.reader("plain");
        kill(pid);
        let output = reader.wait_with_output().unwrap();
        assert!(output.status.success() && right_content(&output.stdout), "round {round}");
        let report = ground.wait_for_successor(&pool, pid);
        assert_eq!(report.restarts, round);
        assert!(report.last_error.unwrap().contains("signal 9"));
    }
    ground.stop(&pool).unwrap();
}

fn a_crash_loop_ends() {
    let ground = Ground::new();
    let pool = ground.pool();
    let first = ground.launch(&pool, json!({"die_offline": true}));
    let stuck = ground.reader("stuck");
    kill(first.pid);
    let fault = wait_for("the end of the crash loop", || ground.report(&pool).and_then(Result::err));
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert!(fault.detail.contains("given up after"), "{fault}");
    assert!(!stuck.wait_with_output().unwrap().status.success());
    let began = std::time::Instant::now();
    assert!(!ground.read("plain").status.success());
    assert!(began.elapsed() < std::time::Duration::from_secs(1));
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
    ground.launch(&pool, json!({}));
    assert!(right_content(&ground.read("plain").stdout));
    // A request that kills whoever reads it is a crash loop as well.
    assert!(!ground.read("deadly").status.success());
    wait_for("the end of the second crash loop", || ground.report(&pool).and_then(Result::err));
    ground.stop(&pool).unwrap();
}

fn a_stopped_worker_is_replaced() {
    let ground = Ground::new();
    let pool = ground.pool();
    let first = ground.launch(&pool, json!({}));
    let pid = nix::unistd::Pid::from_raw(first.pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let output = ground.read("plain");
    assert!(right_content(&output.stdout), "{:?}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(ground.wait_for_successor(&pool, first.pid).restarts, 1);
    ground.stop(&pool).unwrap();
}

fn a_mount_in_use_is_not_taken_down() {
    let ground = Ground::new();
    let pool = ground.pool();
    ground.launch(&pool, json!({}));
    let mut user = Command::new("sleep").arg("60").current_dir(ground.mountpoint()).spawn().unwrap();
    assert_eq!(ground.stop(&pool).unwrap_err().kind, FaultKind::InUse);
    assert!(right_content(&ground.read("plain").stdout));
    user.kill().unwrap();
    user.wait().unwrap();
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn an_unmount_by_others_ends_the_worker() {
    let ground = Ground::new();
    let pool = ground.pool();
    let report = ground.launch(&pool, json!({}));
    host::mount::unmount(&ground.mountpoint()).unwrap();
    wait_for("the end of the worker", || (!is_alive(report.pid)).then_some(()));
    wait_for("the pool to notice", || ground.report(&pool).is_none().then_some(()));
    assert_eq!(std::fs::read_dir(ground.path("run/workers")).unwrap().count(), 0);
}

fn the_next_pool_adopts() {
    let ground = Ground::new();
    let mut daemon = start_daemon(&ground, "{}");
    let worker = worker_of(&ground);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(right_content(&ground.read("plain").stdout));
    let pool = ground.pool();
    let survivors = ground.runtime.block_on(pool.survivors(Driver::Cvmfs));
    assert_eq!(survivors.len(), 1);
    assert!(survivors[0].alive && survivors[0].mountpoint == ground.mountpoint());
    assert_eq!(ground.report(&pool).unwrap().unwrap().pid, worker);
    kill(worker);
    ground.wait_for_successor(&pool, worker);
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn a_hung_worker_of_a_killed_daemon() {
    let ground = Ground::new();
    let mut daemon = start_daemon(&ground, "{}");
    let worker = worker_of(&ground);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let pid = nix::unistd::Pid::from_raw(worker);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let reader = ground.reader("plain");
    let pool = ground.pool();
    assert!(right_content(&reader.wait_with_output().unwrap().stdout));
    assert!(!is_alive(worker));
    ground.wait_for_successor(&pool, worker);
    ground.stop(&pool).unwrap();
}

fn both_dead_without_a_store() {
    let ground = Ground::new();
    let mut daemon = start_daemon(&ground, "{}");
    let worker = worker_of(&ground);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    kill(worker);
    wait_for("the worker's end", || (!is_alive(worker)).then_some(()));
    assert!(ground.is_mounted());
    let pool = ground.pool();
    let survivors = ground.runtime.block_on(pool.survivors(Driver::Cvmfs));
    assert!(survivors.len() == 1 && !survivors[0].alive);
    assert!(!ground.is_mounted());
    ground.launch(&pool, json!({}));
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
}

fn files_are_passed_through() {
    let ground = Ground::new();
    let backing = ground.path("cache/own/backing");
    std::fs::create_dir(ground.path("cache/own")).unwrap();
    std::fs::write(&backing, vec![b'B'; crate::memory::SIZE as usize]).unwrap();
    let user = ground.config().user.unwrap();
    nix::unistd::chown(&backing, Some(user.uid), Some(user.gid)).unwrap();
    let payload = json!({"backing": backing}).to_string();
    let mut daemon = start_daemon(&ground, &payload);
    let passed = |when: &str| {
        let output = ground.read("backed");
        assert!(output.stdout.len() as u64 == crate::memory::SIZE, "{when}: {output:?}");
        assert!(output.stdout.iter().all(|byte| *byte == b'B'), "{when}: read by the worker");
    };
    passed("at first");
    let worker = worker_of(&ground);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(!ground.read("backed").status.success(), "nobody can register while no daemon runs");
    let pool = ground.pool();
    passed("with a new daemon");
    kill(worker);
    ground.wait_for_successor(&pool, worker);
    passed("with a new worker");
    ground.stop(&pool).unwrap();
}

/// A daemon in a process of its own that has launched its mount.
pub fn start_daemon(ground: &Ground, payload: &str) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["daemon", ground.directory.path().to_str().unwrap(), payload]).stdin(Stdio::null());
    let daemon = command.spawn().unwrap();
    wait_for("the daemon's mount", || exists(&ground.path("ready")).then_some(()));
    daemon
}

pub fn worker_of(ground: &Ground) -> i32 {
    std::fs::read_to_string(ground.path("ready")).unwrap().trim().parse().unwrap()
}

/// `daemon DIRECTORY PAYLOAD [NURSERY]`: launches the mount, writes its pid to `ready`, takes the mount down when
/// there is a file `stop`, and waits to be killed.
pub fn daemon_main(arguments: &[String]) {
    let mut ground = Ground::new();
    let directory = PathBuf::from(&arguments[0]);
    // Below the story's own directory, because this process is killed and removes nothing.
    let unused = tempfile::TempDir::with_prefix_in("unused", &directory).unwrap();
    drop(std::mem::replace(&mut ground.directory, unused));
    let at = |name: &str| directory.join(name);
    let mut config = ground.config();
    config.run_dir = at("run");
    config.nursery = arguments.get(2).map(Into::into);
    let mut request = ground.request(serde_json::from_str(&arguments[1]).unwrap());
    request.mountpoint = at("mnt");
    request.writable = vec![at("cache/own")];
    let pool = supervisor::Pool::open(config, Vec::new()).unwrap();
    ground.runtime.block_on(pool.survivors(Driver::Cvmfs));
    let launched = ground.runtime.block_on(pool.launch(request)).unwrap();
    std::fs::write(at("ready.new"), launched.report.pid.to_string()).unwrap();
    std::fs::rename(at("ready.new"), at("ready")).unwrap();
    while !exists(&at("stop")) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    ground.runtime.block_on(pool.stop(&Ground::key(), &at("mnt"))).unwrap();
    std::fs::write(at("stopped"), "").unwrap();
    loop {
        std::thread::park();
    }
}
