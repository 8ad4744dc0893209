//! One request on one route: from a path to the head of a usable answer and a metered body.

use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{
    CACHE_CONTROL, CONTENT_RANGE, HOST, HeaderMap, HeaderValue, LOCATION, PRAGMA, RANGE, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::FetchError;
use super::address::{Authority, Proxy, ServerUrl};
use super::peer::{ConnectFault, ConnectOptions, Lease, Peer};
use super::policy::Route;
use super::site::Site;

const MAX_REDIRECTS: usize = 4;
/// Shortest time in which the speed of a body is judged.
const WINDOW_MIN: Duration = Duration::from_millis(500);
const AGENT: &str = concat!("cvmfs volplane/", env!("CARGO_PKG_VERSION"));

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// Path below the server's URL, escaped, without a leading slash.
    pub(super) path: Arc<str>,
    /// Bytes of the file; all of it when absent.
    pub(super) range: Option<Range<u64>>,
    /// Caches on the way must ask the server.
    pub(super) fresh: bool,
    /// When the call wants its bytes to be coming.
    pub(super) deadline: tokio::time::Instant,
}

/// Who is to blame for a failure, and so what is tried next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The way: the proxy if there is one, else the server.
    Way,
    /// The server, whichever way was taken.
    Server,
    /// The server, for this one name only: it stays in favour.
    Name,
    /// The way, but it asks for patience: it stays in favour.
    Busy,
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) blame: Blame,
    /// Whether the same attempt can succeed a little later.
    pub(super) transient: bool,
    /// The proxy (or server) gave an answer, if a bad one.
    pub(super) answered: bool,
    pub(super) error: FetchError,
}

/// A good head, with the body to come.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) route: Route,
    pub(super) url: Arc<str>,
    pub(super) body: Body,
}

/// Makes the request and waits for its head. Ends within twice the route's time-out (connection, then head).
///
/// `begun` is set when a connection is to be had: the wait before is for our own other requests and says nothing of the peer.
pub(super) async fn attempt(
    site: Arc<Site>,
    ask: Ask,
    route: Route,
    begun: Arc<OnceLock<Instant>>,
) -> Result<Opened, Fault> {
    let url = site.policy.describe(route, &ask.path);
    let server = &site.policy.server(route).url;
    let mut target = Target::of(server, &ask.path);
    let mut peer = Arc::clone(site.policy.peer(route));
    for _ in 0..=MAX_REDIRECTS {
        let (response, lease) = send(&site, &ask, route, &url, &peer, &target, &begun).await?;
        let Some(location) = redirect(&response) else {
            let size = hyper::body::Body::size_hint(response.body()).exact();
            check(&ask, &site, route, &url, &response)?;
            // A third, so that another way can be tried within the deadline.
            let window = site.policy.timeout(route).min(site.deadline / 3);
            let left = ask.deadline.saturating_duration_since(tokio::time::Instant::now());
            let window = window.min(left).max(WINDOW_MIN);
            let meter = Meter { window, limit: site.low_speed_limit, waited: Duration::ZERO, bytes: 0 };
            let body = Body {
                incoming: response.into_body(),
                lease: Some(lease),
                url: Arc::clone(&url),
                size,
                meter,
            };
            return Ok(Opened { route, url, body });
        };
        let refused = || Fault {
            blame: Blame::Name,
            transient: false,
            answered: true,
            error: FetchError::Redirect { url: Arc::clone(&url) },
        };
        if !site.follow_redirects {
            return Err(refused());
        }
        target = target.follow(location).ok_or_else(refused)?;
        if matches!(site.policy.proxy(route).proxy, Proxy::Direct) {
            peer = site.peers.get(&target.authority);
        }
    }
    Err(Fault { blame: Blame::Name, transient: false, answered: true, error: FetchError::Redirect { url } })
}

