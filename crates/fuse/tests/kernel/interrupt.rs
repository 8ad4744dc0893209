//! Who waits for a request can be killed; nobody waits for ever.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuse::{NodeId, OpenMode, SessionConfig};
use nix::sys::signal::Signal;

use crate::memory_fs::{Body, MemoryFs, Seen};
use crate::mounted::{Mounted, User, eventually};
use crate::roles;

fn parked(mode: OpenMode) -> Body {
    Body::Parked { size: 1 << 20, mode }
}

/// A process that waits for `name` dies of `signal` at once.
fn dies(
    name: &str,
    body: Body,
    signal: Signal,
    waits: impl Fn(&mut Seen) -> bool,
) -> (Arc<MemoryFs>, Mounted) {
    let fs = Arc::new(MemoryFs::new(vec![(name, body)]));
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    let mut user = User::spawn("cat", &[], &mounted.file(name));
    fs.await_seen("the request", waits);
    let sent = Instant::now();
    user.signal(signal);
    let ended = user.ends_within(Duration::from_secs(10));
    let took = sent.elapsed();
    assert!(ended.is_some(), "{name} {signal}: still alive after {took:?}");
    assert!(took < Duration::from_millis(100), "{name} {signal}: took {took:?}");
    drop(session);
    (fs, mounted)
}

#[test]
fn a_reader_past_the_page_cache_dies_at_once() {
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        dies("direct", parked(OpenMode::Direct), signal, |seen| !seen.parked_reads.is_empty());
    }
}

#[test]
fn a_reader_through_the_page_cache_dies_at_once() {
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        dies("cached", parked(OpenMode::Cached), signal, |seen| !seen.parked_reads.is_empty());
    }
}

#[test]
fn who_looks_up_or_opens_dies_at_once() {
    for signal in [Signal::SIGKILL, Signal::SIGINT] {
        dies("lookup", Body::ParkedLookup, signal, |seen| !seen.parked_lookups.is_empty());
        dies("open", Body::ParkedOpen, signal, |seen| !seen.parked_opens.is_empty());
    }
}

#[test]
fn an_interrupt_tells_the_worker_and_takes_back_what_comes_late() {
    let fs = Arc::new(MemoryFs::new(vec![
        ("direct", parked(OpenMode::Direct)),
        ("lookup", Body::ParkedLookup),
        ("open", Body::ParkedOpen),
    ]));
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    let mut users: Vec<_> = ["direct", "lookup", "open"]
        .iter()
        .map(|name| User::spawn("cat", &[], &mounted.file(name)))
        .collect();
    fs.await_seen("three requests", |seen| {
        !seen.parked_reads.is_empty() && !seen.parked_lookups.is_empty() && !seen.parked_opens.is_empty()
    });
    fs.with_seen(|seen| {
        let watch = |hooked: &dyn Fn(Box<dyn FnOnce() + Send>)| {
            let fs = Arc::clone(&fs);
            hooked(Box::new(move || fs.note_cancelled()));
        };
        seen.parked_reads.iter().for_each(|(_, _, reply)| watch(&|hook| reply.on_cancel(hook)));
        seen.parked_lookups.iter().for_each(|(_, reply)| watch(&|hook| reply.on_cancel(hook)));
        seen.parked_opens.iter().for_each(|(_, reply)| watch(&|hook| reply.on_cancel(hook)));
        assert_eq!(session.in_flight(), 3);
    });
    users.iter().for_each(|user| user.signal(Signal::SIGKILL));
    fs.await_seen("three hooks", |seen| seen.cancelled == 3);
    users.iter_mut().for_each(|user| assert!(user.ends_within(Duration::from_secs(5)).is_some()));
    eventually("nothing in flight", || session.in_flight() == 0);

    // The work ends all the same, too late: nothing of it may stay.
    let (reads, lookups, opens) = fs.with_seen(|seen| {
        (
            std::mem::take(&mut seen.parked_reads),
            std::mem::take(&mut seen.parked_lookups),
            std::mem::take(&mut seen.parked_opens),
        )
    });
    for (_, size, reply) in reads {
        assert!(reply.is_answered());
        reply.ok(vec![0; size as usize]);
    }
    lookups.into_iter().for_each(|(entry, reply)| reply.ok(entry));
    opens.into_iter().for_each(|(opened, reply)| reply.ok(opened));
    fs.await_seen("forget and release", |seen| {
        seen.open_handles.is_empty() && seen.lookups.get(&NodeId(3)) == Some(&0)
    });
    // A late hook runs at once; and the mount is as good as before.
    assert_eq!(fs::metadata(mounted.file("direct")).unwrap().len(), 1 << 20);
}

