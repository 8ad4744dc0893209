//! Making a driver known to kubelet without a sidecar.
//!
//! Kubelet watches a directory for sockets, asks each who it is (`GetInfo`), and says what came of it
//! (`NotifyRegistrationStatus`). It asks again only when the socket is made anew (or kubelet itself is): so it is made
//! anew, with a growing pause, after a refusal, and when it is gone. A restarted kubelet finds the socket by itself.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::pluginregistration::registration_server::{Registration as Registry, RegistrationServer};
use proto::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use crate::config::DriverName;
use crate::connections;

/// First and longest pause before the socket is made anew.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often is looked whether the socket is still there.
const LOOK: Duration = Duration::from_secs(2);
/// Connections at a time; kubelet has one.
const CONNECTIONS: usize = 16;
/// Versions of the interface as kubelet counts them: everything since 1.0 is one.
const VERSIONS: [&str; 1] = ["1.0.0"];

/// A driver that wants to be known to kubelet.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The driver's name.
    pub name: DriverName,
    /// Path of the driver's socket as kubelet sees it.
    pub endpoint: PathBuf,
    /// Kubelet's directory of registration sockets (`<kubelet's root>/plugins_registry`).
    pub directory: PathBuf,
}

/// How an offer ended.
enum Ended {
    Shutdown,
    /// Kubelet said no.
    Refused(String),
    /// The socket is not there any more.
    Gone,
}

impl Registration {
    /// The registration socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(format!("{}-reg.sock", self.name))
    }

    /// Keeps the driver registered until `shutdown`; then the socket is removed, and kubelet forgets the driver.
    pub async fn keep(self, shutdown: impl Future<Output = ()>) {
        tokio::pin!(shutdown);
        let mut pause = PAUSES.0;
        loop {
            let mut known = false;
            let offered = tokio::select! {
                () = &mut shutdown => Ok(Ended::Shutdown),
                offered = self.offer(&mut known) => offered,
            };
            if known {
                pause = PAUSES.0;
            }
            match offered {
                Ok(Ended::Shutdown) => {
                    remove(&self.socket());
                    return;
                }
                Ok(Ended::Refused(error)) => {
                    remove(&self.socket());
                    warn!(driver = %self.name, error, "kubelet did not register the driver; it is offered again");
                }
                Ok(Ended::Gone) => {
                    info!(driver = %self.name, "the registration socket is gone; it is made again");
                }
                Err(error) => {
                    warn!(driver = %self.name, socket = %self.socket().display(), %error, "no registration socket");
                }
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Makes the socket and answers on it. `known` is set when kubelet says that the driver is registered.
    async fn offer(&self, known: &mut bool) -> io::Result<Ended> {
        let socket = self.socket();
        remove(&socket);
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
        let own = inode(&socket)?;
        let (said, mut says) = mpsc::channel(4);
        let answers = RegistrationServer::new(Answers { registration: self.clone(), said });
        let (accepting, incoming) = connections::accept(listener, CONNECTIONS);
        let _abort = Abort(accepting.abort_handle());
        let serving = tonic::transport::Server::builder().serve_with_incoming(answers, incoming);
        tokio::pin!(serving);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = &mut serving => return ended.map(|()| Ended::Gone).map_err(io::Error::other),
                _ = look.tick() => {
                    if inode(&socket).ok() != Some(own) {
                        return Ok(Ended::Gone);
                    }
                }
                Some(status) = says.recv() => match status {
                    Ok(()) => {
                        *known = true;
                        info!(driver = %self.name, endpoint = %self.endpoint.display(), "registered with kubelet");
                    }
                    Err(error) => return Ok(Ended::Refused(error)),
                },
            }
        }
    }
}

/// Stops the accepting task when the offer ends, however it does.
struct Abort(tokio::task::AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|meta| (meta.dev(), meta.ino()))
}

/// Removes a socket; anything else stays, and binding there says so.
fn remove(socket: &Path) {
    if socket.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket()) {
        // Gone meanwhile is as good.
        let _ = std::fs::remove_file(socket);
    }
}

struct Answers {
    registration: Registration,
    said: mpsc::Sender<Result<(), String>>,
}

#[tonic::async_trait]
impl Registry for Answers {
    async fn get_info(&self, _request: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.registration.name.to_string(),
            endpoint: self.registration.endpoint.to_string_lossy().into_owned(),
            supported_versions: VERSIONS.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        let error: String = error.chars().take(500).flat_map(char::escape_debug).collect();
        // The receiver is gone when the socket is being made anew; kubelet asks again then.
        let _ = self.said.send(if plugin_registered { Ok(()) } else { Err(error) }).await;
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

#[cfg(test)]
mod tests;
