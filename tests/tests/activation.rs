//! Socket activation as systemd does it: the engine's first call starts the daemon and is answered by it.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use system_tests::daemon::{Scene, binary};
use system_tests::process::{self, Running};
use system_tests::wait;

#[test]
fn the_first_call_on_an_inherited_socket_is_answered() {
    let activate = Path::new("/usr/bin/systemd-socket-activate");
    if !activate.exists() {
        let test = "activation: the_first_call_on_an_inherited_socket_is_answered";
        return process::skip(test, "systemd-socket-activate is not installed (package systemd)");
    }
    let scene = Scene::new();
    let socket = scene.path("plugins/activated.sock");
    let mut command = Command::new(activate);
    command.arg("-l").arg(&socket).arg("--fdname=docker-cvmfs").arg(binary()).arg("serve");
    for (flag, part) in [
        ("--run-dir", "run"),
        ("--state-dir", "state"),
        ("--docker-socket-dir", "plugins"),
        ("--cvmfs-config-dir", "etc"),
        ("--cvmfs-cache-dir", "cache"),
    ] {
        command.arg(flag).arg(scene.path(part));
    }
    let _daemon = Running::start(&mut command, &scene.path("log/activated"));
    let mut stream = wait::until("the socket listens", || UnixStream::connect(&socket).ok());
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let call = "POST /Plugin.Activate HTTP/1.1\r\nHost:\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(call.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("VolumeDriver"), "{answer}\n{}", scene.log("activated"));
    assert!(!scene.path("plugins/cvmfs.sock").exists(), "no second socket is made beside the inherited one");
}
