//! The server as engines meet it: raw HTTP over a unix socket.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use volume::fake::FakeService;
use volume::{Fault, FaultKind, Frontend, RefId};

use super::*;

struct Plugin {
    service: Arc<FakeService>,
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Plugin {
    fn start() -> Plugin {
        Plugin::start_with(ServerConfig::default())
    }

    fn start_with(config: ServerConfig) -> Plugin {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cvmfs.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let service = Arc::new(FakeService::default());
        let server = Server::new(service.clone(), Driver::Cvmfs, config);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.serve(listener, async move {
            let _ = stopped.await;
        }));
        Plugin { service, socket, stop: Some(stop), task, _dir: dir }
    }

    /// Sends raw bytes on a new connection and reads until the peer closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut out = Vec::new();
        let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut out)).await.unwrap();
        String::from_utf8(out).unwrap()
    }

    /// One call as Docker 20.10 sends it; answers status and body.
    async fn call(&self, method: &str, body: &str) -> (u16, Value) {
        self.call_as("", method, body).await
    }

    async fn call_as(&self, host: &str, method: &str, body: &str) -> (u16, Value) {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        stream.write_all(post(host, method, body).as_bytes()).await.unwrap();
        receive(&mut stream).await
    }
}

fn post(host: &str, method: &str, body: &str) -> String {
    format!(
        "POST /{method} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\r\n{body}",
        body.len()
    )
}

/// Reads one response with Content-Length.
async fn receive(stream: &mut UnixStream) -> (u16, Value) {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned))
                .unwrap()
                .parse()
                .unwrap();
            if body.len() >= length {
                let code = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (code, serde_json::from_str(body).unwrap());
            }
        }
        let mut chunk = [0; 4096];
        let read = timeout(Duration::from_secs(20), stream.read(&mut chunk)).await.unwrap().unwrap();
        assert!(read > 0, "closed before the whole answer: {text:?}");
        bytes.extend_from_slice(&chunk[..read]);
    }
}

#[tokio::test]
async fn a_volume_lives_through_the_calls_of_docker_run() {
    let plugin = Plugin::start();
    let (code, body) = plugin.call("Plugin.Activate", "").await;
    assert_eq!((code, &body["Implements"]), (200, &json!(["VolumeDriver"])));
    let (_, body) = plugin.call("VolumeDriver.Capabilities", "{}\n").await;
    assert_eq!(body["Capabilities"]["Scope"], "local");
    let name = "{\"Name\":\"cms.cern.ch\"}\n";
    let (code, body) = plugin.call("VolumeDriver.Get", name).await;
    assert_eq!(code, 500);
    assert!(body["Err"].as_str().unwrap().contains("cms.cern.ch"));
    let create = "{\"Name\":\"cms.cern.ch\",\"Opts\":null}\n";
    assert_eq!(plugin.call("VolumeDriver.Create", create).await.0, 200);
    let (code, body) = plugin.call("VolumeDriver.Mount", "{\"Name\":\"cms.cern.ch\",\"ID\":\"ab\"}\n").await;
    assert_eq!((code, &body["Mountpoint"]), (200, &json!("/run/fake/cms.cern.ch")));
    let (_, body) = plugin.call("VolumeDriver.Get", name).await;
    assert_eq!(body["Volume"]["Mountpoint"], "/run/fake/cms.cern.ch");
    assert_eq!(body["Volume"]["CreatedAt"], "2026-01-02T03:04:05Z");
    let (_, body) = plugin.call("VolumeDriver.Path", name).await;
    assert_eq!(body["Mountpoint"], "/run/fake/cms.cern.ch");
    let (code, body) = plugin.call("VolumeDriver.Remove", name).await;
    assert_eq!(code, 500, "in use: {body}");
    let unmount = "{\"Name\":\"cms.cern.ch\",\"ID\":\"ab\"}\n";
    assert_eq!(plugin.call("VolumeDriver.Unmount", unmount).await.0, 200);
    assert_eq!(plugin.call("VolumeDriver.Unmount", unmount).await.0, 200, "twice is success");
    let (_, body) = plugin.call("VolumeDriver.List", "").await;
    assert_eq!(body["Volumes"][0]["Name"], "cms.cern.ch");
    assert_eq!(plugin.call("VolumeDriver.Remove", name).await.0, 200);
}

#[tokio::test]
async fn one_connection_carries_many_calls() {
    let plugin = Plugin::start();
    let mut stream = UnixStream::connect(&plugin.socket).await.unwrap();
    for _ in 0..3 {
        stream.write_all(post("", "VolumeDriver.List", "{}\n").as_bytes()).await.unwrap();
        assert_eq!(receive(&mut stream).await.0, 200);
    }
}

