use std::os::unix::net::UnixListener;
use std::thread;

use super::*;

fn socket() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    (directory, path)
}

/// Reads one message.
fn heard(stream: &mut UnixStream) -> String {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut json = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut json).unwrap();
    String::from_utf8(json).unwrap()
}

fn said(stream: &mut UnixStream, json: &str) {
    stream.write_all(&u32::try_from(json.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(json.as_bytes()).unwrap();
}

#[test]
fn nobody_there_is_unreachable_and_says_what_to_do() {
    let (_directory, path) = socket();
    let missing = Daemon::greet(&path, PATIENCE).unwrap_err();
    assert!(matches!(missing, ClientError::Unreachable { .. }));
    drop(UnixListener::bind(&path).unwrap());
    let refused = Daemon::greet(&path, PATIENCE).unwrap_err().to_string();
    assert!(refused.contains(path.to_str().unwrap()) && refused.contains("start it"), "{refused}");
}

#[test]
fn a_daemon_that_accepts_and_says_nothing_is_unreachable_in_time() {
    let (_directory, path) = socket();
    let _listener = UnixListener::bind(&path).unwrap();
    let silent = Daemon::greet(&path, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(silent, ClientError::Unreachable { .. }), "{silent}");
}

#[test]
fn answers_refusals_and_ends_are_told_apart() {
    let (_directory, path) = socket();
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        assert_eq!(heard(&mut stream), r#"{"op":"hello"}"#);
        // A daemon that does not know the greeting.
        said(
            &mut stream,
            r#"{"error":{"kind":"invalid_argument","op":"read","subject":"","retry":"never","detail":"x"}}"#,
        );
        assert_eq!(heard(&mut stream), r#"{"op":"flexvolume-keep"}"#);
        said(&mut stream, r#"{"ok":null}"#);
        heard(&mut stream);
        said(
            &mut stream,
            r#"{"error":{"kind":"not_found","op":"mount","subject":"y","retry":"never","detail":"gone"}}"#,
        );
        heard(&mut stream);
        said(&mut stream, "nonsense");
        heard(&mut stream);
        stream
    });
    let mut daemon = Daemon::greet(&path, PATIENCE).unwrap();
    let mut ask = || daemon.ask(&Question::FlexvolumeKeep, Duration::from_secs(60));
    ask().unwrap();
    assert_eq!(ask().unwrap_err().to_string(), "mount y: gone");
    assert!(matches!(ask().unwrap_err(), ClientError::Broken { .. }));
    let late = daemon.ask(&Question::FlexvolumeKeep, Duration::from_millis(50)).unwrap_err();
    let unsure = daemon.confirm(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(unsure, ClientError::Broken { .. }), "{unsure}");
    assert!(matches!(late, ClientError::Late(_)), "{late}");
    drop(server.join().unwrap());
    let ended = daemon.ask(&Question::FlexvolumeKeep, Duration::from_secs(60)).unwrap_err();
    assert!(matches!(ended, ClientError::Broken { .. }), "{ended}");
}
