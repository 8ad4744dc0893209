//! The daemon's end of the control socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flexvolume::Pending;
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Instrument;
use volume::{
    BindTarget, Caller, Driver, Fault, FaultKind, Form, Frontend, MountState, MountStatus, OptionMap, RefId,
    Target, VolumeName, VolumeService, WorkerPool, WorkerReport,
};

use super::connection::{Connection, Heard, TRANSFER};
use super::protocol::{Hello, LIMIT, Mounted, Request, Response, Status, Volume};

/// Connections at a time. Idle ones cost no more than a descriptor each; kubelet opens one for each pod that starts.
const CONNECTIONS: usize = 1024;

/// Requests carried out at a time, but for mounts and unmounts: those of a server that hangs must not hold up the others,
/// and they are bounded by the connections.
const REQUESTS: usize = 64;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);

const CALLER: Caller = Caller::admin(Frontend::Cli);

/// Those who carry requests out.
pub(crate) struct Parts {
    service: Arc<dyn VolumeService>,
    pool: Arc<dyn WorkerPool>,
    flexvolume: flexvolume::Server,
    requests: Semaphore,
}

impl Parts {
    pub(crate) fn new(
        service: Arc<dyn VolumeService>,
        pool: Arc<dyn WorkerPool>,
        flexvolume: flexvolume::Server,
    ) -> Arc<Parts> {
        Arc::new(Parts { service, pool, flexvolume, requests: Semaphore::new(REQUESTS) })
    }

    /// Waits for a turn to carry a request out, if it needs one.
    async fn turn(&self, request: &Request) -> Option<SemaphorePermit<'_>> {
        match request {
            Request::Hello
            | Request::Mount { .. }
            | Request::Umount { .. }
            | Request::FlexvolumeMount(_)
            | Request::FlexvolumeKeep
            | Request::FlexvolumeUnmount(_) => None,
            Request::Status
            | Request::VolumeList
            | Request::VolumeCreate { .. }
            | Request::VolumeRemove { .. }
            | Request::VolumeInspect { .. }
            | Request::Refresh => Some(self.requests.acquire().await.expect("the semaphore is never closed")),
        }
    }
}