#[tokio::test]
async fn podman_is_known_by_its_host_header() {
    let plugin = Plugin::start();
    plugin.call_as("plugin", "VolumeDriver.Create", r#"{"Name":"a.cern.ch"}"#).await;
    let (code, _) = plugin.call_as("plugin", "VolumeDriver.Mount", r#"{"Name":"a.cern.ch","ID":"2f"}"#).await;
    assert_eq!(code, 200);
    let expected = RefId { frontend: Frontend::Podman, scope: "a.cern.ch".into(), id: "2f".into() };
    assert!(plugin.service.inner.lock().references.contains(&expected));
}

#[tokio::test]
async fn errors_are_500_with_a_text() {
    let plugin = Plugin::start();
    let fault = Fault::new(FaultKind::Untrusted, "verify whitelist of", "a.cern.ch", "it expired");
    plugin.service.inner.lock().acquire_fault = Some(fault);
    plugin.call("VolumeDriver.Create", r#"{"Name":"a.cern.ch"}"#).await;
    for (method, body, part) in [
        ("VolumeDriver.Mount", r#"{"Name":"a.cern.ch","ID":"1"}"#, "it expired"),
        ("VolumeDriver.Mount", r#"{"Name":"","ID":"1"}"#, "empty"),
        ("VolumeDriver.Get", r#"{"Name":""}"#, "empty"),
        ("VolumeDriver.Create", r#"{"Name":"../x"}"#, "not allowed"),
        ("VolumeDriver.Create", r#"{"Name":"b.cern.ch","Opts":{"tga":"1"}}"#, "tga"),
        ("VolumeDriver.Create", "{", "JSON"),
        ("VolumeDriver.Format", "{}", "no call"),
    ] {
        let (code, answer) = plugin.call(method, body).await;
        let text = answer["Err"].as_str().unwrap();
        assert_eq!(code, 500, "{method} {body}");
        assert!(text.contains(part), "{method} {body}: {text}");
    }
    assert!(plugin.service.inner.lock().references.is_empty());
}

#[tokio::test]
async fn null_options_do_not_overwrite() {
    let plugin = Plugin::start();
    let with = r#"{"Name":"v","Opts":{"repository":"a.cern.ch"}}"#;
    assert_eq!(plugin.call("VolumeDriver.Create", with).await.0, 200);
    assert_eq!(plugin.call("VolumeDriver.Create", r#"{"Name":"v","Opts":null}"#).await.0, 200);
    let name = "v".parse().unwrap();
    assert_eq!(plugin.service.inner.lock().volumes[&name]["repository"], "a.cern.ch");
}

#[tokio::test]
async fn garbage_and_huge_bodies_disturb_nobody() {
    let plugin = Plugin::start();
    assert!(plugin.raw(b"\x00\xff\x16\x03garbage\r\n\r\n").await.contains("400"));
    let huge = "x".repeat(10 << 20);
    let answer = plugin.raw(post("", "VolumeDriver.Create", &huge).as_bytes()).await;
    assert!(answer.is_empty() || answer.contains("longer than"), "{answer:?}");
    assert_eq!(plugin.call("VolumeDriver.List", "{}").await.0, 200);
}

#[tokio::test]
async fn a_body_that_never_arrives_is_given_up() {
    let config = ServerConfig { receive_limit: Duration::from_millis(50), ..ServerConfig::default() };
    let plugin = Plugin::start_with(config);
    let mut stream = UnixStream::connect(&plugin.socket).await.unwrap();
    stream
        .write_all(b"POST /VolumeDriver.Get HTTP/1.1\r\nHost:\r\nContent-Length: 10\r\n\r\n{")
        .await
        .unwrap();
    let (code, answer) = receive(&mut stream).await;
    assert_eq!(code, 500);
    assert!(answer["Err"].as_str().unwrap().contains("did not arrive"));
}

#[tokio::test]
async fn activate_answers_while_a_mount_hangs_and_shutdown_is_bounded() {
    let config = ServerConfig { drain_limit: Duration::from_millis(50), ..ServerConfig::default() };
    let mut plugin = Plugin::start_with(config);
    plugin.call("VolumeDriver.Create", r#"{"Name":"a.cern.ch"}"#).await;
    plugin.service.inner.lock().acquire_delay = Duration::from_secs(3600);
    let mut hanging = UnixStream::connect(&plugin.socket).await.unwrap();
    let mount = post("", "VolumeDriver.Mount", r#"{"Name":"a.cern.ch","ID":"1"}"#);
    hanging.write_all(mount.as_bytes()).await.unwrap();
    assert_eq!(plugin.call("Plugin.Activate", "").await.0, 200);
    plugin.stop.take().unwrap().send(()).unwrap();
    timeout(Duration::from_secs(20), plugin.task).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn podman_hears_an_answer_before_its_five_seconds_are_over() {
    let service = Arc::new(FakeService::default());
    let calls = Calls { service: service.clone(), driver: Driver::Cvmfs };
    let body = |text: &str| Body::parse(text.as_bytes()).unwrap();
    calls.answer(Call::Create, Frontend::Podman, body(r#"{"Name":"a.cern.ch"}"#)).await.unwrap();
    service.inner.lock().acquire_delay = Duration::from_secs(3600);
    let begun = tokio::time::Instant::now();
    let answer = calls.answer(Call::Mount, Frontend::Podman, body(r#"{"Name":"a.cern.ch","ID":"1"}"#)).await;
    assert!(answer.is_err());
    assert!(begun.elapsed() < Duration::from_secs(5));
}
