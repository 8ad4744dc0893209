//! Daemon and nursery as two containers: PID and mount namespaces of their own, and directories that both see.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;
use supervisor::{NurseryConfig, Pool, WorkerUser};
use volume::{Driver, FaultKind, WorkerPool, WorkerReport};

use crate::container::Container;
use crate::ground::{Ground, exists, is_alive, kill, right_content, status_line, wait_for};
use crate::stories::{self, worker_of};

pub const ALL: &[(&str, fn())] = &[
    ("a_nursery_without_privileges_starts_confined_workers", a_nursery_without_privileges),
    ("a_nursery_as_root_starts_workers_of_another_user", a_nursery_as_root),
    ("workers_outlive_the_daemons_container", workers_outlive_the_daemons_container),
    ("a_worker_that_dies_while_no_daemon_runs_is_replaced_by_the_next", a_worker_that_dies_without_a_daemon),
    ("a_hung_worker_in_a_nursery_is_replaced_by_the_next_daemon", a_hung_worker_in_a_nursery),
    ("a_mount_waits_for_its_nursery", a_mount_waits_for_its_nursery),
    ("a_mount_without_a_nursery_can_be_taken_down", a_mount_without_a_nursery_can_be_taken_down),
    ("a_mount_does_not_wait_for_ever_for_its_nursery", a_mount_does_not_wait_for_ever),
    ("without_a_nursery_nothing_is_mounted", without_a_nursery_nothing_is_mounted),
    ("a_crash_loop_in_a_nursery_ends", a_crash_loop_in_a_nursery_ends),
    ("a_draining_nursery_hands_its_workers_to_the_next", a_draining_nursery),
    ("workers_of_a_nursery_that_the_daemon_never_knew_are_moved", an_unknown_nursery),
    ("forked_workers_are_moved_into_a_nursery", forked_workers_are_moved),
    ("files_are_passed_through_from_a_nursery", files_are_passed_through),
    ("a_reader_whose_signals_nobody_sees_can_be_killed", an_unseen_reader_can_be_killed),
];

/// `nursery SOCKET`: what the daemon's binary does for `volplane nursery`.
pub fn nursery_main(arguments: &[String]) {
    let config = NurseryConfig {
        socket: PathBuf::from(&arguments[0]),
        group: None,
        arguments: vec!["worker".into()],
        user: Some(WorkerUser::find(None).unwrap()),
    };
    supervisor::nursery_main(config).unwrap();
}

/// The user that the container of a nursery runs as.
pub const USER: u32 = 61_007;

/// A ground whose mounts reach other mount namespaces, and a place for the nursery's socket.
pub fn shared_ground() -> Ground {
    let mut ground = Ground::new();
    let path = ground.directory.path().to_owned();
    for arguments in [&["--bind"][..], &["--make-private"], &["--make-shared"]] {
        let mut command = Command::new("mount");
        command.args(arguments).arg(&path);
        if arguments == ["--bind"] {
            command.arg(&path);
        }
        assert!(command.status().unwrap().success());
    }
    std::fs::create_dir(ground.path("nursery")).unwrap();
    std::fs::write(ground.path("program"), "").unwrap();
    nix::unistd::chown(&ground.path("nursery"), Some(USER.into()), Some(USER.into())).unwrap();
    ground.nursery = Some(ground.path("nursery/nursery.sock"));
    ground
}

/// A nursery in a container that has a read-only root, no mount of ours, no capability, and the user [`USER`].
pub fn start_nursery(ground: &Ground) -> Container {
    let drop = format!(
        "setpriv --reuid {USER} --regid {USER} --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs"
    );
    start_nursery_as(ground, &drop)
}

fn start_nursery_as(ground: &Ground, identity: &str) -> Container {
    let (exe, at) = (std::env::current_exe().unwrap(), |name: &str| ground.path(name).display().to_string());
    let socket = ground.nursery.clone().unwrap();
    let before = inode(&socket);
    let script = format!(
        "umount -q -l {mnt} || true; mount --bind {exe} {program}; mount -o remount,bind,ro /; \
         exec {identity} {program} nursery {socket}",
        mnt = at("mnt"),
        exe = exe.display(),
        program = at("program"),
        socket = socket.display(),
    );
    let nursery = Container::start("private", &script);
    wait_for("the nursery's socket", || (inode(&socket).is_some() && inode(&socket) != before).then_some(()));
    nursery
}

fn inode(path: &std::path::Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata().ok().map(|meta| meta.ino())
}