/// Sends one request; once more on a new connection when the old one turns out to have been closed meanwhile.
async fn send(
    site: &Site,
    ask: &Ask,
    route: Route,
    url: &Arc<str>,
    peer: &Arc<Peer>,
    target: &Target,
    begun: &OnceLock<Instant>,
) -> Result<(Response<Incoming>, Lease), Fault> {
    let timeout = site.policy.timeout(route);
    let options = ConnectOptions { timeout, max_addresses: site.max_addresses, family: site.family };
    let way = |error| Fault { blame: Blame::Way, transient: true, answered: false, error };
    let mut new = false;
    let mut permit = peer.permit().await;
    begun.get_or_init(Instant::now);
    loop {
        let lease = tokio::time::timeout(timeout, peer.lease(permit, options, new)).await;
        let mut lease = match lease.unwrap_or(Err(ConnectFault::Timeout)) {
            Ok(lease) => lease,
            Err(fault) => {
                return Err(way(match fault {
                    ConnectFault::Resolve(detail) => FetchError::Resolve {
                        url: Arc::clone(url),
                        host: peer.authority().host.clone(),
                        detail,
                    },
                    ConnectFault::Connect(detail) => FetchError::Connect { url: Arc::clone(url), detail },
                    ConnectFault::Timeout => FetchError::Slow { url: Arc::clone(url), waited: timeout },
                }));
            }
        };
        let request = target.request(ask, &site.policy.proxy(route).proxy).ok_or_else(|| Fault {
            blame: Blame::Name,
            transient: false,
            answered: false,
            error: FetchError::BadName { name: ask.path.to_string() },
        })?;
        let began = Instant::now();
        let answer = tokio::time::timeout(timeout, lease.sender().send_request(request)).await;
        match answer {
            Ok(Ok(response)) => {
                peer.answered(began.elapsed());
                return Ok((response, lease));
            }
            Ok(Err(_)) if lease.is_reused() => {
                new = true;
                permit = lease.into_permit();
            }
            Ok(Err(error)) => {
                return Err(way(FetchError::Broken { url: Arc::clone(url), detail: explain(&error) }));
            }
            Err(_) => return Err(way(FetchError::Slow { url: Arc::clone(url), waited: timeout })),
        }
    }
}

/// hyper's message with its cause.
fn explain(error: &hyper::Error) -> String {
    use std::error::Error;
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn redirect(response: &Response<Incoming>) -> Option<Option<&str>> {
    let redirects = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::SEE_OTHER,
        StatusCode::TEMPORARY_REDIRECT,
    ];
    redirects
        .contains(&response.status())
        .then(|| response.headers().get(LOCATION).and_then(|location| location.to_str().ok()))
}

/// Whether a head is the one wanted. Who is to blame follows the C++ client (facts of the issue, section 4.1).
fn check(
    ask: &Ask,
    site: &Site,
    route: Route,
    url: &Arc<str>,
    response: &Response<Incoming>,
) -> Result<(), Fault> {
    let status = response.status();
    let fault = |blame, transient, error| Err(Fault { blame, transient, answered: true, error });
    match (&ask.range, status) {
        (None, StatusCode::OK) => return Ok(()),
        (Some(range), StatusCode::PARTIAL_CONTENT) if is_range(response.headers(), range) => return Ok(()),
        (Some(_), StatusCode::OK | StatusCode::PARTIAL_CONTENT) => {
            return fault(Blame::Name, false, FetchError::RangeIgnored { url: Arc::clone(url) });
        }
        (None | Some(_), _) => {}
    }
    let error = FetchError::Status { url: Arc::clone(url), status: status.as_u16() };
    let proxied = site.policy.proxy(route).peer.is_some();
    let by_proxy = proxied && is_proxys_own(response.headers());
    if status == StatusCode::TOO_MANY_REQUESTS {
        fault(Blame::Busy, true, error)
    } else if by_proxy {
        fault(Blame::Way, true, error)
    } else if status == StatusCode::NOT_FOUND {
        fault(Blame::Name, false, FetchError::NotFound { url: Arc::clone(url) })
    } else if status == StatusCode::BAD_REQUEST {
        fault(Blame::Name, false, error)
    } else if status.is_server_error() {
        fault(Blame::Server, true, error)
    } else if proxied {
        fault(Blame::Way, false, error)
    } else {
        fault(Blame::Server, false, error)
    }
}

