//! A web server on loopback that fails on demand, for tests of this crate and of others (feature `test-server`).
//!
//! Faults are values, so that a schedule of them can be made up, shown and shrunk. It also acts as a proxy: a request in
//! absolute form is answered like any other, and counted. Content is below the path `/repo`.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::ZlibEncoder;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::client::hash::{Algorithm, Compression, ObjectId, Suffix};

/// What goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is reset before an answer.
    Reset,
    /// The head and this many bytes of the body are sent, then the connection is reset.
    ResetAfter(usize),
    /// The head promises all, but only this many bytes come before an orderly close.
    TruncateAfter(usize),
    /// The head, then one byte at a time with this pause.
    Drip(Duration),
    /// One bit of the body is flipped.
    FlipBit(usize),
    /// The body has these bytes more at its end (and the head says so).
    Trailing(usize),
    /// `Content-Length` is this much too small.
    ShortLength(usize),
    /// The request is read and never answered.
    Hang,
    /// The answer comes after this pause.
    Slow(Duration),
    /// Another status, with these header lines.
    Status(u16, Vec<(&'static str, &'static str)>),
    /// 302 to this location.
    Redirect(String),
    /// A request for a range is answered with 200 and all bytes.
    IgnoreRange,
    /// Without a length, in chunks.
    Chunked,
    /// Without a length, until the connection is closed (HTTP/1.0).
    UntilClose,
    /// A good answer, then the connection is closed without a word.
    CloseAfter,
    /// Bytes that are no HTTP.
    Garbage,
    /// A head without end.
    EndlessHead,
    /// A body without end.
    EndlessBody,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Request target: absolute when we were asked as a proxy.
    pub target: String,
    /// Header lines, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Default)]
struct State {
    files: Mutex<HashMap<String, Bytes>>,
    every: Mutex<Option<Fault>>,
    schedule: Mutex<HashMap<String, VecDeque<Fault>>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

/// The server; stops when dropped.
pub struct TestServer {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestServer {
    /// Starts on a free port of 127.0.0.1.
    pub fn start() -> TestServer {
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(State::default());
        let (stop, stopped) = watch::channel(());
        let shared = Arc::clone(&state);
        let thread = std::thread::Builder::new()
            .name("test-server".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime can be made").block_on(accept(listener, shared, stopped));
            })
            .expect("a thread can be started");
        TestServer { address, state, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:port/repo`.
    pub fn url(&self) -> String {
        format!("http://{}/repo", self.address)
    }

    /// `http://127.0.0.1:port`, to be used as a proxy.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts a file at a path below the URL.
    pub fn put(&self, path: &str, content: impl Into<Bytes>) {
        self.state.files.lock().insert(path.to_owned(), content.into());
    }

    /// Makes an object of `content` and puts it where clients look for it.
    pub fn put_object(&self, content: &[u8], suffix: Suffix, compression: Compression) -> ObjectId {
        let transferred = transferred(content, compression);
        let id = Algorithm::Sha1.digest(&transferred).with_suffix(suffix);
        self.put(&id.url_path(), transferred);
        id
    }

    /// All content is the other's, too.
    pub fn mirror(&self, other: &TestServer) {
        let files = other.state.files.lock().clone();
        *self.state.files.lock() = files;
    }

    /// Takes a file away.
    pub fn remove(&self, path: &str) {
        self.state.files.lock().remove(path);
    }

    /// Every request fails in this way from now on ([`Fault::None`]: none does).
    pub fn fail_all(&self, fault: Fault) {
        *self.state.every.lock() = Some(fault);
    }

    /// The next requests for `path` fail in these ways, one after the other; those after them do not.
    pub fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        self.state.schedule.lock().insert(path.to_owned(), faults.into_iter().collect());
    }

    /// Requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().clone()
    }

    /// How many requests there were for a path.
    pub fn count(&self, path: &str) -> usize {
        self.state.seen.lock().iter().filter(|seen| below(&seen.target) == path).count()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The form in which content is transferred.
pub fn transferred(content: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => content.to_vec(),
        Compression::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(content).expect("memory takes it");
            encoder.finish().expect("memory takes it")
        }
    }
}

/// `http://` address where nobody listens: connections are refused.
pub fn refusing() -> String {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
    format!("http://{}", listener.local_addr().expect("a bound socket has an address"))
}

/// A peer whose SYN packets are dropped: a full backlog that nobody empties.
pub struct BlackHole {
    listener: std::net::TcpListener,
    _backlog: Vec<std::net::TcpStream>,
}

impl BlackHole {
    /// Opens it.
    pub fn open() -> BlackHole {
        use std::os::fd::AsRawFd;
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has free ports");
        let backlog = nix::sys::socket::Backlog::new(0).expect("zero is a backlog");
        nix::sys::socket::listen(&listener, backlog).expect("a listener can listen again");
        debug_assert!(listener.as_raw_fd() >= 0);
        let address = listener.local_addr().expect("a bound socket has an address");
        let mut streams = Vec::new();
        // The backlog is full when a connection is not made at once.
        while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            streams.push(stream);
            assert!(streams.len() < 100, "the kernel accepts without end");
        }
        BlackHole { listener, _backlog: streams }
    }