/// Serves the control socket until the task is dropped.
pub(crate) async fn serve(listener: UnixListener, parts: Arc<Parts>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let parts = parts.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(Connection::new(stream), &parts).await {
                        tracing::debug!(%error, "a control connection broke");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut connection: Connection, parts: &Parts) -> std::io::Result<()> {
    let mut pending = None;
    let ended = talk(&mut connection, parts, &mut pending).await;
    if let Some(pending) = pending {
        pending.give_back().await;
    }
    ended
}

/// `pending` is a mount that the client has been told of and has not confirmed yet.
async fn talk(
    connection: &mut Connection,
    parts: &Parts,
    pending: &mut Option<Pending>,
) -> std::io::Result<()> {
    loop {
        let patience = if pending.is_some() { TRANSFER } else { IDLE };
        let json = match connection.hear(patience).await? {
            Heard::Message(json) => json,
            Heard::End => return Ok(()),
            Heard::TooLong(length) => {
                let detail = format!("the request has {length} bytes; {LIMIT} is the limit");
                return connection.say(&refused("read request", detail)).await;
            }
        };
        let response = match serde_json::from_slice::<Request>(&json) {
            Ok(request) => {
                let span = tracing::info_span!("control", request = %summary(&request));
                let answered = respond(request, parts, pending).instrument(span);
                // What its client does not wait for any more is not done; the registry undoes what it has begun.
                tokio::select! {
                    response = answered => response,
                    () = connection.hung_up() => {
                        tracing::info!("a client went away before it was answered");
                        return Ok(());
                    }
                }
            }
            Err(error) => refused("read request", error.to_string()),
        };
        connection.say(&response).await?;
    }
}

fn refused(op: &str, detail: impl Into<String>) -> Response {
    Response::Error(Fault::new(FaultKind::InvalidArgument, op, "", detail))
}

async fn respond(request: Request, parts: &Parts, pending: &mut Option<Pending>) -> Response {
    if request == Request::FlexvolumeKeep {
        return match pending.take() {
            Some(mounted) => {
                mounted.keep();
                Response::Ok(serde_json::Value::Null)
            }
            None => refused("keep", "this connection has no mount that could be confirmed"),
        };
    }
    // A client that goes on to something else does not want it.
    if let Some(mounted) = pending.take() {
        mounted.give_back().await;
    }
    let result = match request {
        Request::FlexvolumeMount(request) => {
            let mounted = parts.flexvolume.mount(&request).await;
            value(mounted.map(|mounted| Mounted { path: pending.insert(mounted).path().clone() }))
        }
        other => answer(other, parts).await,
    };
    match result {
        Ok(value) => Response::Ok(value),
        Err(fault) => {
            tracing::info!(%fault, "refused");
            Response::Error(fault)
        }
    }
}

/// For the log: what is asked about what, without options (they can be anything).
fn summary(request: &Request) -> String {
    match request {
        Request::Hello => "hello".to_owned(),
        Request::Status => "status".to_owned(),
        Request::Mount { name, .. } => format!("mount {name}"),
        Request::Umount { target } => format!("umount {target}"),
        Request::VolumeList => "volume ls".to_owned(),
        Request::VolumeCreate { name, .. } => format!("volume create {name}"),
        Request::VolumeRemove { name } => format!("volume rm {name}"),
        Request::VolumeInspect { name } => format!("volume inspect {name}"),
        Request::Refresh => "refresh".to_owned(),
        Request::FlexvolumeMount(request) => format!("flexvolume mount {}", request.target),
        Request::FlexvolumeKeep => "flexvolume keep".to_owned(),
        Request::FlexvolumeUnmount(request) => format!("flexvolume unmount {}", request.target),
    }
}

async fn answer(request: Request, parts: &Parts) -> Result<serde_json::Value, Fault> {
    let version = || env!("CARGO_PKG_VERSION").to_owned();
    let _turn = parts.turn(&request).await;
    let service = &*parts.service;
    match request {
        Request::Hello => value(Ok(Hello { version: version(), pid: std::process::id() })),
        Request::Status => value(Ok(Status {
            version: version(),
            pid: std::process::id(),
            mounts: fresh(service.mounts().await, &parts.pool).await,
            released: parts.pool.released().await,
        })),
        Request::Mount { name, options, target } => value(mount(service, &name, &options, target).await),
        Request::Umount { target } => value(umount(service, &target).await),
        Request::VolumeList => value(list(service).await),
        Request::VolumeCreate { name, options } => value(create(service, &name, &options).await),
        Request::VolumeRemove { name } => value(remove(service, &name).await),
        Request::VolumeInspect { name } => value(inspect(service, &name).await),
        Request::Refresh => value(service.refresh(Driver::Cvmfs).await),
        Request::FlexvolumeUnmount(request) => value(parts.flexvolume.unmount(&request).await),
        Request::FlexvolumeMount(_) | Request::FlexvolumeKeep => unreachable!("answered before"),
    }
}

/// The registry answers from memory; whoever asks for the status wants to know how the workers are now. Bounded by the
/// pool's own deadline for a report.
async fn fresh(mounts: Vec<MountStatus>, pool: &Arc<dyn WorkerPool>) -> Vec<MountStatus> {
    let asked: Vec<_> = mounts
        .into_iter()
        .map(|mount| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let report = pool.report(&mount.key).await;
                with_report(mount, report)
            })
        })
        .collect();
    let mut fresh = Vec::with_capacity(asked.len());
    for task in asked {
        if let Ok(mount) = task.await {
            fresh.push(mount);
        }
    }
    fresh
}

