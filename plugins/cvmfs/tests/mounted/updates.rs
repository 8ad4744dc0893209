//! A new revision reaches a live mount, and disturbs nobody who has something open.

use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::can_mount;
use crate::harness::wait_until;
use crate::published::{Published, names, noise};

fn content(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

#[test]
fn an_update_changes_what_changed_and_keeps_what_is_open() {
    if !can_mount() {
        return;
    }
    let published = Published::new();
    published.write("same", "same");
    published.write("changed", "one");
    published.write("removed", "gone soon");
    published.write("mode", "m");
    published.write("large", noise(1, 300 << 10));
    published.write("chunked", noise(2, 2 << 20));
    published.write("sub/.cvmfscatalog", "");
    published.write("sub/deep/file", "deep one");
    for n in 0..500 {
        published.write(&format!("many/name-{n:04}"), "x");
    }
    published.publish();
    let mounted = published.setup().mount().unwrap();
    let at = |path: &str| mounted.join(path);

    // Seen, and so cached by the kernel: names, absent names, attributes, a listing.
    assert_eq!(content(&at("changed")).unwrap(), b"one");
    assert_eq!(content(&at("sub/deep/file")).unwrap(), b"deep one");
    assert!(!at("added").exists() && !at("sub/deep/added").exists());
    let before =
        ["same", "sub", "sub/deep", "mode", "changed"].map(|path| at(path).metadata().unwrap().ino());
    assert_eq!(names(&at("sub/deep")), ["file"]);
    let mut open =
        ["changed", "removed", "large", "chunked"].map(|path| std::fs::File::open(at(path)).unwrap());
    let mut first = [0; 1];
    open[3].read_exact(&mut first).unwrap();
    let mut listing = std::fs::read_dir(at("many")).unwrap();
    let mut listed: Vec<String> = Vec::new();
    for _ in 0..10 {
        listed.push(listing.next().unwrap().unwrap().file_name().into_string().unwrap());
    }

    published.write("changed", "two, longer");
    published.write("added", "new");
    published.write("sub/deep/file", "deep two");
    published.write("sub/deep/added", "new, too");
    published.write("large", noise(3, 300 << 10));
    published.write("chunked", noise(4, 2 << 20));
    published.write("many/name-zzzz", "x");
    std::fs::remove_file(published.tree().join("removed")).unwrap();
    std::fs::remove_file(published.tree().join("many/name-0000")).unwrap();
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(published.tree().join("mode"), private).unwrap();
    let revision = published.publish();
    mounted.serving.refresh().unwrap();
    assert!(mounted.serving.report().revision.unwrap().contains(&format!("revision {revision} ")));

    // The new revision shows, names that were absent too.
    wait_until("the new content", || content(&at("changed")).as_deref() == Some(b"two, longer"));
    wait_until("the added file", || content(&at("added")).as_deref() == Some(b"new"));
    wait_until("the removed file", || !at("removed").exists());
    wait_until("a changed file in a nested catalog", || {
        content(&at("sub/deep/file")).as_deref() == Some(b"deep two")
    });
    wait_until("an added file in a nested catalog", || at("sub/deep/added").exists());
    wait_until("the mode", || at("mode").metadata().unwrap().mode() & 0o777 == 0o600);
    wait_until("the new listing", || names(&at("sub/deep")) == ["added", "file"]);
    wait_until("large content", || content(&at("large")).unwrap() == noise(3, 300 << 10));
    wait_until("chunked content", || content(&at("chunked")).unwrap() == noise(4, 2 << 20));
    // The same inodes where only other things changed; another one for other content.
    let after = ["same", "sub", "sub/deep", "mode", "changed"].map(|path| at(path).metadata().unwrap().ino());
    assert_eq!(before[..4], after[..4]);
    assert_ne!(before[4], after[4]);

    // What was open is as it was.
    let old = [b"one".to_vec(), b"gone soon".to_vec(), noise(1, 300 << 10), noise(2, 2 << 20)];
    for (file, old) in open.iter_mut().zip(old) {
        let mut content = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut content).unwrap();
        assert_eq!(content, old);
    }
    for entry in listing {
        listed.push(entry.unwrap().file_name().into_string().unwrap());
    }
    listed.sort();
    let old: Vec<String> = (0..500).map(|n| format!("name-{n:04}")).collect();
    assert_eq!(listed, old);
}

#[test]
fn a_server_that_is_gone_leaves_the_last_revision_and_a_trouble() {
    if !can_mount() {
        return;
    }
    let mut published = Published::new();
    published.write("file", "content");
    published.write("cold", "never read");
    published.publish();
    let mut setup = published.setup();
    setup.deadline = std::time::Duration::from_secs(3);
    let mounted = setup.mount().unwrap();
    assert_eq!(content(&mounted.join("file")).unwrap(), b"content");
    published.server = None;
    mounted.serving.refresh().unwrap_err();
    assert!(mounted.serving.report().trouble.is_some());
    assert_eq!(content(&mounted.join("file")).unwrap(), b"content");
    let begun = std::time::Instant::now();
    let error = std::fs::read(mounted.join("cold")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    drop(mounted);
    // A new mount of what was verified.
    let mounted = setup.mount().unwrap();
    assert_eq!(content(&mounted.join("file")).unwrap(), b"content");
    assert!(mounted.serving.report().trouble.is_some());
}

#[test]
fn a_server_that_says_nothing_holds_nobody_up() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    if !can_mount() {
        return;
    }
    let mut published = Published::new();
    published.write("warm", "warm");
    published.write("cold", "cold");
    published.write("colder", "colder");
    published.publish();
    let mut setup = published.setup();
    setup.deadline = Duration::from_secs(3);
    let mounted = setup.mount().unwrap();
    assert_eq!(content(&mounted.join("warm")).unwrap(), b"warm");
    // From here on the server takes connections and never answers.
    let address = published.server.take().unwrap().address();
    let mut silent = None;
    wait_until("the port is free", || {
        silent = std::net::TcpListener::bind(address).ok();
        silent.is_some()
    });
    let begun = Instant::now();
    let mut reader = Command::new("cat").arg(mounted.join("cold")).stderr(Stdio::null()).spawn().unwrap();
    // Others go on meanwhile.
    assert_eq!(content(&mounted.join("warm")).unwrap(), b"warm");
    assert!(mounted.join("cold").metadata().unwrap().is_file());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    // A signal ends it at once.
    wait_until("the reader waits", || {
        let waiting = mounted.serving.report().details["waiting_requests"].clone();
        waiting != "0"
    });
    let begun = Instant::now();
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    // Without a signal, the deadline does.
    let begun = Instant::now();
    let status = Command::new("cat").arg(mounted.join("colder")).stderr(Stdio::null()).status().unwrap();
    assert!(!status.success());
    assert!(begun.elapsed() < Duration::from_millis(4500), "{:?}", begun.elapsed());
    drop(silent);
}
