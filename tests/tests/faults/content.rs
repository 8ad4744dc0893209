//! Content that is not what it should be, below a mount that is good otherwise.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cvmfs::publish::forge::CASES;
use system_tests::daemon::Scene;
use system_tests::process;
use system_tests::site::Site;
use system_tests::wait;

use crate::calm::{Calm, configure, forge, publish};

const PAGE: usize = 4096;

fn cat(path: &Path) -> Output {
    process::output_within(Command::new("cat").arg(path), wait::LONG)
}

fn is_input_output_error(output: &Output) -> bool {
    !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("Input/output error")
}

/// Where an object with this hash is in a repository's directory.
fn object(repository: &Path, hash: &[u8], suffix: &str) -> PathBuf {
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    repository.join("data").join(&hex[..2]).join(format!("{}{suffix}", &hex[2..]))
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn tampered_objects_are_errors_exactly_where_they_are() {
    const REPO: &str = "tampered.example.org";
    let scene = Scene::new();
    let source = scene.path("source");
    fs::create_dir_all(&source).unwrap();
    for name in ["good1", "bad", "good2"] {
        fs::write(source.join(name), name.repeat(9000)).unwrap();
    }
    let mut seed = 1_u32;
    let big: Vec<u8> = (0..40 << 20)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        })
        .collect();
    fs::write(source.join("big"), &big).unwrap();
    let repository = publish(&scene, REPO, &source);
    let image = repository.root().unwrap();
    let root = scene.path("www/cvmfs").join(REPO);
    let bad = image.rows.iter().find(|row| row.name == b"bad").unwrap();
    flip(&object(&root, bad.hash.as_ref().unwrap(), ""));
    let chunks = &image.chunks;
    assert!(chunks.len() >= 3, "{} chunks", chunks.len());
    let sick = &chunks[chunks.len() / 2];
    flip(&object(&root, &sick.hash, "P"));

    let site = Site::serve(&scene, scene.path("www"), "site");
    configure(&scene, REPO, &site.repository(REPO), "");
    let calm = Calm::start(&scene, "");
    let at = calm.mount(REPO);
    for name in ["good1", "bad", "good2", "bad", "good1"] {
        let read = cat(&at.join(name));
        if name == "bad" {
            assert!(is_input_output_error(&read), "{:?} {:?}", read.status, read.stderr);
            assert!(read.stdout.is_empty(), "{} bytes of a tampered file", read.stdout.len());
        } else {
            assert_eq!(read.stdout, name.repeat(9000).as_bytes());
        }
    }
    // The kernel reads whole pages: one that a tampered chunk has a part of is tampered.
    let usize_of = |number: i64| usize::try_from(number).unwrap();
    let (first, end) = (usize_of(sick.offset), usize_of(sick.offset + sick.size));
    let (first, end) = (first / PAGE * PAGE, end.next_multiple_of(PAGE).min(big.len()));
    let mut ranges = vec![(0, first), (first, end), (end, big.len())];
    ranges.extend([(first + PAGE, first + 2 * PAGE), (first - PAGE, first), (end, end + PAGE)]);
    for (from, to) in ranges {
        let mut command = Command::new("dd");
        command.arg(format!("if={}", at.join("big").display())).args(["bs=64k", "status=none"]);
        command.arg(format!("skip={from}")).arg(format!("count={}", to - from));
        command.args(["iflag=skip_bytes,count_bytes,fullblock"]);
        let read = process::output_within(&mut command, wait::LONG);
        if from >= first && to <= end {
            assert!(is_input_output_error(&read), "{from}: {:?}", read.status);
            assert!(read.stdout.is_empty(), "{} bytes of a tampered chunk", read.stdout.len());
        } else {
            assert!(
                read.status.success() && read.stdout == big[from..to],
                "{from} to {to}: {:?}",
                read.stderr
            );
        }
    }
    let status = calm.daemon.mount(REPO).unwrap();
    let error = status["last_error"].as_str().unwrap_or_default();
    assert!(error.contains("hash"), "the status tells what was wrong: {status}");
    calm.umount(REPO);
    calm.finish();
}

