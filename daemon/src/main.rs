//! The `volplane` binary: daemon, workers and command line in one.
//!
//! Composition root: the only place where frontends, plugins, registry and supervisor meet.

#![forbid(unsafe_code)]

mod backends;
mod cli;
mod commands;
mod config;
mod control;
mod csi;
mod logging;
mod metrics;
mod serve;
mod sockets;
mod worker;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command, Cvmfs};
use crate::commands::{daemon_side, foreground, manual, nursery, publish, showconfig};

fn main() -> ExitCode {
    // First of all, before any other file is open.
    let inherited = host::inherited::take();
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Serve(serve) => serve_daemon(&serve, inherited),
        Command::Worker(arguments) => {
            logging::start(arguments.log_format, &arguments.log_level, arguments.mount.as_deref());
            worker::run(&arguments).map_err(Box::from)
        }
        Command::Nursery(arguments) => {
            logging::start(arguments.log_format, &arguments.log_level, None);
            nursery::run(&arguments)
        }
        other => run(other),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volplane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_daemon(
    serve: &cli::Serve,
    inherited: Result<Vec<host::inherited::InheritedFd>, host::inherited::InheritedError>,
) -> Result<(), Box<dyn Error>> {
    let config = serve.read()?;
    if serve.check {
        println!("the settings are good");
        return Ok(());
    }
    logging::start(config.log.format, &config.log.level, None);
    let inherited = inherited.unwrap_or_else(|error| {
        tracing::warn!(%error, "the service manager's descriptors cannot be used");
        Vec::new()
    });
    Ok(serve::run(&config, serve.unmount_on_exit, inherited)?)
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Status { json, daemon } => daemon_side::status(&daemon, json)?,
        Command::Mount(mount) => match &mount.target {
            Some(target) if mount.foreground => foreground::run(&mount, target)?,
            Some(_) | None => daemon_side::mount(&mount)?,
        },
        Command::Umount { target, daemon } => daemon_side::umount(&daemon, &target)?,
        Command::Volume { command } => daemon_side::volume(command)?,
        Command::Refresh { daemon } => daemon_side::refresh(&daemon)?,
        Command::Cvmfs { command } => match command {
            Cvmfs::Showconfig { repository, json, settings } => {
                showconfig::run(&repository, json, &settings)?;
            }
            Cvmfs::Publish(arguments) => publish::run(&arguments)?,
            Cvmfs::Serve { directory, listen } => {
                logging::start(config::LogFormat::Text, "warn", None);
                publish::serve(&directory, listen)?;
            }
        },
        Command::Flexvolume { command } => commands::flexvolume::run(&command)?,
        Command::Completions { shell } => manual::completions(shell),
        Command::Man => manual::page()?,
        Command::Serve(_) | Command::Worker(_) | Command::Nursery(_) => unreachable!("main takes these"),
    }
    Ok(())
}
