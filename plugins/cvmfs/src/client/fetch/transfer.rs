//! From a name to its bytes: runs a [`Call`] and hands what comes to the decoder.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use super::FetchError;
use super::call::Call;
use super::crew;
use super::decode::{DecodeFault, Decoder, Expectation};
use super::exchange::{Blame, Body};
use super::site::Site;
use crate::client::cache::{Cache, Object};
use crate::client::hash::ObjectId;

/// Transfers up to this size are decoded in one go.
const SMALL_BYTES: u64 = 256 << 10;
/// A larger one is decoded in pieces of about this size, while the next piece comes.
const PIECE_BYTES: usize = 256 << 10;

/// What to get.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// URL path below the server, escaped.
    pub(super) path: Arc<str>,
    pub(super) range: Option<Range<u64>>,
    /// Name in the cache.
    pub(super) id: ObjectId,
    pub(super) expected: Expectation,
}

/// Why a body gave no result.
enum BodyFault {
    /// The transfer is to blame, or the way.
    Transfer(FetchError),
    /// The bytes came, but are not right.
    Content(DecodeFault),
    /// More bytes than any right answer has, or the catalog is wrong about its size.
    TooLong,
}

/// Fetches, verifies and stores an object.
pub(super) async fn object(site: Arc<Site>, cache: Arc<Cache>, wanted: Wanted) -> Result<Object, FetchError> {
    let mut call = Call::new(&site, Arc::clone(&wanted.path), wanted.range.clone(), false);
    let deadline = call.transfer_deadline();
    loop {
        let mut opened = call.open().await?;
        let result = timeout_at(deadline, receive(&site, &cache, &wanted, &mut opened.body)).await;
        let url = || Arc::clone(&opened.url);
        let (blame, error) = match result {
            Ok(Ok(object)) => {
                call.succeeded(opened.route);
                return Ok(object);
            }
            Ok(Err(BodyFault::Transfer(error))) => (Blame::Way, error),
            Ok(Err(BodyFault::TooLong)) => {
                let limit = wanted.expected.transfer_limit();
                (Blame::Name, FetchError::TooLarge { url: url(), limit })
            }
            Ok(Err(BodyFault::Content(fault))) => match fault {
                DecodeFault::WrongHash => {
                    site.stats.wrong_bytes.fetch_add(1, Ordering::Relaxed);
                    let error = FetchError::WrongHash { url: url(), expected: wanted.id.to_string() };
                    if !call.ask.fresh {
                        // A cache on the way may hold wrong bytes: the same route once more, past all caches.
                        tracing::debug!(%error, "asking again past the caches");
                        call.ask.fresh = true;
                        continue;
                    }
                    (Blame::Server, error)
                }
                // The right bytes: no other server has better ones.
                DecodeFault::WrongSize => {
                    let expected = wanted.expected.size.unwrap_or(0);
                    return Err(FetchError::WrongSize { url: url(), expected });
                }
                DecodeFault::BadStream => return Err(FetchError::BadStream { url: url() }),
                DecodeFault::TooLarge => {
                    return Err(FetchError::TooLarge { url: url(), limit: wanted.expected.limit });
                }
                DecodeFault::Storage(error) => return Err(FetchError::Storage(error)),
            },
            Err(_) => return Err(call.out_of_time()),
        };
        call.body_failed(opened.route, blame, error);
    }
}

/// Fetches a small file that is verified by others.
pub(super) async fn small(
    site: Arc<Site>,
    name: Arc<str>,
    limit: usize,
    fresh: bool,
) -> Result<Bytes, FetchError> {
    let mut call = Call::new(&site, name, None, fresh);
    let deadline = call.transfer_deadline();
    loop {
        let mut opened = call.open().await?;
        let (blame, error) = match timeout_at(deadline, collect(&mut opened.body, limit)).await {
            Ok(Ok(Some(bytes))) => {
                site.stats.transferred_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                call.succeeded(opened.route);
                return Ok(bytes);
            }
            // Probably not the file at all but somebody's page of greetings.
            Ok(Ok(None)) => {
                (Blame::Server, FetchError::TooLarge { url: Arc::clone(&opened.url), limit: limit as u64 })
            }
            Ok(Err(error)) => (Blame::Way, error),
            Err(_) => return Err(call.out_of_time()),
        };
        call.body_failed(opened.route, blame, error);
    }
}

