//! A real server and a client that says what it wants, byte by byte.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use super::*;

struct Site {
    directory: tempfile::TempDir,
    server: ServingFiles,
}

fn site(limits: ServeLimits) -> Site {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("www");
    std::fs::create_dir_all(root.join("repo/data/txn")).unwrap();
    std::fs::write(directory.path().join("secret"), b"secret").unwrap();
    std::fs::write(root.join("repo/.cvmfspublished"), b"0123456789").unwrap();
    std::fs::write(root.join("repo/data/txn/half"), b"half").unwrap();
    std::fs::write(root.join("repo/data/big"), vec![b'x'; 3_000_000]).unwrap();
    std::fs::write(root.join("with space"), b"space").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
    std::os::unix::fs::symlink("repo/.cvmfspublished", root.join("in")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let server = FileServer::bind(&root, (Ipv4Addr::LOCALHOST, 0).into(), limits).unwrap();
    Site { directory, server: server.spawn().unwrap() }
}

impl Site {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends raw bytes and returns what comes until the server closes.
    fn raw(&self, request: &str) -> (String, Vec<u8>) {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        (String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase(), answer[end + 4..].to_vec())
    }

    fn get(&self, path: &str, headers: &str) -> (String, Vec<u8>) {
        self.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"))
    }
}

fn status(answer: &(String, Vec<u8>)) -> &str {
    &answer.0[9..12]
}

#[test]
fn files_come_whole_in_part_and_not_at_all() {
    let site = site(ServeLimits::default());
    let whole = site.get("/repo/.cvmfspublished", "");
    assert_eq!((status(&whole), whole.1.as_slice()), ("200", &b"0123456789"[..]));
    assert!(whole.0.contains("content-length: 10") && whole.0.contains("max-age=61"), "{}", whole.0);
    let part = site.get("/repo/.cvmfspublished", "Range: bytes=2-4\r\n");
    assert_eq!((status(&part), part.1.as_slice()), ("206", &b"234"[..]));
    assert!(part.0.contains("content-range: bytes 2-4/10"), "{}", part.0);
    let outside = site.get("/repo/.cvmfspublished", "Range: bytes=10-\r\n");
    assert_eq!(status(&outside), "416");
    let tag = whole.0.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let same = site.get("/repo/.cvmfspublished", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((status(&same), same.1.len()), ("304", 0));
    let big = site.get("/repo/data/big", "");
    assert_eq!((status(&big), big.1.len()), ("200", 3_000_000));
    assert!(big.0.contains("max-age=259200"), "{}", big.0);
    assert_eq!(site.get("/with%20space", "").1, b"space");
    assert_eq!(site.get("/in", "").1, b"0123456789");
    let head = site.raw("HEAD /repo/data/big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(status(&head) == "200" && head.0.contains("content-length: 3000000") && head.1.is_empty());
    let post = site.raw("POST /in HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert!(status(&post) == "405" && post.0.contains("allow: get, head"), "{}", post.0);
}

#[test]
fn nothing_leads_out_of_the_directory() {
    let site = site(ServeLimits::default());
    assert!(site.directory.path().join("secret").exists());
    for path in [
        "/../secret",
        "/%2e%2e/secret",
        "/repo/../../secret",
        "/out",
        "//etc/passwd",
        "/repo/data/txn/half",
        "/repo//data//txn/half",
        "/repo/data/./txn/half",
        "/repo/data/x/../txn/half",
        "/repo",
        "/",
        "/fifo",
        "/missing",
        "/in/below",
    ] {
        let answer = site.get(path, "");
        assert!(["403", "404"].contains(&status(&answer)), "{path}: {}", answer.0);
        assert!(answer.1.is_empty(), "{path}");
    }
    assert_eq!(status(&site.get("/%00", "")), "400");
    let key = site.directory.path().join("www/repo.masterkey");
    std::fs::write(&key, b"secret").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(status(&site.get("/repo.masterkey", "")), "403");
}

#[test]
fn a_connection_serves_many_requests() {
    let site = site(ServeLimits::default());
    let mut stream = site.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /repo/.cvmfspublished HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"0123456789") {
            let mut piece = [0; 1024];
            let length = stream.read(&mut piece).unwrap();
            assert_ne!(length, 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&piece[..length]);
        }
    }
}

#[test]
fn peers_that_do_nothing_are_shown_the_door() {
    let site = site(ServeLimits { connections: 1, idle: Duration::from_millis(200) });
    // Says nothing; says half a request; takes nothing of a large answer. Each holds the only slot until it is closed.
    let silent = site.connect();
    let mut half = site.connect();
    half.write_all(b"GET /in HTT").unwrap();
    let mut deaf = site.connect();
    deaf.write_all(b"GET /repo/data/big HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let answer = site.get("/in", "");
    assert_eq!(answer.1, b"0123456789");
    drop((silent, half, deaf));
}

#[test]
fn endless_headers_are_refused() {
    let site = site(ServeLimits::default());
    let mut stream = site.connect();
    let line = format!("X: {}\r\n", "y".repeat(1000));
    stream.write_all(b"GET /in HTTP/1.1\r\n").unwrap();
    let refused = (0..1000).any(|_| stream.write_all(line.as_bytes()).is_err());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(refused || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_taken_address_is_named() {
    let site = site(ServeLimits::default());
    let error =
        FileServer::bind(site.directory.path(), site.server.address(), ServeLimits::default()).unwrap_err();
    assert!(error.to_string().contains(&site.server.address().to_string()), "{error}");
}
