//! Against a kubelet's side of the protocol.

use proto::pluginregistration::registration_client::RegistrationClient;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::*;
use crate::dial;

/// Kubelet's patience in these tests.
const LONG: Duration = Duration::from_secs(60);

/// Waits for the socket and answers as a client of it.
async fn found(socket: &Path) -> RegistrationClient<tonic::transport::Channel> {
    let until = Instant::now() + LONG;
    loop {
        match dial::try_connect(socket).await {
            Ok(channel) => return RegistrationClient::new(channel),
            Err(error) => assert!(Instant::now() < until, "no registration socket: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the socket is another one than this.
async fn made_anew(socket: &Path, old: (u64, u64)) {
    let until = Instant::now() + LONG;
    while inode(socket).map_or(true, |now| now == old) {
        assert!(Instant::now() < until, "the socket was not made anew");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_socket_is_made_anew_after_a_refusal_and_when_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let registration = Registration {
        name: "cvmfs.csi.cern.ch".parse().unwrap(),
        endpoint: "/var/lib/kubelet/plugins/cvmfs.csi.cern.ch/csi.sock".into(),
        directory: directory.path().to_owned(),
    };
    let socket = registration.socket();
    assert_eq!(socket, directory.path().join("cvmfs.csi.cern.ch-reg.sock"));
    // What an earlier life left.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let keeping = tokio::spawn(registration.keep(async move {
        let _ = stopped.await;
    }));

    let mut kubelet = found(&socket).await;
    let info = kubelet.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "cvmfs.csi.cern.ch"));
    assert_eq!(info.endpoint, "/var/lib/kubelet/plugins/cvmfs.csi.cern.ch/csi.sock");
    assert_eq!(info.supported_versions, ["1.0.0"]);

    let refused = RegistrationStatus { plugin_registered: false, error: "NodeGetInfo failed".into() };
    let first = inode(&socket).unwrap();
    kubelet.notify_registration_status(refused).await.unwrap();
    made_anew(&socket, first).await;

    let mut kubelet = found(&socket).await;
    kubelet.get_info(InfoRequest {}).await.unwrap();
    let registered = RegistrationStatus { plugin_registered: true, error: String::new() };
    kubelet.notify_registration_status(registered).await.unwrap();

    let second = inode(&socket).unwrap();
    std::fs::remove_file(&socket).unwrap();
    // A file in its place, so that the inode's number is not given to the next socket.
    std::fs::write(directory.path().join("other"), "").unwrap();
    made_anew(&socket, second).await;
    found(&socket).await.get_info(InfoRequest {}).await.unwrap();

    stop.send(()).unwrap();
    keeping.await.unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_kubelet_that_is_not_there_yet_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let registration = Registration {
        name: "cvmfs.csi.cern.ch".parse().unwrap(),
        endpoint: "/csi.sock".into(),
        directory: directory.path().join("plugins_registry"),
    };
    let socket = registration.socket();
    let keeping = tokio::spawn(registration.keep(std::future::pending()));
    std::fs::create_dir(directory.path().join("plugins_registry")).unwrap();
    found(&socket).await.get_info(InfoRequest {}).await.unwrap();
    keeping.abort();
}

/// Kubelet dials the socket's path, and its gRPC library makes of that an authority that is none.
#[tokio::test]
async fn kubelets_own_form_of_a_call_is_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let directory = tempfile::tempdir().unwrap();
    let registration = Registration {
        name: "cvmfs.csi.cern.ch".parse().unwrap(),
        endpoint: "/x/csi.sock".into(),
        directory: directory.path().to_owned(),
    };
    let socket = registration.socket();
    let keeping = tokio::spawn(registration.keep(std::future::pending()));
    found(&socket).await;
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let mut block = vec![0x83, 0x86];
    let literal = |block: &mut Vec<u8>, name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap());
        block.extend_from_slice(value.as_bytes());
    };
    literal(&mut block, &[0x45], "/pluginregistration.Registration/GetInfo");
    literal(&mut block, &[0x41], "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fcvmfs.csi.cern.ch-reg.sock");
    literal(&mut block, &[0x5f], "application/grpc");
    literal(&mut block, b"\x40\x02te", "trailers");
    let mut call = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0".to_vec();
    call.extend([u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1]);
    call.extend(block);
    call.extend(b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0");
    stream.write_all(&call).await.unwrap();
    let mut answer = Vec::new();
    let answered = async {
        while !answer.windows(9).any(|part| part == b"CSIPlugin") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "hung up: {answer:?}");
        }
    };
    tokio::time::timeout(LONG, answered).await.expect("no answer");
    keeping.abort();
}
