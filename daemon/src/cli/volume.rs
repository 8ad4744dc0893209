//! `volplane volume`: the same volumes as `docker volume` shows.

use clap::{Args, Subcommand};
use volume::VolumeName;

use super::{CliError, OptionArgument, Reach};
use crate::control::{self, Request, Response, Volume};

#[derive(Debug, Subcommand)]
pub(super) enum VolumeCommand {
    /// List all volumes
    Ls(Reach),
    /// Define a volume
    Create(CreateArguments),
    /// Forget a volume that nobody uses
    Rm(NameArguments),
    /// Show one volume as JSON
    Inspect(NameArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  volplane volume create cms.cern.ch\n  \
                        volplane volume create -o repository=cms.cern.ch -o tag=v1 software\n  \
                        volplane volume create -o 'repository=*' everything")]
pub(super) struct CreateArguments {
    /// Its name; a repository's name needs no options
    name: VolumeName,
    /// An option: repository, tag, hash, date, proxy, server, public_key, quota, … or any CVMFS_ parameter
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    options: Vec<OptionArgument>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct NameArguments {
    /// Its name
    name: VolumeName,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(command: &VolumeCommand) -> Result<(), CliError> {
    match command {
        VolumeCommand::Ls(reach) => {
            for volume in volumes(control::call(&reach.run_dir, &Request::VolumeList)?)? {
                let state = volume.mount.as_ref().map_or("absent", |mount| mount.state.as_str());
                println!("{:<40} {state}", volume.name);
            }
        }
        VolumeCommand::Create(arguments) => {
            let options = OptionArgument::collect(&arguments.options)?;
            let request = Request::VolumeCreate { name: arguments.name.clone(), options };
            control::call(&arguments.reach.run_dir, &request)?;
            println!("{}", arguments.name);
        }
        VolumeCommand::Rm(arguments) => {
            let request = Request::VolumeRemove { name: arguments.name.clone() };
            control::call(&arguments.reach.run_dir, &request)?;
            println!("{}", arguments.name);
        }
        VolumeCommand::Inspect(arguments) => {
            let request = Request::VolumeInspect { name: arguments.name.clone() };
            for volume in volumes(control::call(&arguments.reach.run_dir, &request)?)? {
                println!("{}", serde_json::to_string_pretty(&volume).map_err(CliError::other)?);
            }
        }
    }
    Ok(())
}

fn volumes(response: Response) -> Result<Vec<Volume>, CliError> {
    match response {
        Response::Volumes(volumes) => Ok(volumes),
        Response::Status(_) | Response::Done | Response::Fault(_) => {
            Err(CliError::Other("the daemon answered something else; is it of the same version?".into()))
        }
    }
}
