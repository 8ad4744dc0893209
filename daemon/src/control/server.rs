//! The daemon's end of the control socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::Instrument;
use volume::{
    BindTarget, Caller, Driver, Fault, FaultKind, Form, Frontend, MountState, MountStatus, OptionMap, RefId,
    Target, VolumeName, VolumeService, WorkerPool, WorkerReport,
};

use super::protocol::{LIMIT, Mounted, Request, Response, Status, Volume};

/// Connections at a time. Idle ones cost no more than a descriptor each.
const CONNECTIONS: usize = 256;

/// Requests carried out at a time.
const REQUESTS: usize = 64;

/// How long a client may take to send a request that it began, or to take an answer.
const TRANSFER: Duration = Duration::from_secs(10);

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(60);

const CALLER: Caller = Caller::admin(Frontend::Cli);

/// Serves the control socket until the task is dropped.
pub(crate) async fn serve(
    listener: UnixListener,
    service: Arc<dyn VolumeService>,
    pool: Arc<dyn WorkerPool>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let requests = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let (service, pool, requests) = (service.clone(), pool.clone(), requests.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &*service, &pool, &requests).await {
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

async fn converse(
    mut stream: UnixStream,
    service: &dyn VolumeService,
    pool: &Arc<dyn WorkerPool>,
    requests: &Semaphore,
) -> std::io::Result<()> {
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    loop {
        let length = match timeout(IDLE, stream.read_u32()).await {
            Ok(Ok(length)) => length as usize,
            // The client is done, or has nothing to say.
            Ok(Err(_)) | Err(_) => return Ok(()),
        };
        let response = if length > LIMIT {
            let detail = format!("the request has {length} bytes; {LIMIT} is the limit");
            Response::Error(Fault::new(FaultKind::InvalidArgument, "read request", "", detail))
        } else {
            let mut json = vec![0u8; length];
            timeout(TRANSFER, stream.read_exact(&mut json)).await.map_err(late)??;
            match serde_json::from_slice::<Request>(&json) {
                Ok(request) => {
                    let span = tracing::info_span!("control", request = %summary(&request));
                    let _slot = requests.acquire().await.expect("the semaphore is never closed");
                    answer(request, service, pool).instrument(span).await
                }
                Err(error) => Response::Error(Fault::new(
                    FaultKind::InvalidArgument,
                    "read request",
                    "",
                    error.to_string(),
                )),
            }
        };
        let json = serde_json::to_vec(&response)?;
        timeout(TRANSFER, async {
            stream.write_u32(u32::try_from(json.len()).unwrap_or(u32::MAX)).await?;
            stream.write_all(&json).await
        })
        .await
        .map_err(late)??;
        if length > LIMIT {
            return Ok(());
        }
    }
}

/// For the log: what is asked about what, without options (they can be anything).
fn summary(request: &Request) -> String {
    match request {
        Request::Status => "status".to_owned(),
        Request::Mount { name, .. } => format!("mount {name}"),
        Request::Umount { target } => format!("umount {target}"),
        Request::VolumeList => "volume ls".to_owned(),
        Request::VolumeCreate { name, .. } => format!("volume create {name}"),
        Request::VolumeRemove { name } => format!("volume rm {name}"),
        Request::VolumeInspect { name } => format!("volume inspect {name}"),
        Request::Refresh => "refresh".to_owned(),
    }
}

async fn answer(request: Request, service: &dyn VolumeService, pool: &Arc<dyn WorkerPool>) -> Response {
    let result = match request {
        Request::Status => {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            value(Ok(Status {
                version,
                pid: std::process::id(),
                mounts: fresh(service.mounts().await, pool).await,
            }))
        }
        Request::Mount { name, options, target } => value(mount(service, &name, &options, target).await),
        Request::Umount { target } => value(umount(service, &target).await),
        Request::VolumeList => value(list(service).await),
        Request::VolumeCreate { name, options } => value(create(service, &name, &options).await),
        Request::VolumeRemove { name } => value(remove(service, &name).await),
        Request::VolumeInspect { name } => value(inspect(service, &name).await),
        Request::Refresh => value(service.refresh(Driver::Cvmfs).await),
    };
    match result {
        Ok(value) => Response::Ok(value),
        Err(fault) => {
            tracing::info!(%fault, "refused");
            Response::Error(fault)
        }
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
