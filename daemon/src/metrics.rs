//! The Prometheus endpoint: off by default, on a unix socket or a port, a loopback one unless the
//! configuration says that other hosts may read.

mod table;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use volume::{MountKey, MountState, MountStatus, Sample, VolumeService, WorkerReport};

use crate::config::Listen;
use crate::sockets::{self, SocketError};

/// Connections at a time.
const CONNECTIONS: usize = 16;

/// How long a client may take for its request.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may last.
const LONGEST: Duration = Duration::from_secs(30);

/// An open endpoint.
pub(crate) enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Opens the endpoint.
pub(crate) async fn listen(listen: &Listen) -> Result<Listener, SocketError> {
    match listen {
        Listen::Unix(path) => sockets::listen(path, 0o660).await.map(Listener::Unix),
        Listen::Tcp(address) => {
            let bound = TcpListener::bind(address).await;
            bound
                .map(Listener::Tcp)
                .map_err(|source| SocketError::Io { path: address.to_string().into(), source })
        }
    }
}

/// Answers `GET /metrics` until the task is dropped.
pub(crate) async fn serve(
    listener: Listener,
    registry: Arc<Registry>,
    service: Arc<dyn VolumeService>,
    calls: Vec<Arc<csi::CallStatistics>>,
) {
    let calls: Arc<[_]> = calls.into();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = match accept(&listener).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept on the metrics socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (registry, service, calls) = (registry.clone(), service.clone(), calls.clone());
        tokio::spawn(async move {
            let answer =
                service_fn(move |request| answer(request, registry.clone(), service.clone(), calls.clone()));
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(16 << 10)
                .keep_alive(false);
            let connection = builder.serve_connection(TokioIo::new(stream), answer);
            match tokio::time::timeout(LONGEST, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a metrics connection broke"),
                Err(_) => tracing::debug!("a metrics connection took too long"),
            }
            drop(permit);
        });
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

async fn accept(listener: &Listener) -> io::Result<Box<dyn Stream>> {
    Ok(match listener {
        Listener::Unix(listener) => Box::new(listener.accept().await?.0),
        Listener::Tcp(listener) => Box::new(listener.accept().await?.0),
    })
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    registry: Arc<Registry>,
    service: Arc<dyn VolumeService>,
    calls: Arc<[Arc<csi::CallStatistics>]>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match request.uri().path() {
        "/metrics" => {
            let calls = calls.iter().flat_map(|calls| calls.samples()).collect();
            (StatusCode::OK, render(&service.mounts().await, &registry.reports(), calls))
        }
        _ => (StatusCode::NOT_FOUND, "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let format = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, format);
    Ok(response)
}

/// The text format of Prometheus, version 0.0.4.
fn render(mounts: &[MountStatus], reports: &[(MountKey, WorkerReport)], calls: Vec<Sample>) -> String {
    let mut samples = own(mounts);
    samples.extend(calls);
    for (key, report) in reports {
        for sample in &report.samples {
            let mut sample = sample.clone();
            sample.labels.insert(0, ("mount".to_owned(), key.to_string()));
            samples.push(sample);
        }
    }
    let declared = |sample: &&Sample| table::METRICS.iter().any(|metric| metric.name == sample.name);
    if let Some(stray) = samples.iter().find(|sample| !declared(sample)) {
        static TOLD: std::sync::Once = std::sync::Once::new();
        TOLD.call_once(|| tracing::warn!(name = stray.name, "a metric is not declared and not shown"));
    }
    let mut text = String::new();
    for metric in table::METRICS {
        let of_metric = samples.iter().filter(|sample| sample.name == metric.name);
        // Writing into a string does not fail.
        let _ = writeln!(text, "# HELP volplane_{} {} ({})", metric.name, metric.help, metric.unit);
        let _ = writeln!(text, "# TYPE volplane_{} {}", metric.name, metric.kind.as_str());
        for sample in of_metric {
            let labels: Vec<String> =
                sample.labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let _ = match labels.is_empty() {
                true => writeln!(text, "volplane_{} {}", sample.name, sample.value),
                false => writeln!(text, "volplane_{}{{{}}} {}", sample.name, labels.join(","), sample.value),
            };
        }
    }
    text
}

/// What the daemon knows itself.
fn own(mounts: &[MountStatus]) -> Vec<Sample> {
    let sample = |name: &str, labels: &[(&str, &str)], value: f64| Sample {
        name: name.to_owned(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        value,
    };
    let mut samples = vec![sample("build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0)];
    let states = [
        MountState::Absent,
        MountState::Attaching,
        MountState::Live,
        MountState::Stale,
        MountState::Detaching,
    ];
    for state in states {
        let count = mounts.iter().filter(|mount| mount.state == state).count();
        samples.push(sample("mounts", &[("state", state.as_str())], count as f64));
    }
    for mount in mounts {
        let labels = [("mount", mount.key.as_str()), ("backend", mount.backend.as_str())];
        samples.push(sample("mount_references", &labels, mount.references.len() as f64));
        samples.push(sample("mount_healthy", &labels, f64::from(u8::from(mount.health == "healthy"))));
        samples.push(sample("worker_restarts_total", &labels, mount.restarts as f64));
    }
    samples
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_has_no_name_twice_and_follows_the_naming_rules() {
        let names: BTreeSet<&str> = table::METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), table::METRICS.len());
        for metric in table::METRICS {
            let counter = metric.kind == table::Kind::Counter;
            assert_eq!(metric.name.ends_with("_total"), counter, "{}", metric.name);
        }
    }

    #[test]
    fn labels_are_escaped() {
        let report = WorkerReport {
            samples: vec![Sample {
                name: "cvmfs_revision".into(),
                labels: vec![("repository".into(), "a\"b\\\n".into())],
                value: 6.0,
            }],
            ..WorkerReport::default()
        };
        let key = MountKey::new("cms.cern.ch").unwrap();
        let text = render(&[], &[(key, report)], Vec::new());
        assert!(
            text.contains("volplane_cvmfs_revision{mount=\"cms.cern.ch\",repository=\"a\\\"b\\\\\\n\"} 6\n"),
            "{text}"
        );
        assert!(text.contains("volplane_mounts{state=\"live\"} 0\n"));
    }
}
