//! A server is killed, the next one goes on, and those who wait notice only the delay.

use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::memory_fs::MemoryFs;
use crate::mounted::{Mounted, User};
use crate::roles::{self, FILE_BYTES, Server};

const MOMENT: Duration = Duration::from_millis(20);

fn mounted_with_resend() -> Option<Mounted> {
    let mounted = Mounted::new();
    let resend = mounted.connection.negotiated().unwrap().resend;
    if !resend {
        eprintln!("skipped: this kernel has no FUSE_NOTIFY_RESEND");
    }
    resend.then_some(mounted)
}

#[test]
fn requests_in_flight_survive_their_server_twice() {
    let Some(mounted) = mounted_with_resend() else { return };
    let directory = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let from = mounted.file(name);
        User::spawn("cp", &[from.to_str().unwrap()], &directory.path().join(name))
    };
    let mut first = Server::start(&mounted.connection, "stuck");
    let mut users = vec![copy("direct")];
    first.await_parked(1);
    users.push(copy("cached"));
    first.await_parked(1);
    users.push(User::spawn("cat", &[], &mounted.file("lookup")));
    first.await_parked(1);
    first.kill();
    let mut second = Server::start(&mounted.connection, "stuck+resend");
    second.await_parked(3);
    assert!(users.iter_mut().all(|user| user.ends_within(MOMENT).is_none()));
    second.kill();
    // The third gets what was resent once already, and something new.
    users.push(User::spawn("cat", &[], &mounted.file("direct")));
    let third = Server::start(&mounted.connection, "healthy+resend");
    for mut user in users {
        let status = user.ends_within(Duration::from_secs(10)).expect("ends");
        assert!(status.success(), "{status:?}: {}", user.complaint());
    }
    let expected = MemoryFs::parked_content(0, FILE_BYTES as u32, FILE_BYTES);
    for name in ["direct", "cached"] {
        assert!(std::fs::read(directory.path().join(name)).unwrap() == expected, "{name}");
    }
    third.kill();
}

#[test]
fn a_resent_request_can_be_interrupted() {
    let Some(mounted) = mounted_with_resend() else { return };
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        let mut first = Server::start(&mounted.connection, "stuck");
        let mut user = User::spawn("cat", &[], &mounted.file("direct"));
        first.await_parked(1);
        first.kill();
        let mut second = Server::start(&mounted.connection, "stuck+resend");
        second.await_parked(1);
        assert!(user.ends_within(MOMENT).is_none());
        user.signal(signal);
        assert!(user.ends_within(Duration::from_secs(2)).is_some(), "{signal}");
        second.kill();
    }
}

#[test]
fn a_process_killed_while_there_is_no_server_is_set_free_by_the_next() {
    let Some(mounted) = mounted_with_resend() else { return };
    // Also without resending, as on old kernels: the successor does not know the request and answers in its name.
    for next in ["stuck+resend", "stuck"] {
        let mut first = Server::start(&mounted.connection, "stuck");
        let mut user = User::spawn("cat", &[], &mounted.file("direct"));
        first.await_parked(1);
        first.kill();
        user.signal(Signal::SIGKILL);
        assert!(user.ends_within(MOMENT).is_none(), "the kernel waits for a server");
        let second = Server::start(&mounted.connection, next);
        assert!(user.ends_within(Duration::from_secs(5)).is_some(), "{next}");
        second.kill();
    }
}

#[test]
fn a_listing_goes_on_after_its_server_died() {
    let mounted = Mounted::new();
    let first = Server::start(&mounted.connection, "many");
    let mut lister = roles::slow_lister(&mounted.file("many"));
    let mut lines = BufReader::new(lister.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "first rows read"));
    first.kill();
    let second = Server::start(&mounted.connection, "many+resend");
    lister.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let rows = lines.find(|line| line.starts_with("rows")).expect("a count");
    assert_eq!(rows, "rows 3000 names 3000");
    assert!(lister.wait().unwrap().success());
    second.kill();
}

#[test]
fn servers_killed_again_and_again_are_not_noticed() {
    const SCRIPT: &str = r#"
        for round in 1 2 3; do
            cmp "$1/direct" "$0" || exit 11
            test "$(ls -l "$1/many" | wc -l)" = 3001 || exit 12
            test "$(cat "$1/many/file-00017")" = x || exit 13
            test "$(find "$1/many" -name 'file-*7' | wc -l)" = 300 || exit 14
        done"#;
    let Some(mounted) = mounted_with_resend() else { return };
    let reference = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(reference.path(), MemoryFs::parked_content(0, FILE_BYTES as u32, FILE_BYTES)).unwrap();
    let mut server = Server::start(&mounted.connection, "restless");
    let arguments = ["-c", SCRIPT, reference.path().to_str().unwrap()];
    let mut users: Vec<_> = (0..3).map(|_| User::spawn("sh", &arguments, mounted.path())).collect();
    let (mut kills, until) = (0_u64, Instant::now() + Duration::from_secs(60));
    while !users.iter_mut().all(|user| user.0.try_wait().unwrap().is_some()) {
        assert!(Instant::now() < until, "the users hang after {kills} kills");
        // Not to wait for anything: the moments of death shall differ.
        std::thread::sleep(Duration::from_millis(20 + kills * 7919 % 60));
        server.kill();
        kills += 1;
        server = Server::start(&mounted.connection, "restless+resend");
    }
    for user in &mut users {
        let status = user.ends_within(MOMENT).unwrap();
        assert!(status.success(), "{status:?} after {kills} kills: {}", user.complaint());
    }
    eprintln!("{kills} kills");
}