    /// `http://127.0.0.1:port`.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.listener.local_addr().expect("a bound socket has an address"))
    }
}

async fn accept(listener: std::net::TcpListener, state: Arc<State>, mut stopped: watch::Receiver<()>) {
    let listener = TcpListener::from_std(listener).expect("it is non-blocking");
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    state.connections.fetch_add(1, Ordering::Relaxed);
                    // Ends with the runtime, if not before.
                    tokio::spawn(serve(stream, Arc::clone(&state)));
                }
            }
            _ = stopped.changed() => return,
        }
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::new();
    while let Ok(Some(seen)) = request(&mut stream, &mut buffer).await {
        let path = below(&seen.target).to_owned();
        let range = seen.header("range").and_then(parse_range);
        state.seen.lock().push(seen);
        let fault = state.schedule.lock().get_mut(&path).and_then(VecDeque::pop_front);
        let fault = fault.or_else(|| state.every.lock().clone()).unwrap_or(Fault::None);
        let file = state.files.lock().get(&path).cloned();
        match answer(&mut stream, file, range, fault).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Seen>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if buffer.len() > 64 << 10 || stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Some(Seen { target, headers }))
}

/// The path below `/repo/`, of a target in either form.
fn below(target: &str) -> &str {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => target,
    };
    path.strip_prefix("/repo/").unwrap_or(path)
}

fn parse_range(value: &str) -> Option<(usize, usize)> {
    let (from, to) = value.strip_prefix("bytes=")?.split_once('-')?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// Sends one answer; whether the connection stays.
async fn answer(
    stream: &mut TcpStream,
    file: Option<Bytes>,
    range: Option<(usize, usize)>,
    fault: Fault,
) -> io::Result<bool> {
    match &fault {
        Fault::Reset => {
            stream.set_zero_linger()?;
            return Ok(false);
        }
        Fault::Hang => {
            std::future::pending::<()>().await;
        }
        Fault::Slow(pause) => tokio::time::sleep(*pause).await,
        Fault::Status(status, headers) => {
            let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            stream
                .write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n{lines}\r\nno").as_bytes())
                .await?;
            return Ok(true);
        }
        Fault::Redirect(location) => {
            let head = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            return Ok(true);
        }
        Fault::Garbage => {
            stream.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await?;
            return Ok(false);
        }
        Fault::EndlessHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            loop {
                stream.write_all(b"X-More: of the same, again and again\r\n").await?;
            }
        }
        Fault::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 4096]).await?;
            }
        }
        _ => {}
    }
    let Some(file) = file else {
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone").await?;
        return Ok(true);
    };
    let mut status = "200 OK".to_owned();
    let mut lines = String::new();
    let mut body = match range {
        Some((from, to)) if fault != Fault::IgnoreRange && from <= to && to < file.len() => {
            status = "206 Partial Content".to_owned();
            lines = format!("Content-Range: bytes {from}-{to}/{}\r\n", file.len());
            file.slice(from..=to)
        }
        _ => file,
    };
    match &fault {
        Fault::FlipBit(bit) if !body.is_empty() => {
            let mut bytes = body.to_vec();
            let at = bit / 8 % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
            body = bytes.into();
        }
        Fault::Trailing(count) => {
            let mut bytes = body.to_vec();
            bytes.resize(bytes.len() + count, 0);
            body = bytes.into();
        }
        _ => {}
    }
    let length = match &fault {
        Fault::ShortLength(by) => body.len().saturating_sub(*by),
        _ => body.len(),
    };
    let length = match &fault {
        Fault::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Fault::UntilClose => String::new(),
        _ => format!("Content-Length: {length}\r\n"),
    };
    let version = if fault == Fault::UntilClose { "1.0" } else { "1.1" };
    let mut message = format!("HTTP/{version} {status}\r\n{length}{lines}\r\n").into_bytes();
    match fault {
        Fault::ResetAfter(count) => {
            message.extend_from_slice(&body[..count.min(body.len())]);
            stream.write_all(&message).await?;
            // Let the bytes be read before the reset throws them away.
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.set_zero_linger()?;
            Ok(false)
        }
        Fault::TruncateAfter(count) => {
            message.extend_from_slice(&body[..count.min(body.len())]);
            stream.write_all(&message).await?;
            Ok(false)
        }
        Fault::Drip(pause) => {
            stream.write_all(&message).await?;
            for byte in body {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(pause).await;
            }
            Ok(true)
        }
        Fault::Chunked => {
            for part in body.chunks(1000) {
                message.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                message.extend_from_slice(part);
                message.extend_from_slice(b"\r\n");
            }
            message.extend_from_slice(b"0\r\n\r\n");
            stream.write_all(&message).await?;
            Ok(true)
        }
        Fault::UntilClose | Fault::CloseAfter => {
            message.extend_from_slice(&body);
            stream.write_all(&message).await?;
            Ok(false)
        }
        _ if body.len() <= 64 << 10 => {
            message.extend_from_slice(&body);
            stream.write_all(&message).await?;
            Ok(true)
        }
        _ => {
            stream.write_all(&message).await?;
            stream.write_all(&body).await?;
            Ok(true)
        }
    }
}
