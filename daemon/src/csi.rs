//! The CSI drivers of this process: their sockets, servers and registration with kubelet.

pub(crate) mod settings;

use std::path::Path;
use std::sync::Arc;

use csi::{Bounds, CallStatistics, CsiConfig, DriverName, NodeId, Registration, Server};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use volume::VolumeService;

use crate::config::Config;
use crate::sockets::{self, SocketError};
use settings::Csi;

/// A driver that listens, before there is a registry to serve from.
pub(crate) struct Listening {
    config: CsiConfig,
    listener: UnixListener,
    registration: Option<Registration>,
}

/// Opens the sockets of all drivers that are switched on.
pub(crate) async fn listen(config: &Config) -> Result<Vec<Listening>, SocketError> {
    let csi = &config.csi;
    let mut open = Vec::new();
    for (driver, endpoint) in csi.switched_on() {
        let settings = csi.driver(driver);
        let name = settings.name.clone().unwrap_or_else(|| DriverName::usual(driver));
        make_directory(&endpoint.0)?;
        let listener = sockets::listen(&endpoint.0, 0o600).await?;
        let mut driver_config = CsiConfig::new(driver, node_id(csi));
        driver_config.topology = csi
            .topology
            .iter()
            .map(|(key, value)| match key.contains('/') {
                true => (key.clone(), value.clone()),
                false => (format!("topology.{name}/{key}"), value.clone()),
            })
            .collect();
        driver_config.roles = csi.roles;
        driver_config.kubelet_dir.clone_from(&config.kubelet_dir);
        driver_config.max_volumes = csi.max_volumes;
        driver_config.version = env!("CARGO_PKG_VERSION").to_owned();
        let registration = (csi.register && csi.roles.node).then(|| Registration {
            name: name.clone(),
            endpoint: settings.kubelet_endpoint.as_ref().unwrap_or(&endpoint.0).clone(),
            directory: config.kubelet_dir.join("plugins_registry"),
        });
        driver_config.name = name;
        open.push(Listening { config: driver_config, listener, registration });
    }
    Ok(open)
}

/// Serves a driver until `stopped`; makes it known to kubelet meanwhile.
pub(crate) fn serve(
    listening: Listening,
    service: Arc<dyn VolumeService>,
    stopped: &watch::Receiver<bool>,
) -> (Arc<CallStatistics>, Vec<JoinHandle<()>>) {
    let Listening { config, listener, registration } = listening;
    tracing::info!(name = %config.name, node = %config.node_id, roles = ?config.roles, "CSI driver");
    let server = Server::new(service, config, Bounds::default());
    let statistics = server.statistics();
    let stop = |stopped: &watch::Receiver<bool>| {
        let mut stopped = stopped.clone();
        async move {
            // The sender lives as long as the daemon.
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let mut tasks = vec![tokio::spawn(server.serve(listener, stop(stopped)))];
    if let Some(registration) = registration {
        tasks.push(tokio::spawn(registration.keep(stop(stopped))));
    }
    (statistics, tasks)
}

/// The directory of a socket, in a directory that exists: a typing mistake in a path shall not be built.
fn make_directory(socket: &Path) -> Result<(), SocketError> {
    let Some(directory) = socket.parent() else { return Ok(()) };
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(SocketError::Io { path: directory.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// The node's id: configured, else as the pod's environment says, else the host's name.
fn node_id(csi: &Csi) -> NodeId {
    let named = || std::env::var("NODE_NAME").ok()?.parse().ok();
    let host = || nix::unistd::gethostname().ok()?.into_string().ok()?.parse().ok();
    let configured = csi.node_id.clone().or_else(named).or_else(host);
    configured.unwrap_or_else(|| "localhost".parse().expect("a word is a node id"))
}