/// A daemon in a container that has launched the mount.
fn start_daemon(ground: &Ground, payload: &str) -> Container {
    let script = format!(
        "exec {exe} daemon {dir} '{payload}' {nursery}",
        exe = std::env::current_exe().unwrap().display(),
        dir = ground.directory.path().display(),
        nursery = ground.nursery.as_ref().unwrap().display(),
    );
    let daemon = Container::start("unchanged", &script);
    wait_for("the daemon's mount", || exists(&ground.path("ready")).then_some(()));
    daemon
}

fn trouble(ground: &Ground, pool: &Pool) -> String {
    let report = ground.report(pool).and_then(Result::ok);
    report.and_then(|report| report.trouble).unwrap_or_default()
}

fn wait_for_trouble(ground: &Ground, pool: &Pool, part: &str) {
    wait_for(part, || trouble(ground, pool).contains(part).then_some(()));
}

/// Reads a file over and over and counts; any error or wrong byte ends the test.
struct Reader {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU32>,
    thread: Option<std::thread::JoinHandle<bool>>,
}

impl Reader {
    fn start(ground: &Ground) -> Reader {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, counted, file) = (stop.clone(), rounds.clone(), ground.file("plain"));
        let read = move || {
            while !stopped.load(Ordering::SeqCst) {
                // In a process of its own: this one makes children, which must not inherit a file of the mount.
                let output =
                    Command::new("timeout").args(["-s", "KILL", "20", "cat"]).arg(&file).output().unwrap();
                if !output.status.success() || !right_content(&output.stdout) {
                    eprintln!(
                        "the reader saw {:?} {}",
                        output.status,
                        String::from_utf8_lossy(&output.stderr)
                    );
                    return false;
                }
                counted.fetch_add(1, Ordering::SeqCst);
            }
            true
        };
        let reader = Reader { stop, rounds, thread: Some(std::thread::spawn(read)) };
        reader.go_on();
        reader
    }

    /// Waits for a whole round that begins from now on.
    fn go_on(&self) {
        let seen = self.rounds.load(Ordering::SeqCst);
        let ended = || self.thread.as_ref().is_none_or(std::thread::JoinHandle::is_finished);
        wait_for("the reader", || (ended() || self.rounds.load(Ordering::SeqCst) > seen + 1).then_some(()));
        assert!(!ended(), "the reader failed");
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        assert!(self.thread.take().unwrap().join().unwrap());
    }
}

fn successor(ground: &Ground, pool: &Pool, restarts: u64) -> WorkerReport {
    wait_for("a new worker", || {
        ground
            .report(pool)
            .and_then(Result::ok)
            .filter(|report| report.pid != 0 && report.restarts >= restarts)
    })
}

