//! A relay in front of a server that can turn slow or silent: what long and sick networks do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// What a relay does to the bytes that come back from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// All of them at once.
    Pass,
    /// One each second.
    Drip,
    /// None; connections stay open.
    Silent,
}

/// A listening relay on loopback; it ends with the process.
pub struct Relay {
    address: SocketAddr,
    manner: Arc<AtomicU8>,
}

impl Relay {
    /// Relays to `server` (`http://127.0.0.1:PORT`).
    ///
    /// # Panics
    /// When loopback cannot be listened on or `server` is no such URL.
    pub fn before(server: &str) -> Relay {
        let server: SocketAddr =
            server.trim_start_matches("http://").parse().expect("a server on loopback by number");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let manner = Arc::new(AtomicU8::new(Manner::Pass as u8));
        let theirs = manner.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(upstream) = TcpStream::connect(server) else { continue };
                let (Ok(client2), Ok(upstream2)) = (client.try_clone(), upstream.try_clone()) else {
                    continue;
                };
                let manner = theirs.clone();
                std::thread::spawn(move || copy(client2, upstream2, &AtomicU8::new(Manner::Pass as u8)));
                std::thread::spawn(move || copy(upstream, client, &manner));
            }
        });
        Relay { address, manner }
    }

    /// The URL that stands for the server's.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the manner for open and later connections.
    pub fn set(&self, manner: Manner) {
        self.manner.store(manner as u8, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, manner: &AtomicU8) {
    let mut buffer = [0_u8; 16 << 10];
    'connection: while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let mut left = &buffer[..count];
        while !left.is_empty() {
            let manner = manner.load(Ordering::SeqCst);
            let piece = if manner == Manner::Pass as u8 { left.len() } else { 1 };
            if manner == Manner::Silent as u8 {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            if to.write_all(&left[..piece]).is_err() {
                break 'connection;
            }
            left = &left[piece..];
            if manner == Manner::Drip as u8 {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}
