//! Commands that the daemon carries out.

use std::path::{Path, PathBuf};

use volume::MountState;

use crate::cli;
use crate::control::client::{ClientError, ask};
use crate::control::protocol::{Mounted, Request, Status, Volume};

/// `status`
pub(crate) fn status(daemon: &cli::Daemon, json: bool) -> Result<(), ClientError> {
    let status: Status = ask(&daemon.socket(), &Request::Status)?;
    if json {
        print_json(&status);
        return Ok(());
    }
    if status.mounts.is_empty() {
        println!("nothing is mounted (daemon {}, pid {})", status.version, status.pid);
    }
    for mount in &status.mounts {
        println!("{}  {}  {}", mount.key, mount.state.as_str(), mount.health);
        println!("    at {}", mount.mountpoint.display());
        if let Some(revision) = &mount.revision {
            println!("    shows {revision}");
        }
        match (mount.worker_pid, mount.state) {
            (Some(pid), _) => println!("    served by process {pid}, started again {} times", mount.restarts),
            (None, MountState::Live) => println!("    its worker is being started again"),
            (None, _) => {}
        }
        for reference in &mount.references {
            println!("    used by {reference}");
        }
        if mount.in_use_without_reference {
            println!("    no reference is left, but a process still sees it");
        }
        if let Some(error) = &mount.last_error {
            println!("    last error: {error}");
        }
        for (name, value) in &mount.details {
            println!("    {name}: {value}");
        }
    }
    for mount in &status.released {
        println!("{}  released  {}", mount.key, mount.trouble.as_deref().unwrap_or("healthy"));
        println!("    taken down at {}, but a mount namespace elsewhere still holds it", mount.since);
        if let Some(pid) = mount.worker_pid {
            println!("    served by process {pid}, started again {} times", mount.restarts);
        }
    }
    Ok(())
}

/// `mount` through the daemon
pub(crate) fn mount(mount: &cli::Mount) -> Result<(), ClientError> {
    let target = mount.target.as_deref().map(absolute);
    let options = mount.option.iter().cloned().collect();
    let request = Request::Mount { name: mount.name.clone(), options, target };
    let mounted: Mounted = ask(&mount.daemon.socket(), &request)?;
    println!("{}", mounted.path.display());
    Ok(())
}

/// `umount`
pub(crate) fn umount(daemon: &cli::Daemon, target: &Path) -> Result<(), ClientError> {
    let as_path = absolute(target);
    let target =
        if target.components().count() == 1 && !as_path.exists() { target.to_owned() } else { as_path };
    ask::<()>(&daemon.socket(), &Request::Umount { target: target.to_string_lossy().into_owned() })
}

/// `refresh`
pub(crate) fn refresh(daemon: &cli::Daemon) -> Result<(), ClientError> {
    ask::<()>(&daemon.socket(), &Request::Refresh)
}

/// `volume …`
pub(crate) fn volume(command: cli::Volume) -> Result<(), ClientError> {
    match command {
        cli::Volume::Ls { json, daemon } => {
            let volumes: Vec<Volume> = ask(&daemon.socket(), &Request::VolumeList)?;
            if json {
                print_json(&volumes);
            } else {
                for volume in volumes {
                    let place = volume.mountpoint.map_or("-".to_owned(), |path| path.display().to_string());
                    println!("{}\t{}\t{place}", volume.driver, volume.name);
                }
            }
            Ok(())
        }
        cli::Volume::Create { name, option, daemon } => {
            let options = option.into_iter().collect();
            let volume: Volume = ask(&daemon.socket(), &Request::VolumeCreate { name, options })?;
            println!("{}", volume.name);
            Ok(())
        }
        cli::Volume::Rm { name, daemon } => ask::<()>(&daemon.socket(), &Request::VolumeRemove { name }),
        cli::Volume::Inspect { name, daemon } => {
            let volume: Volume = ask(&daemon.socket(), &Request::VolumeInspect { name })?;
            print_json(&volume);
            Ok(())
        }
    }
}

fn print_json<T: serde::Serialize>(value: &T) {
    println!("{}", serde_json::to_string_pretty(value).expect("plain data becomes JSON"));
}

/// The path as the daemon must hear it: absolute, without `.` and `..` (symbolic links are left to the daemon).
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}