/// Most memory that a process had, KiB.
fn peak_kib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn insane_entries_are_survived_by_their_own_worker() {
    let scene = Scene::new();
    let site = Site::serve(&scene, scene.path("www"), "site");
    let mut insane = Vec::new();
    for (number, case) in CASES.iter().filter(|case| case.mounts).enumerate() {
        let fqrn = format!("insane{number}.example.org");
        (case.make)(&forge(&scene, &fqrn)).unwrap();
        configure(&scene, &fqrn, &site.repository(&fqrn), "");
        insane.push((fqrn, case));
    }
    let mut calm = Calm::start(&scene, "cvmfs.deadline_seconds = 5\n");
    for (fqrn, case) in &insane {
        let at = calm.mount(fqrn);
        let worker = calm.daemon.worker(fqrn).unwrap();
        // Everything that can be reached, with a bound on each file; names and errors do not matter, that it ends does.
        let mut find = Command::new("find");
        find.arg(&at).args(["-maxdepth", "40", "-exec", "head", "-c", "16777216", "{}", ";"]);
        process::output_within(&mut find, wait::LONG);
        assert_eq!(cat(&at.join("good")).stdout, b"good", "{case:?}");
        assert_eq!(calm.daemon.worker(fqrn), Some(worker), "{case:?}: the worker died of it");
        assert!(peak_kib(worker) < 400 << 10, "{case:?}: {} KiB", peak_kib(worker));
        calm.umount(fqrn);
    }
    calm.undisturbed();
    calm.finish();
}

/// A web server before another one that has objects without an end: whose name contains `hash` is answered with a zlib
/// stream of zeros that goes on as long as anybody takes it.
struct Endless {
    url: String,
    /// Streams that somebody still takes.
    open: Arc<AtomicUsize>,
}

impl Endless {
    fn before(site: &Site, hash: String) -> Endless {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server: SocketAddr = site.url().trim_start_matches("http://").parse().unwrap();
        let open = Arc::new(AtomicUsize::new(0));
        let counted = open.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (hash, open) = (hash.clone(), counted.clone());
                std::thread::spawn(move || {
                    let _ = Endless::answer(client, server, &hash, &open);
                });
            }
        });
        Endless { url, open }
    }

    fn answer(
        mut client: TcpStream,
        server: SocketAddr,
        hash: &str,
        open: &AtomicUsize,
    ) -> std::io::Result<()> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && head.len() < 16 << 10 {
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or("/").to_owned();
        if !path.replace('/', "").contains(hash) {
            let mut upstream = TcpStream::connect(server)?;
            write!(upstream, "GET {path} HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n")?;
            std::io::copy(&mut upstream, &mut client)?;
            return client.shutdown(std::net::Shutdown::Both);
        }
        open.fetch_add(1, Ordering::SeqCst);
        // A stored block of 65535 bytes that is not the last one (RFC 1951, 3.2.4), again and again.
        let mut block = vec![0x00, 0xff, 0xff, 0x00, 0x00];
        block.resize(block.len() + 0xffff, 0);
        let mut sent = client.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\x78\x01");
        while sent.is_ok() {
            sent = client.write_all(&block);
        }
        open.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn an_object_that_inflates_without_end_costs_a_bounded_share() {
    const REPO: &str = "endless.example.org";
    let scene = Scene::new();
    let site = Site::serve(&scene, scene.path("www"), "site");
    let repository = forge(&scene, REPO);
    let mut image = repository.root().unwrap();
    image.rows.push(repository.file_row("/good", b"good").unwrap());
    // As long as the catalog says ten bytes the first kilobytes tell; the other one claims to be that big.
    let mut hash = String::new();
    for (path, size) in [("/small", 10), ("/huge", i64::MAX)] {
        let mut row = repository.file_row(path, b"endless").unwrap();
        hash = row.hash.as_ref().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        row.size = size;
        image.rows.push(row);
    }
    repository.sign_image(&image).unwrap();
    let endless = Endless::before(&site, hash);
    configure(&scene, REPO, &format!("{}/cvmfs/{REPO}", endless.url), "");
    let calm = Calm::start(&scene, "cvmfs.deadline_seconds = 3\ncvmfs.quota_mib = 1000\n");
    let at = calm.mount(REPO);
    let worker = calm.daemon.worker(REPO).unwrap();
    for name in ["small", "huge"] {
        let mut head = Command::new("head");
        head.args(["-c", "100"]).arg(at.join(name));
        let read = process::output_within(&mut head, Duration::from_secs(60));
        assert!(is_input_output_error(&read), "{name}: {read:?}");
        assert_eq!(cat(&at.join("good")).stdout, b"good");
    }
    assert!(peak_kib(worker) < 400 << 10, "{} KiB", peak_kib(worker));
    // What takes longer than one call may goes on for whoever asks again, but not without the mount.
    calm.umount(REPO);
    wait::until_true("nobody downloads it any more", || endless.open.load(Ordering::SeqCst) == 0);
    wait::until_true("nothing of it is kept", || {
        let kept = process::run(Command::new("du").arg("-sm").arg(scene.path("cache")));
        kept.split_whitespace().next().unwrap().parse::<u64>().unwrap() < 64
    });
    calm.finish();
}