fn assert_confined(pid: i32, user: u32) {
    assert_eq!(status_line(pid, "Uid:"), [user.to_string().as_str(); 4].join(" "));
    assert_eq!(status_line(pid, "Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(status_line(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(status_line(pid, "NoNewPrivs:"), "1");
    assert_eq!(status_line(pid, "Seccomp:"), "2");
}

fn a_nursery_without_privileges() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let ground = shared_ground();
    let mut nursery = start_nursery(&ground);
    let mode = std::fs::metadata(ground.nursery.as_ref().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let pool = ground.pool();
    let report = ground.launch(&pool, json!({}));
    assert_eq!(report.details["nursery"], ground.nursery.as_ref().unwrap().display().to_string());
    assert!(right_content(&ground.read("plain").stdout));
    let worker = nursery.outside(report.pid);
    assert_confined(worker, USER);
    assert_eq!(std::fs::metadata(ground.path("cache/own")).unwrap().uid(), USER);
    let parent = status_line(worker, "PPid:").parse::<i32>().unwrap();
    assert_eq!(Some(parent), nursery.first());
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
    wait_for("the worker's end", || (!is_alive(worker)).then_some(()));
    assert_eq!(std::fs::read_dir(ground.path("run/workers")).unwrap().count(), 0);
    // With no worker left the nursery ends as soon as it is asked to, and takes its socket away.
    let first = nix::unistd::Pid::from_raw(nursery.first().unwrap());
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGTERM).unwrap();
    nursery.ended_well();
    assert!(!exists(ground.nursery.as_ref().unwrap()));
}

fn a_nursery_as_root() {
    let ground = shared_ground();
    let nursery = start_nursery_as(&ground, "");
    let pool = ground.pool();
    let report = ground.launch(&pool, json!({}));
    assert_confined(nursery.outside(report.pid), WorkerUser::find(None).unwrap().uid.as_raw());
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
}

fn an_unseen_reader_can_be_killed() {
    let ground = shared_ground();
    let nursery = start_nursery(&ground);
    let daemon = start_daemon(&ground, "{}");
    // For the daemon, in whose PID namespace the mount was made, this process has no number.
    let mut reader = Command::new("cat").arg(ground.file("stuck")).stdout(Stdio::null()).spawn().unwrap();
    let waits = format!("/proc/{}/wchan", reader.id());
    let waiting = || std::fs::read_to_string(&waits).is_ok_and(|place| place.contains("request_wait"));
    wait_for("the reader to wait", || waiting().then_some(()));
    reader.kill().unwrap();
    let ended = wait_for("the reader's end", || reader.try_wait().unwrap());
    assert!(!ended.success());
    drop((daemon, nursery));
}

fn workers_outlive_the_daemons_container() {
    let ground = shared_ground();
    let nursery = start_nursery(&ground);
    let mut daemon = start_daemon(&ground, "{}");
    let worker = worker_of(&ground);
    let reader = Reader::start(&ground);
    daemon.kill();
    reader.go_on();
    assert!(is_alive(nursery.outside(worker)));
    let pool = ground.pool();
    let survivors = ground.runtime.block_on(pool.survivors(Driver::Cvmfs));
    assert!(survivors.len() == 1 && survivors[0].alive);
    let report = ground.report(&pool).unwrap().unwrap();
    assert_eq!((report.pid, report.restarts), (worker, 0));
    reader.go_on();
    // The next daemon hears of the worker's death and its cause from the nursery.
    kill(nursery.outside(worker));
    let report = successor(&ground, &pool, 1);
    assert!(report.last_error.unwrap().contains("signal 9"));
    reader.go_on();
    reader.end();
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn a_worker_that_dies_without_a_daemon() {
    let ground = shared_ground();
    let nursery = start_nursery(&ground);
    let mut daemon = start_daemon(&ground, "{}");
    let worker = nursery.outside(worker_of(&ground));
    let reader = Reader::start(&ground);
    daemon.kill();
    kill(worker);
    wait_for("the worker's end", || (!is_alive(worker)).then_some(()));
    let pool = ground.pool();
    let report = successor(&ground, &pool, 1);
    assert_eq!(report.revision.as_deref(), Some("adopted true"));
    reader.go_on();
    reader.end();
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn a_hung_worker_in_a_nursery() {
    let ground = shared_ground();
    let nursery = start_nursery(&ground);
    let mut daemon = start_daemon(&ground, "{}");
    let worker = nursery.outside(worker_of(&ground));
    daemon.kill();
    let pid = nix::unistd::Pid::from_raw(worker);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let reader = ground.reader("plain");
    let pool = ground.pool();
    assert!(right_content(&reader.wait_with_output().unwrap().stdout));
    assert!(!is_alive(worker));
    ground.stop(&pool).unwrap();
}

fn a_mount_waits_for_its_nursery() {
    let ground = shared_ground();
    let mut nursery = start_nursery(&ground);
    let pool = ground.pool();
    ground.launch(&pool, json!({}));
    let reader = Reader::start(&ground);
    let stuck = ground.reader("stuck");
    nursery.kill();
    wait_for_trouble(&ground, &pool, "waiting for the nursery");
    assert!(trouble(&ground, &pool).contains(ground.nursery.as_ref().unwrap().to_str().unwrap()));
    let refresh = ground.runtime.block_on(pool.refresh(&Ground::key())).unwrap_err();
    assert_eq!(refresh.kind, FaultKind::Unavailable);
    for round in 1..4 {
        let mut next = start_nursery(&ground);
        let report = successor(&ground, &pool, round);
        assert_eq!((report.restarts, report.revision.as_deref()), (round, Some("adopted true")));
        assert_eq!(report.trouble, None);
        reader.go_on();
        if round < 3 {
            next.kill();
        } else {
            nursery = next;
        }
    }
    let output = stuck.wait_with_output().unwrap();
    assert!(output.status.success() && right_content(&output.stdout), "{output:?}");
    reader.end();
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
    nursery.kill();
}

fn a_mount_without_a_nursery_can_be_taken_down() {
    let ground = shared_ground();
    let mut nursery = start_nursery(&ground);
    let pool = ground.pool();
    ground.launch(&pool, json!({}));
    nursery.kill();
    wait_for_trouble(&ground, &pool, "waiting for the nursery");
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted() && ground.report(&pool).is_none());
    assert_eq!(std::fs::read_dir(ground.path("run/workers")).unwrap().count(), 0);
}

fn a_mount_does_not_wait_for_ever() {
    let ground = shared_ground();
    let mut nursery = start_nursery(&ground);
    let mut config = ground.config();
    config.limits.nursery = Duration::from_millis(300);
    let pool = Pool::open(config, Vec::new()).unwrap();
    ground.launch(&pool, json!({}));
    let stuck = ground.reader("stuck");
    nursery.kill();
    let fault = wait_for("the end of waiting", || ground.report(&pool).and_then(Result::err));
    assert!(fault.detail.contains("without a nursery"), "{fault}");
    assert!(!stuck.wait_with_output().unwrap().status.success());
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn without_a_nursery_nothing_is_mounted() {
    let ground = shared_ground();
    let mut config = ground.config();
    config.limits.nursery_at_launch = Duration::from_millis(200);
    let pool = Pool::open(config, Vec::new()).unwrap();
    let fault = ground.runtime.block_on(pool.launch(ground.request(json!({})))).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable);
    let socket = ground.nursery.as_ref().unwrap().display().to_string();
    assert!(fault.detail.contains(&socket) && fault.detail.contains("volplane nursery"), "{fault}");
    assert!(!ground.is_mounted() && ground.report(&pool).is_none());
    assert_eq!(std::fs::read_dir(ground.path("run/workers")).unwrap().count(), 0);
    // It comes while a request waits for it.
    let nursery = start_nursery(&ground);
    ground.launch(&pool, json!({}));
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
    drop(nursery);
}

fn a_crash_loop_in_a_nursery_ends() {
    let ground = shared_ground();
    let nursery = start_nursery(&ground);
    let pool = ground.pool();
    let first = ground.launch(&pool, json!({"die_offline": true}));
    let stuck = ground.reader("stuck");
    kill(nursery.outside(first.pid));
    let fault = wait_for("the end of the crash loop", || ground.report(&pool).and_then(Result::err));
    assert!(fault.detail.contains("given up after") && fault.detail.contains("code 101"), "{fault}");
    assert!(!stuck.wait_with_output().unwrap().status.success());
    ground.stop(&pool).unwrap();
    ground.launch(&pool, json!({}));
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
}

fn terminate(nursery: &Container) {
    let first = nix::unistd::Pid::from_raw(nursery.first().unwrap());
    nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGTERM).unwrap();
}

fn a_draining_nursery() {
    let ground = shared_ground();
    let mut old = start_nursery(&ground);
    let pool = ground.pool();
    ground.launch(&pool, json!({}));
    let reader = Reader::start(&ground);
    terminate(&old);
    wait_for("the socket's end", || (!exists(ground.nursery.as_ref().unwrap())).then_some(()));
    reader.go_on();
    assert_eq!(ground.report(&pool).unwrap().unwrap().restarts, 0);
    let new = start_nursery(&ground);
    let report = successor(&ground, &pool, 1);
    assert_confined(new.outside(report.pid), USER);
    // Nothing is left in the old one, so it ends by itself.
    old.ended_well();
    reader.go_on();
    reader.end();
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn an_unknown_nursery() {
    let ground = shared_ground();
    let mut old = start_nursery(&ground);
    let mut daemon = start_daemon(&ground, "{}");
    let reader = Reader::start(&ground);
    daemon.kill();
    terminate(&old);
    wait_for("the socket's end", || (!exists(ground.nursery.as_ref().unwrap())).then_some(()));
    let new = start_nursery(&ground);
    let pool = ground.pool();
    let report = successor(&ground, &pool, 1);
    assert_confined(new.outside(report.pid), USER);
    old.ended_well();
    reader.go_on();
    reader.end();
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn forked_workers_are_moved() {
    let ground = shared_ground();
    let mut daemon = stories::start_daemon(&ground, "{}");
    let forked = worker_of(&ground);
    let reader = Reader::start(&ground);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let nursery = start_nursery(&ground);
    let pool = ground.pool();
    let report = successor(&ground, &pool, 1);
    assert_confined(nursery.outside(report.pid), USER);
    wait_for("the forked worker's end", || (!is_alive(forked)).then_some(()));
    reader.go_on();
    reader.end();
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn files_are_passed_through() {
    let ground = shared_ground();
    let nursery = start_nursery(&ground);
    let backing = ground.path("cache/own/backing");
    std::fs::create_dir(ground.path("cache/own")).unwrap();
    std::fs::write(&backing, vec![b'B'; crate::memory::SIZE as usize]).unwrap();
    nix::unistd::chown(&backing, Some(USER.into()), Some(USER.into())).unwrap();
    let payload = json!({"backing": backing}).to_string();
    let mut daemon = start_daemon(&ground, &payload);
    let passed = |when: &str| {
        let output = ground.read("backed");
        assert!(output.stdout.len() as u64 == crate::memory::SIZE, "{when}: {output:?}");
        assert!(output.stdout.iter().all(|byte| *byte == b'B'), "{when}: read by the worker");
    };
    passed("at first");
    daemon.kill();
    let pool = ground.pool();
    passed("with a new daemon");
    ground.stop(&pool).unwrap();
    drop(nursery);
}