fn with_report(mut mount: MountStatus, report: Option<Result<WorkerReport, Fault>>) -> MountStatus {
    match report {
        Some(Ok(report)) => {
            mount.worker_pid = (report.pid != 0).then_some(report.pid);
            mount.restarts = report.restarts;
            mount.revision = report.revision.or(mount.revision);
            mount.last_error = report.last_error.or(mount.last_error);
            mount.details = report.details;
            if mount.state == MountState::Live {
                mount.health = report.trouble.unwrap_or_else(|| "healthy".to_owned());
            }
        }
        Some(Err(fault)) => {
            mount.worker_pid = None;
            mount.health.clone_from(&fault.detail);
            mount.last_error = mount.last_error.or(Some(fault.to_string()));
            if mount.state == MountState::Live {
                mount.state = MountState::Stale;
            }
        }
        None => {}
    }
    mount
}

fn value<T: Serialize>(result: Result<T, Fault>) -> Result<serde_json::Value, Fault> {
    result.and_then(|value| {
        serde_json::to_value(value)
            .map_err(|error| Fault::new(FaultKind::Internal, "write answer", "", error.to_string()))
    })
}

fn volume_name(name: &str) -> Result<VolumeName, Fault> {
    name.parse().map_err(|error: volume::NameError| {
        Fault::new(FaultKind::InvalidArgument, "read volume name", name, error.to_string())
    })
}

/// Where something is mounted by hand is who uses it.
fn reference(target: &str) -> RefId {
    RefId { frontend: Frontend::Cli, scope: target.to_owned(), id: String::new() }
}

async fn mount(
    service: &dyn VolumeService,
    name: &str,
    options: &OptionMap,
    target: Option<PathBuf>,
) -> Result<Mounted, Fault> {
    let scope = match &target {
        Some(path) => checked_target(path)?,
        None => name.to_owned(),
    };
    let reference = reference(&scope);
    let target = target.map_or(Target::Shared, |path| Target::Bind(BindTarget::directory(path)));
    let defined = match name.parse::<VolumeName>() {
        Ok(name) if options.is_empty() => service.get(Driver::Cvmfs, &name).await.ok().map(|_| name),
        Ok(_) | Err(_) => None,
    };
    let acquired = match defined {
        Some(name) => service.acquire_named(Driver::Cvmfs, &name, &reference, &target).await?,
        None => {
            let spec = service.parse(Driver::Cvmfs, Some(name), options, &Form::default(), &CALLER)?;
            service.acquire(&spec, &reference, &target, &CALLER).await?
        }
    };
    Ok(Mounted { path: acquired.path })
}

/// Engines repeat themselves and may give back what they never had; a person who does so has mistaken the name.
async fn umount(service: &dyn VolumeService, target: &str) -> Result<(), Fault> {
    let reference = reference(target);
    let mounts = service.mounts().await;
    // A mount that is being made may be the one: the release waits for it.
    let known = mounts
        .iter()
        .any(|mount| mount.state == MountState::Attaching || mount.references.contains(&reference));
    if !known {
        let detail =
            "nothing is mounted there through the daemon; `volplane status` shows what is used by whom";
        return Err(Fault::new(FaultKind::NotFound, "umount", target, detail));
    }
    service.release(&reference).await
}

fn checked_target(path: &Path) -> Result<String, Fault> {
    let text = path.to_str().filter(|text| text.len() <= 4096);
    match text {
        Some(text) if path.is_absolute() => Ok(text.to_owned()),
        Some(_) | None => Err(Fault::new(
            FaultKind::InvalidArgument,
            "mount",
            path.display().to_string(),
            "the target must be an absolute path of at most 4096 bytes of UTF-8",
        )),
    }
}

async fn list(service: &dyn VolumeService) -> Result<Vec<Volume>, Fault> {
    Ok(service.list(Driver::Cvmfs).await?.into_iter().map(Volume::from).collect())
}

async fn create(service: &dyn VolumeService, name: &str, options: &OptionMap) -> Result<Volume, Fault> {
    service.define(Driver::Cvmfs, &volume_name(name)?, options, &CALLER).await.map(Volume::from)
}

async fn remove(service: &dyn VolumeService, name: &str) -> Result<(), Fault> {
    service.remove(Driver::Cvmfs, &volume_name(name)?).await
}

async fn inspect(service: &dyn VolumeService, name: &str) -> Result<Volume, Fault> {
    service.get(Driver::Cvmfs, &volume_name(name)?).await.map(Volume::from)
}
