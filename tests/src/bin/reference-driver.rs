//! A CSI driver on the reference backend: `reference-driver SOCKET DIRECTORY KUBELET-DIRECTORY [PASSWORD]`.
//!
//! The registry and the CSI frontend are the daemon's own; only the backend is the tests'. Serves until SIGTERM; mounts and
//! state stay, and the next start with the same directory goes on with them.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use registry::{Registry, RegistryConfig};
use system_tests::reference::{Reference, ReferenceConfig};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use volume::{Driver, Segments};

/// Name of the only node.
const NODE: &str = "reference-node";

/// Volumes that it may have published at once.
const MAX_VOLUMES: u32 = 8;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, directory, kubelet_dir, password @ ..] = arguments.as_slice() else {
        eprintln!("usage: reference-driver SOCKET DIRECTORY KUBELET-DIRECTORY [PASSWORD]");
        return ExitCode::from(2);
    };
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("threads can be started");
    let served = runtime.block_on(serve(
        socket.into(),
        directory.into(),
        kubelet_dir.into(),
        password.first().cloned(),
    ));
    runtime.shutdown_timeout(Duration::from_secs(2));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reference-driver: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(
    socket: PathBuf,
    directory: PathBuf,
    kubelet_dir: PathBuf,
    password: Option<String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mount_dir = directory.join("mounts");
    let place = Segments::from([("topology.reference.test/zone".to_owned(), "here".to_owned())]);
    let backend = Reference::open(ReferenceConfig {
        root: directory.join("images"),
        mount_dir: mount_dir.clone(),
        node: NODE.to_owned(),
        max_volumes: MAX_VOLUMES as usize,
        place: place.clone(),
        password,
        room: 1 << 40,
    })?;
    let registry = RegistryConfig::new(directory.join("state"), mount_dir);
    let registry = Registry::open(registry, vec![Arc::new(backend)]).await?;
    registry.ready().await;
    let mut config = csi::CsiConfig::new(Driver::Rbd, NODE.parse()?);
    config.kubelet_dir = kubelet_dir;
    config.topology = place;
    config.max_volumes = MAX_VOLUMES;
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = csi::Server::new(registry.clone(), config, csi::Bounds::default());
    let ended = async move {
        let _ = terminate.recv().await;
    };
    server.serve(listener, ended).await;
    registry.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
