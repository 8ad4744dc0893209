//! The daemon's end of the control socket.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{Instrument, debug, info, info_span, warn};
use volume::{Caller, Driver, Fault, FaultKind, Frontend, RefId, Target, VolumeService};

use super::{MAX_MESSAGE_BYTES, Request, Response, Status, Volume};

/// Connections at once.
const CONNECTIONS: usize = 64;
/// How long a client may take to send a message that it has begun, or to begin one.
const RECEIVE_LIMIT: Duration = Duration::from_secs(10);

/// Serves until the listener fails for good; the caller aborts it at shutdown.
pub(crate) async fn serve(listener: UnixListener, service: Arc<dyn VolumeService>) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &*service).await {
                        debug!(%error, "control connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                warn!(%error, "accept on the control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(mut stream: UnixStream, service: &dyn VolumeService) -> io::Result<()> {
    loop {
        let message = match timeout(RECEIVE_LIMIT, receive(&mut stream)).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        let response = match serde_json::from_slice::<Request>(&message) {
            Ok(request) => answer(service, request).await,
            Err(error) => {
                let detail = format!("{error}; see proto/control.md");
                Response::Fault(Fault::new(FaultKind::InvalidArgument, "read control request", "", detail))
            }
        };
        let bytes = serde_json::to_vec(&response)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&bytes).await?;
    }
}

/// One message; `None` when the client is done.
async fn receive(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(head);
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::other(format!(
            "a message of {length} bytes; {MAX_MESSAGE_BYTES} is the limit"
        )));
    }
    let mut bytes = Vec::new();
    let read = stream.take(u64::from(length)).read_to_end(&mut bytes).await?;
    if read < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(bytes))
}

async fn answer(service: &dyn VolumeService, request: Request) -> Response {
    let span = info_span!("control", request = ?request);
    async {
        match act(service, request).await {
            Ok(response) => response,
            Err(fault) => {
                info!(error = %fault, "refused");
                Response::Fault(fault)
            }
        }
    }
    .instrument(span)
    .await
}

async fn act(service: &dyn VolumeService, request: Request) -> Result<Response, Fault> {
    let driver = Driver::Cvmfs;
    let caller = Caller { frontend: Frontend::Cli };
    match request {
        Request::Status => Ok(Response::Status(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            mounts: service.mounts().await,
        })),
        Request::Mount { name, options, target } => {
            let reference = by_hand(&target)?;
            let bind = Target::Bind(target);
            let defined = name.parse().ok().filter(|_| options.is_empty());
            if let Some(name) = defined
                && service.get(driver, &name).await.is_ok()
            {
                service.acquire_named(driver, &name, &reference, &bind).await?;
                return Ok(Response::Done);
            }
            let spec = service.parse(driver, Some(&name), &options, &caller)?;
            service.acquire(&spec, &reference, &bind, &caller).await?;
            Ok(Response::Done)
        }
        Request::Umount { target } => {
            let reference = by_hand(&target)?;
            let held = service.mounts().await.iter().any(|mount| mount.references.contains(&reference));
            if !held {
                let detail =
                    "nothing was mounted there with `volplane mount`; `volplane status` lists what was";
                return Err(Fault::new(FaultKind::NotFound, "umount", reference.scope, detail));
            }
            service.release(&reference).await?;
            Ok(Response::Done)
        }
        Request::VolumeList => {
            let volumes = service.list(driver).await?;
            Ok(Response::Volumes(volumes.into_iter().map(Volume::from).collect()))
        }
        Request::VolumeCreate { name, options } => {
            let info = service.define(driver, &name, &options, &caller).await?;
            Ok(Response::Volumes(vec![info.into()]))
        }
        Request::VolumeRemove { name } => service.remove(driver, &name).await.map(|()| Response::Done),
        Request::VolumeInspect { name } => {
            let info = service.get(driver, &name).await?;
            Ok(Response::Volumes(vec![info.into()]))
        }
        Request::Refresh => service.refresh(driver).await.map(|()| Response::Done),
    }
}

/// The reference of a mount by hand: its target path.
fn by_hand(target: &Path) -> Result<RefId, Fault> {
    let text = target.to_str().filter(|_| target.is_absolute()).ok_or_else(|| {
        let detail = "the target must be an absolute path in UTF-8";
        Fault::new(FaultKind::InvalidArgument, "use target", target.display().to_string(), detail)
    })?;
    Ok(RefId { frontend: Frontend::Cli, scope: text.to_owned(), id: String::new() })
}

#[cfg(test)]
mod tests {
    use volume::fake::FakeService;

    use super::*;
    use crate::control::{ClientError, call};

    fn start() -> (tempfile::TempDir, Arc<FakeService>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let service = Arc::new(FakeService::default());
        tokio::spawn(serve(listener, service.clone()));
        (dir, service)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_mount_by_hand_comes_and_goes() {
        let (dir, service) = start();
        let run_dir = dir.path().to_owned();
        let ask = move |request: Request| call(&run_dir, &request);
        tokio::task::spawn_blocking(move || {
            let name = "a.cern.ch".to_owned();
            let options = volume::OptionMap::new();
            assert_eq!(ask(Request::Mount { name, options, target: "/mnt".into() }).unwrap(), Response::Done);
            assert!(matches!(ask(Request::Status).unwrap(), Response::Status(_)));
            let relative = Request::Umount { target: "mnt".into() };
            assert!(matches!(ask(relative), Err(ClientError::Fault(_))));
        })
        .await
        .unwrap();
        assert_eq!(service.inner.lock().references.first().unwrap().scope, "/mnt");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn garbage_gets_an_answer_or_the_door_and_disturbs_nobody() {
        let (dir, _service) = start();
        let socket = dir.path().join("control.sock");
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(&[0, 0, 0, 2]).await.unwrap();
        stream.write_all(b"[]").await.unwrap();
        let length = stream.read_u32().await.unwrap();
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(String::from_utf8(answer).unwrap().contains("invalid_argument"));
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        stream.write_all(&[0xff; 64]).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        let run_dir = dir.path().to_owned();
        let status = tokio::task::spawn_blocking(move || call(&run_dir, &Request::Status)).await.unwrap();
        assert!(status.is_ok());
    }

    #[test]
    fn without_a_daemon_the_error_says_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = call(dir.path(), &Request::Status).unwrap_err().to_string();
        assert!(error.contains("systemctl start volplane"), "{error}");
    }
}
