//! A worker that speaks another version of the protocol, as a daemon finds it after an upgrade.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, listen,
    recv, sendmsg, socket,
};
use serde_json::{Value, json};
use supervisor::{Servant, ServeContext};
use volume::{Driver, WorkerPool};

use crate::ground::{Ground, exists, is_alive, right_content, wait_for};
use crate::memory::Memory;
use crate::nurseries::{shared_ground, start_nursery};

pub const ALL: &[(&str, fn())] = &[
    ("a_worker_of_another_version_is_replaced", a_worker_of_another_version_is_replaced),
    ("a_worker_of_another_version_serves_until_a_nursery_is_there", it_serves_until_a_nursery_is_there),
];

struct NoBackings;

impl fuse::Backings for NoBackings {
    fn open(&self, _: BorrowedFd<'_>) -> std::io::Result<u32> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    fn close(&self, _: u32) {}
}

/// `old-worker DIRECTORY`: mounts, serves, and leaves behind what a daemon of another version would have.
pub fn old_worker_main(arguments: &[String]) {
    let directory = PathBuf::from(&arguments[0]);
    let at = |name: &str| directory.join(name);
    let request = json!({
        "key": "test.example", "driver": "cvmfs", "mountpoint": at("mnt"), "payload": {}, "readable": [], "suid": false,
        "writable": [at("cache/own")], "fs_name": "test.example",
    });
    std::fs::create_dir_all(at("run/workers")).unwrap();
    std::fs::write(
        at("run/workers/test.example.json"),
        json!({"version": 1, "request": request}).to_string(),
    )
    .unwrap();
    let state = std::fs::File::create(at("run/workers/test.example.state")).unwrap();
    let connection = fuse::Connection::mount(&fuse::MountOptions::new(at("mnt"), "test.example")).unwrap();
    let given = connection.try_clone().unwrap();
    let prepared = Memory.prepare(Driver::Cvmfs, json!({}), false).unwrap();
    let context = ServeContext { connection, adopted: false, state, backings: Arc::new(NoBackings) };
    let serving = prepared.serve(context).unwrap();
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let path = at("run/workers/test.example.sock");
    bind(listener.as_raw_fd(), &UnixAddr::new(Path::new(&path)).unwrap()).unwrap();
    listen(&listener, Backlog::new(8).unwrap()).unwrap();
    std::fs::write(at("ready"), "").unwrap();
    loop {
        let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap();
        // SAFETY: accept4 has just made it, and nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        while let Some(heard) = hear(&socket) {
            let reply = match heard["request"].as_str() {
                None => json!({"version": 99, "key": "test.example", "serving": true}),
                Some("give_connection") => json!({"id": heard["id"], "reply": "connection"}),
                Some("stop") => {
                    serving.stop();
                    std::process::exit(0);
                }
                Some(other) => panic!("a daemon of another version asks {other}"),
            };
            let fds = [given.as_fd().as_raw_fd()];
            let rights = [ControlMessage::ScmRights(&fds)];
            let control = if reply["reply"] == "connection" { &rights[..] } else { &[] };
            let text = reply.to_string();
            let bytes = [IoSlice::new(text.as_bytes())];
            sendmsg::<()>(socket.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None).unwrap();
        }
    }
}

fn hear(socket: &OwnedFd) -> Option<Value> {
    let mut packet = vec![0; 4096];
    let length =
        recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()).ok().filter(|length| *length > 0)?;
    serde_json::from_slice(&packet[..length]).ok()
}

fn start_old_worker(ground: &Ground) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let worker = command.arg("old-worker").arg(ground.directory.path()).stdin(Stdio::null()).spawn().unwrap();
    wait_for("the old worker", || exists(&ground.path("ready")).then_some(()));
    worker
}

fn a_worker_of_another_version_is_replaced() {
    let ground = Ground::new();
    let mut old = start_old_worker(&ground);
    assert!(right_content(&ground.read("plain").stdout));
    let pool = ground.pool();
    assert_eq!(ground.wait_for_successor(&pool, 0).restarts, 1);
    old.wait().unwrap();
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
}

fn it_serves_until_a_nursery_is_there() {
    let ground = shared_ground();
    let mut old = start_old_worker(&ground);
    let mut config = ground.config();
    config.limits.nursery = std::time::Duration::ZERO;
    let pool = supervisor::Pool::open(config, Vec::new()).unwrap();
    assert!(ground.runtime.block_on(pool.survivors(Driver::Cvmfs))[0].alive);
    wait_for("the daemon to wait", || {
        let report = ground.report(&pool)?.ok()?;
        report.trouble.filter(|trouble| trouble.contains("waiting for the nursery"))
    });
    let pid = i32::try_from(old.id()).unwrap();
    assert!(is_alive(pid) && right_content(&ground.read("plain").stdout));
    let nursery = start_nursery(&ground);
    assert_eq!(ground.wait_for_successor(&pool, 0).restarts, 1);
    old.wait().unwrap();
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
    assert!(!ground.is_mounted());
    drop(nursery);
}
