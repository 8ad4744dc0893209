//! What a nursery and a daemon do when the other side is not what it should be.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    listen, recv, send, sendmsg, socket,
};
use serde_json::json;
use volume::{FaultKind, WorkerPool};

use crate::ground::{Ground, right_content};
use crate::nurseries::{USER, shared_ground, start_nursery};

pub const ALL: &[(&str, fn())] = &[
    ("a_nursery_hears_only_root_and_starts_only_workers", a_nursery_starts_only_workers),
    ("a_daemon_trusts_no_strange_nursery", a_daemon_trusts_no_strange_nursery),
];

/// `knock SOCKET`: says what a greeted nursery answers.
pub fn knock(arguments: &[String]) {
    let answer = reach(Path::new(&arguments[0])).and_then(|socket| say(&socket, HELLO, &[]));
    println!("{}", answer.unwrap_or_default());
}

const HELLO: &str = r#"{"nursery":1}"#;

fn packets() -> OwnedFd {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

fn reach(path: &Path) -> Option<OwnedFd> {
    let socket = packets();
    connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).ok().map(|()| socket)
}

/// Sends a packet and takes the answer; `None` when the peer has closed the connection.
fn say(socket: &OwnedFd, text: &str, fds: &[i32]) -> Option<String> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &[][..] } else { &rights };
    let bytes = [IoSlice::new(text.as_bytes())];
    sendmsg::<()>(socket.as_raw_fd(), &bytes, control, MsgFlags::MSG_NOSIGNAL, None).ok()?;
    let mut answer = vec![0; 4096];
    let length =
        recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok().filter(|length| *length > 0)?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn a_nursery_starts_only_workers() {
    let ground = shared_ground();
    let nursery = start_nursery(&ground);
    let path = ground.nursery.clone().unwrap();
    let greeted = || {
        let socket = reach(&path).unwrap();
        assert!(say(&socket, HELLO, &[]).unwrap().contains(&format!("\"uid\":{USER}")));
        socket
    };
    // Its own user, as whom a worker that was taken over would come.
    let user = USER.to_string();
    let mut other = Command::new("setpriv");
    other.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    other.arg(ground.path("knocker")).arg("knock").arg(&path);
    std::fs::copy(std::env::current_exe().unwrap(), ground.path("knocker")).unwrap();
    let output = other.output().unwrap();
    assert!(output.status.success() && output.stdout == b"\n", "{output:?}");
    // What is no greeting, or no question, or one out of turn.
    assert_eq!(say(&reach(&path).unwrap(), "nonsense", &[]), None);
    for wrong in [r#""reboot""#, r#""keep""#, r#""kill""#, r#"{"start":{"token":"t"}}"#, &"x".repeat(9000)] {
        assert_eq!(say(&greeted(), wrong, &[]), None, "{wrong}");
    }
    assert_eq!(say(&greeted(), r#"{"find":{"token":"nobody"}}"#, &[]).as_deref(), Some("\"unknown\""));
    // A start needs a listening socket and a request.
    let file = std::fs::File::open("/etc/passwd").unwrap();
    let (listener, empty) = (packets(), tempfile::tempfile().unwrap());
    bind(listener.as_raw_fd(), &UnixAddr::new(&ground.path("own.sock")).unwrap()).unwrap();
    listen(&listener, Backlog::new(1).unwrap()).unwrap();
    let start = r#"{"start":{"token":"t","key":"test.example","heir_of":null}}"#;
    let (file, listener, empty) = (file.as_raw_fd(), listener.as_raw_fd(), empty.as_raw_fd());
    for fds in [&[][..], &[listener], &[file, file], &[listener, empty]] {
        let answer = say(&greeted(), start, fds).unwrap();
        assert!(answer.contains("refused"), "{fds:?}: {answer}");
    }
    // A request that is none starts a worker, which ends.
    let socket = greeted();
    let answer = say(&socket, start, &[listener, file]).unwrap();
    assert!(answer.contains("started"), "{answer}");
    let ended = say(&socket, r#""kill""#, &[]).unwrap();
    assert!(ended.contains("exited") || ended.contains("signalled"), "{ended}");
    // And it is there for the daemon.
    let pool = ground.pool();
    ground.launch(&pool, json!({}));
    assert!(right_content(&ground.read("plain").stdout));
    ground.stop(&pool).unwrap();
    drop(nursery);
}

fn a_daemon_trusts_no_strange_nursery() {
    let mut ground = Ground::new();
    ground.nursery = Some(ground.path("n.sock"));
    let listener = packets();
    bind(listener.as_raw_fd(), &UnixAddr::new(&ground.path("n.sock")).unwrap()).unwrap();
    listen(&listener, Backlog::new(8).unwrap()).unwrap();
    let pool = ground.pool();
    let welcome =
        |uid, nursery, worker| format!(r#"{{"uid":{uid},"gid":1,"nursery":{nursery},"worker":{worker}}}"#);
    for (answer, detail) in [
        (welcome(0, 1, 1), "runs as user 0 and says that its workers run as 0"),
        (welcome(USER, 2, 1), "protocol 2"),
        (welcome(USER, 1, 77), "its workers speak 77"),
    ] {
        let fault = std::thread::scope(|scope| {
            scope.spawn(|| {
                let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap();
                // SAFETY: accept4 has just made it, and nobody else owns it.
                let socket = unsafe { OwnedFd::from_raw_fd(fd) };
                recv(socket.as_raw_fd(), &mut [0; 100], MsgFlags::empty()).unwrap();
                send(socket.as_raw_fd(), answer.as_bytes(), MsgFlags::MSG_NOSIGNAL).unwrap();
                // Until the daemon closes it.
                let _ = recv(socket.as_raw_fd(), &mut [0; 100], MsgFlags::empty());
            });
            ground.runtime.block_on(pool.launch(ground.request(json!({})))).unwrap_err()
        });
        assert_eq!(fault.kind, FaultKind::Unavailable);
        assert!(fault.detail.contains(detail), "{fault}");
        assert!(!ground.is_mounted());
        assert_eq!(std::fs::read_dir(ground.path("run/workers")).unwrap().count(), 0);
    }
}