#[test]
fn what_nobody_answers_expires() {
    let fs = Arc::new(MemoryFs::new(vec![
        ("direct", parked(OpenMode::Direct)),
        ("cached", parked(OpenMode::Cached)),
    ]));
    let config = SessionConfig { deadline: Duration::from_millis(200), ..SessionConfig::default() };
    let (mounted, session) = Mounted::serve(&fs, config);
    for name in ["direct", "cached", "direct"] {
        let file = File::open(mounted.file(name)).unwrap();
        let since = Instant::now();
        let error = file.read_at(&mut [0; 10], 0).unwrap_err();
        let took = since.elapsed();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(3), "{name} took {took:?}");
    }
    eventually("nothing in flight", || session.in_flight() == 0);
    fs.with_seen(|seen| assert!(seen.parked_reads.iter().all(|(_, _, reply)| reply.is_answered())));
}

/// A process with a handler reads; signals come; returns what it says in the end.
fn reads_with_handlers(signals: &[Signal], answer: bool) -> (String, Duration) {
    let fs = Arc::new(MemoryFs::new(vec![("direct", parked(OpenMode::Direct))]));
    let (mounted, _session) = Mounted::serve(&fs, SessionConfig::default());
    let mut process = User(roles::handler(&mounted.file("direct")));
    fs.await_seen("the read", |seen| !seen.parked_reads.is_empty());
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let thread = lines.find_map(|line| line.strip_prefix("thread ")?.parse::<libc::pid_t>().ok()).unwrap();
    let since = Instant::now();
    for &signal in signals {
        // SAFETY: sends a signal to a thread of a child that has not been waited for.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process.0.id(), thread, signal as libc::c_int) };
        assert_eq!(sent, 0);
        // Long enough that the session has seen it; were it not, the test would only be weaker.
        assert!(process.ends_within(Duration::from_millis(50)).is_none() || signal != Signal::SIGUSR1);
    }
    if answer {
        let (offset, size, reply) = fs.with_seen(|seen| seen.parked_reads.pop()).unwrap();
        assert!(!reply.is_answered());
        reply.ok(MemoryFs::parked_content(offset, size, 1 << 20));
    }
    assert!(process.ends_within(Duration::from_secs(10)).is_some());
    let took = since.elapsed();
    (lines.find(|line| line.starts_with("read")).unwrap_or("nothing".into()), took)
}

#[test]
fn a_signal_that_ends_nothing_disturbs_no_read() {
    let (said, _) = reads_with_handlers(&[Signal::SIGUSR1, Signal::SIGUSR1], true);
    assert_eq!(said, "read 4096");
}

#[test]
fn after_a_harmless_signal_others_still_work() {
    let (said, took) = reads_with_handlers(&[Signal::SIGUSR1, Signal::SIGINT], false);
    assert_eq!(said, format!("read failed {}", libc::EINTR), "caught, but asked to end");
    assert!(took < Duration::from_millis(500), "{took:?}");
    let (said, took) = reads_with_handlers(&[Signal::SIGUSR1, Signal::SIGKILL], false);
    assert_eq!(said, "nothing");
    assert!(took < Duration::from_millis(500), "{took:?}");
}