/// Whether a proxy says that it made the answer itself.
fn is_proxys_own(headers: &HeaderMap) -> bool {
    let says_error = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("error="));
    headers.contains_key("x-squid-error") || headers.get_all("proxy-status").iter().any(says_error)
}

/// Whether `Content-Range: bytes a-b/…` is the range that was asked for.
fn is_range(headers: &HeaderMap, range: &Range<u64>) -> bool {
    let value = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let bytes = value.and_then(|value| value.strip_prefix("bytes ")).and_then(|value| value.split_once('/'));
    bytes.is_some_and(|(bytes, _)| bytes == format!("{}-{}", range.start, range.end.saturating_sub(1)))
}

/// What stands in the request line and in `Host`.
struct Target {
    authority: Authority,
    /// Begins with a slash.
    path: String,
}

impl Target {
    fn of(server: &ServerUrl, path: &str) -> Self {
        Target { authority: server.authority().clone(), path: format!("{}/{path}", server.path()) }
    }

    fn follow(&self, location: Option<&str>) -> Option<Self> {
        let location = location?;
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(Target { authority: self.authority.clone(), path: location.to_owned() });
        }
        let url: ServerUrl = location.parse().ok()?;
        let path = if url.path().is_empty() { "/" } else { url.path() };
        Some(Target { authority: url.authority().clone(), path: path.to_owned() })
    }

    fn request(&self, ask: &Ask, proxy: &Proxy) -> Option<Request<Empty<Bytes>>> {
        let host = self.authority.in_url();
        let uri: Uri = match proxy {
            Proxy::Direct => self.path.parse().ok()?,
            Proxy::Http(_) => format!("http://{host}{}", self.path).parse().ok()?,
        };
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(uri)
            .header(HOST, host)
            .header(USER_AGENT, HeaderValue::from_static(AGENT));
        if ask.fresh {
            request = request.header(PRAGMA, "no-cache").header(CACHE_CONTROL, "no-cache");
        }
        if let Some(range) = &ask.range {
            request = request.header(RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        }
        request.body(Empty::new()).ok()
    }
}

/// A body that must keep coming. The connection goes back to its peer with the last byte, and is closed otherwise.
#[derive(Debug)]
pub(super) struct Body {
    incoming: Incoming,
    lease: Option<Lease>,
    url: Arc<str>,
    /// `Content-Length`, if told.
    size: Option<u64>,
    meter: Meter,
}

impl Body {
    /// What the server says of its length.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The next bytes; `None` at the proper end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let began = Instant::now();
            let frame = tokio::time::timeout(self.meter.left(), self.incoming.frame()).await;
            self.meter.waited += began.elapsed();
            let bytes = match frame {
                Ok(Some(Ok(frame))) => frame.into_data().ok(),
                Ok(Some(Err(error))) => {
                    return Err(FetchError::Broken { url: Arc::clone(&self.url), detail: explain(&error) });
                }
                Ok(None) => {
                    if let Some(lease) = self.lease.take() {
                        lease.give_back();
                    }
                    return Ok(None);
                }
                Err(_) => None,
            };
            self.meter.bytes += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
            if !self.meter.is_fast_enough() {
                return Err(FetchError::Slow { url: Arc::clone(&self.url), waited: self.meter.window });
            }
            // Trailers, and time-outs of a window that was good so far, are not bytes.
            if let Some(bytes) = bytes {
                return Ok(Some(bytes));
            }
        }
    }
}

/// Bytes per time spent waiting for them: what the consumer needs for its own work does not count.
#[derive(Debug)]
struct Meter {
    window: Duration,
    /// Bytes per second.
    limit: u64,
    waited: Duration,
    bytes: u64,
}

impl Meter {
    fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited).max(Duration::from_millis(1))
    }

    /// Judges a window that is over, and begins the next.
    fn is_fast_enough(&mut self) -> bool {
        if self.waited < self.window {
            return true;
        }
        let wanted = self.limit as f64 * self.waited.as_secs_f64();
        let good = self.bytes as f64 >= wanted && self.bytes > 0;
        self.waited = Duration::ZERO;
        self.bytes = 0;
        good
    }
}
