//! Ends of a session.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fuse::{OpenMode, Session, SessionConfig};

use crate::memory_fs::{Body, MemoryFs};
use crate::mounted::{Mounted, User};

#[test]
fn unmounting_ends_the_session() {
    let fs = Arc::new(MemoryFs::new(vec![]));
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    fs::metadata(mounted.path()).unwrap();
    mounted.unmount();
    session.wait();
    assert!(session.stop());
}

#[test]
fn aborting_ends_the_session_and_tells_its_workers() {
    let fs = Arc::new(MemoryFs::new(vec![("file", Body::Parked { size: 4096, mode: OpenMode::Direct })]));
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    let mut user = User::spawn("cat", &[], &mounted.file("file"));
    fs.await_seen("the read", |seen| !seen.parked_reads.is_empty());
    let flags = nix::mount::MntFlags::MNT_FORCE | nix::mount::MntFlags::MNT_DETACH;
    nix::mount::umount2(mounted.path(), flags).unwrap();
    assert!(!user.ends_within(Duration::from_secs(5)).unwrap().success());
    session.wait();
    fs.with_seen(|seen| assert!(seen.parked_reads.iter().all(|(_, _, reply)| reply.is_answered())));
    assert!(session.stop());
}

#[test]
fn an_idle_session_stops_at_once_and_another_goes_on() {
    let content = b"still here".to_vec();
    let body = Body::File { content: content.clone(), mode: OpenMode::Direct };
    let fs = Arc::new(MemoryFs::new(vec![("file", body)]));
    let (mounted, first) = Mounted::serve(&fs, SessionConfig::default());
    assert_eq!(fs::read(mounted.file("file")).unwrap(), content);
    let since = Instant::now();
    assert!(first.stop());
    first.wait();
    assert!(since.elapsed() < Duration::from_secs(1), "stopping took {:?}", since.elapsed());
    // A request that comes now stays in the kernel for whoever reads next.
    let mut user = User::spawn("cat", &[], &mounted.file("file"));
    assert!(user.ends_within(Duration::from_millis(50)).is_none());
    let connection = mounted.connection.try_clone().unwrap();
    let _second = Session::start(Arc::clone(&fs), connection, SessionConfig::default()).unwrap();
    assert!(user.ends_within(Duration::from_secs(5)).unwrap().success());
}

#[test]
fn stopping_waits_for_what_is_in_flight() {
    let parked = Body::Parked { size: 4096, mode: OpenMode::Direct };
    let fs = Arc::new(MemoryFs::new(vec![("file", parked)]));
    let (mounted, session) = Mounted::serve(&fs, SessionConfig::default());
    let mut user = User::spawn("cat", &[], &mounted.file("file"));
    fs.await_seen("the read", |seen| !seen.parked_reads.is_empty());
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| session.stop());
        session.wait(); // nothing is read any more, one request is out
        assert_eq!(session.in_flight(), 1);
        let (offset, size, reply) = fs.with_seen(|seen| seen.parked_reads.pop()).unwrap();
        reply.ok(MemoryFs::parked_content(offset, size, 4096));
        assert!(stopped.join().unwrap());
    });
    // `cat` got its page and asks for the next, which is for the next server.
    assert!(user.ends_within(Duration::from_millis(20)).is_none());
    let connection = mounted.connection.try_clone().unwrap();
    let mut healthy = MemoryFs::new(vec![("file", Body::Parked { size: 4096, mode: OpenMode::Direct })]);
    healthy.healthy = true;
    let _second = Session::start(Arc::new(healthy), connection, SessionConfig::default()).unwrap();
    assert!(user.ends_within(Duration::from_secs(5)).unwrap().success());
}