/// The whole body; `None` if it is longer than `limit`.
async fn collect(body: &mut Body, limit: usize) -> Result<Option<Bytes>, FetchError> {
    if body.size().is_some_and(|size| size > limit as u64) {
        return Ok(None);
    }
    let mut all = BytesMut::new();
    while let Some(bytes) = body.next().await? {
        if all.len() + bytes.len() > limit {
            return Ok(None);
        }
        all.extend_from_slice(&bytes);
    }
    Ok(Some(all.freeze()))
}

/// A body into the cache.
async fn receive(site: &Site, cache: &Cache, wanted: &Wanted, body: &mut Body) -> Result<Object, BodyFault> {
    let limit = wanted.expected.transfer_limit();
    if body.size().is_some_and(|size| size > limit) {
        return Err(BodyFault::TooLong);
    }
    let mut pieces = Pieces { parts: Vec::with_capacity(2), bytes: 0, total: 0, limit };
    while pieces.total <= SMALL_BYTES {
        match body.next().await.map_err(BodyFault::Transfer)? {
            Some(bytes) => pieces.add(bytes)?,
            None => {
                site.stats.transferred_bytes.fetch_add(pieces.total, Ordering::Relaxed);
                let incoming = cache.incoming(wanted.id);
                let expected = wanted.expected;
                let done = crew::submit(move || Decoder::whole(expected, incoming, &pieces.parts));
                return settled(done).await?.map_err(BodyFault::Content);
            }
        }
    }
    stream(site, Decoder::new(wanted.expected, cache.incoming(wanted.id)), pieces, body).await
}

/// Decodes a large body while it comes. Two pieces are in memory at most.
async fn stream(
    site: &Site,
    decoder: Decoder,
    mut pieces: Pieces,
    body: &mut Body,
) -> Result<Object, BodyFault> {
    let mut idle = Some(decoder);
    let mut working: Option<oneshot::Receiver<Decoder>> = None;
    let mut ended = false;
    loop {
        if let Some(mut decoder) = idle.take() {
            if let Some(fault) = decoder.storage_fault() {
                return Err(BodyFault::Content(fault));
            }
            if pieces.bytes > 0 && (ended || pieces.bytes >= PIECE_BYTES / 4) {
                let parts = pieces.take();
                working = Some(crew::submit(move || {
                    for part in &parts {
                        decoder.feed(part);
                    }
                    decoder
                }));
            } else if ended {
                site.stats.transferred_bytes.fetch_add(pieces.total, Ordering::Relaxed);
                return settled(crew::submit(move || decoder.finish())).await?.map_err(BodyFault::Content);
            } else {
                idle = Some(decoder);
            }
        }
        tokio::select! {
            decoder = settled_if(&mut working) => {
                working = None;
                idle = Some(decoder?);
            }
            next = body.next(), if !ended && pieces.bytes < PIECE_BYTES => {
                match next.map_err(BodyFault::Transfer)? {
                    Some(bytes) => pieces.add(bytes)?,
                    None => ended = true,
                }
            }
        }
    }
}

/// A job's result; the job is lost only when it panicked.
async fn settled<T>(job: oneshot::Receiver<T>) -> Result<T, BodyFault> {
    job.await.map_err(|_| BodyFault::Content(DecodeFault::BadStream))
}

/// The result of the job under way; pending for ever when there is none.
async fn settled_if<T>(job: &mut Option<oneshot::Receiver<T>>) -> Result<T, BodyFault> {
    match job {
        Some(job) => job.await.map_err(|_| BodyFault::Content(DecodeFault::BadStream)),
        None => std::future::pending().await,
    }
}

/// What has come and is not yet decoded.
struct Pieces {
    parts: Vec<Bytes>,
    bytes: usize,
    total: u64,
    limit: u64,
}

impl Pieces {
    fn add(&mut self, bytes: Bytes) -> Result<(), BodyFault> {
        self.bytes += bytes.len();
        self.total += bytes.len() as u64;
        if self.total > self.limit {
            return Err(BodyFault::TooLong);
        }
        self.parts.push(bytes);
        Ok(())
    }

    fn take(&mut self) -> Vec<Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.parts)
    }
}
