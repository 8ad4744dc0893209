//! Garbage at the daemon's sockets.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::json;
use system_tests::daemon::Scene;
use system_tests::plugin;
use system_tests::process;
use system_tests::wait;

use crate::calm::Calm;

/// Bytes that mean nothing, the same for the same seed.
fn noise(mut seed: u64, length: usize) -> Vec<u8> {
    (0..length)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect()
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What the control socket answers to these bytes of a message; nothing when it hangs up.
fn control(socket: &Path, length: u32, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(wait::LONG)).unwrap();
    let _ = stream.write_all(&length.to_be_bytes()).and_then(|()| stream.write_all(bytes));
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(answer.get(4..).unwrap_or_default()).into_owned()
}

#[test]
fn garbage_at_the_plugin_socket_is_refused() {
    let scene = Scene::new();
    let calm = Calm::start(&scene, "");
    let socket = scene.path("plugins/cvmfs.sock");
    for seed in 1..40 {
        let length = usize::try_from(seed).unwrap() * 997;
        plugin::exchange(&socket, &noise(seed, length)).unwrap();
        plugin::exchange(&socket, &post("/VolumeDriver.Mount", &noise(seed, length))).unwrap();
    }
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"Name\":\"x.y\",\"Opts\":{}{}}}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    for body in [
        "",
        "{",
        "null",
        "[]",
        "7",
        "\"x\"",
        "{\"Name\":7}",
        "{\"Name\":null}",
        "{}",
        deep.as_str(),
        nested.as_str(),
    ] {
        let bytes = plugin::exchange(&socket, &post("/VolumeDriver.Create", body.as_bytes())).unwrap();
        // A client that closes its direction may have hung up: then no answer is one.
        if let Some(answer) = plugin::parse(&bytes) {
            assert!(answer.refusal().len() < 1000, "{answer:?}");
        }
    }
    let unknown = calm.engine("Explode", &json!({}));
    assert!(unknown.status >= 400, "{unknown:?}");
    for opts in [json!(7), json!([1]), json!({"repository": ["x"]}), json!({"proxy": {"a": 1}})] {
        let made = calm.engine("Create", &json!({"Name": "odd.example.org", "Opts": opts}));
        made.refusal();
    }
    let half = UnixStream::connect(&socket).unwrap();
    (&half).write_all(b"POST /VolumeDriver.Mount HTTP/1.1\r\nContent-Le").unwrap();
    calm.engine("List", &json!({})).success();
    drop(half);
    calm.nothing_else_is_left();
    calm.finish();
}

#[test]
fn a_body_of_ten_megabytes_is_refused_with_its_limit() {
    let scene = Scene::new();
    let calm = Calm::start(&scene, "");
    let padding = "x".repeat(10 << 20);
    for call in ["Create", "Mount", "Unmount", "Remove", "Get"] {
        let answer =
            calm.engine(call, &json!({"Name": "big.example.org", "ID": "1", "Opts": {"tag": padding}}));
        assert!(answer.refusal().contains("longer than"), "{answer:?}");
    }
    let answer = control(&scene.path("run/control.sock"), 10 << 20, padding.as_bytes());
    // A peer that closes with unread bytes may lose its answer; what comes names the limit.
    assert!(answer.is_empty() || answer.contains("limit"), "{answer}");
    calm.nothing_else_is_left();
    calm.finish();
}

#[test]
fn garbage_at_the_control_socket_is_refused() {
    let scene = Scene::new();
    let calm = Calm::start(&scene, "");
    let socket = scene.path("run/control.sock");
    for seed in 1..40 {
        let bytes = noise(seed, usize::try_from(seed).unwrap() * 997);
        plugin::exchange(&socket, &bytes).unwrap();
        let answer = control(&socket, u32::try_from(bytes.len()).unwrap(), &bytes);
        assert!(answer.contains("error") && answer.contains("read request"), "{answer}");
    }
    assert!(control(&socket, u32::MAX, b"").contains("limit"));
    assert!(control(&socket, 0, b"").contains("error"));
    // Cut short: the rest never comes.
    assert_eq!(control(&socket, 100, b"{\"op\":"), "");
    let deep = "[".repeat(100_000);
    assert!(control(&socket, 100_000, deep.as_bytes()).contains("error"));
    for text in [
        "{}",
        "{\"op\":\"explode\"}",
        "{\"op\":\"mount\"}",
        "{\"op\":\"mount\",\"name\":\"a.b\",\"target\":\"relative\"}",
    ] {
        let answer = control(&socket, u32::try_from(text.len()).unwrap(), text.as_bytes());
        assert!(answer.contains("error"), "{text}: {answer}");
    }
    // As many idle clients as there are: the next one is served.
    let idle: Vec<UnixStream> = (0..200).filter_map(|_| UnixStream::connect(&socket).ok()).collect();
    process::run(&mut calm.daemon.command(&["status"]));
    drop(idle);
    calm.nothing_else_is_left();
    calm.finish();
}
