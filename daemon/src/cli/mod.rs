//! The command line. One file per command; what they print is for people, `--json` for programs.

mod arguments;
mod cvmfs;
mod documents;
mod mount;
mod status;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, DEFAULT_RUN_DIR, Overrides};
use crate::control::ClientError;
use crate::{logging, serve, worker};

pub(crate) use arguments::OptionArgument;

/// Science storage in containers.
#[derive(Debug, Parser)]
#[command(
    name = "volplane",
    version,
    about = "Science storage in containers",
    long_about = "volplane gives containers CernVM-FS repositories as volumes, verified byte for byte by a client of its own. \
                  A daemon (`volplane serve`) answers container engines; the other commands speak to it, or work by themselves.",
    after_help = "Examples:\n  \
                  volplane serve                                   run the daemon (as root; systemd does it)\n  \
                  volplane status                                  mounts, who uses them, revision, health\n  \
                  volplane mount cms.cern.ch /mnt                  mount by hand, through the daemon\n  \
                  volplane mount --foreground cms.cern.ch ~/cms    without any daemon, also as an ordinary user\n  \
                  docker run --volume-driver cvmfs -v cms.cern.ch:/cvmfs/cms.cern.ch IMAGE …\n\n\
                  Exit status: 0 done, 1 it failed (standard error says why and what to do), 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(ServeArguments),
    /// Show mounts, their users, revision and health
    Status(status::StatusArguments),
    /// Mount a volume by hand
    Mount(mount::MountArguments),
    /// Take away what `mount` made
    Umount(mount::UmountArguments),
    /// Look for new revisions of all repositories now
    Refresh(Reach),
    /// Define, list, show and remove volumes
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// CernVM-FS: show the configuration, publish and serve repositories
    #[command(subcommand)]
    Cvmfs(cvmfs::CvmfsCommand),
    /// Print a completion script for a shell
    Completions(documents::CompletionsArguments),
    /// Print the manual page
    Man,
    /// Serve one mount; started by the daemon
    #[command(hide = true)]
    Worker(worker::WorkerArguments),
}

#[derive(Debug, Args)]
struct ServeArguments {
    /// Settings [default: /etc/volplane/volplane.toml, which may be missing]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// Read the settings, say what is wrong with them, and end
    #[arg(long)]
    check: bool,
}

/// Which daemon a command speaks to.
#[derive(Debug, Args)]
struct Reach {
    /// The daemon's run directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
}

/// Why a command ended without doing its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The daemon.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Anything that says by itself what was done to what.
    #[error(transparent)]
    Fault(#[from] ::volume::Fault),
    /// Publishing.
    #[error(transparent)]
    Publish(#[from] ::cvmfs::publish::PublishError),
    /// Serving files.
    #[error(transparent)]
    Serve(#[from] ::cvmfs::publish::serve::ServeError),
    /// Reading the site's configuration or starting: a sentence.
    #[error("{0}")]
    Other(String),
}

impl CliError {
    /// For errors that carry their own sentence.
    pub(crate) fn other(error: impl std::fmt::Display) -> Self {
        CliError::Other(error.to_string())
    }
}

/// Runs the command of this process's arguments.
pub(crate) fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Worker(arguments) => return worker::main(&arguments),
        Command::Serve(arguments) => serve_daemon(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Mount(arguments) => mount::mount(&arguments),
        Command::Umount(arguments) => mount::umount(&arguments),
        Command::Refresh(reach) => mount::refresh(&reach),
        Command::Volume(command) => volume::run(&command),
        Command::Cvmfs(command) => cvmfs::run(&command),
        Command::Completions(arguments) => documents::completions(&arguments),
        Command::Man => documents::man(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volplane: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_daemon(arguments: &ServeArguments) -> Result<(), CliError> {
    // First of all: the numbers of inherited descriptors must not be taken by others.
    let inherited = host::inherited::take().map_err(CliError::other)?;
    let config = Config::load(arguments.config.as_deref(), &arguments.overrides)?;
    if arguments.check {
        println!("the settings are good");
        return Ok(());
    }
    logging::start(&config.log);
    serve::run(config, inherited)
}
