//! `volplane mount`, `umount` and `refresh`.

use std::path::PathBuf;

use clap::Args;

use super::{CliError, OptionArgument, Reach};
use crate::control::{self, Request};
use crate::foreground;

#[derive(Debug, Args)]
#[command(
    after_help = "NAME is a repository (cms.cern.ch, cms.cern.ch@tag, cms.cern.ch#hash), `cvmfs` for all of /cvmfs, or a \
                        volume made with `volplane volume create`.\n\n\
                        Examples:\n  \
                        volplane mount cms.cern.ch /mnt\n  \
                        volplane mount -o tag=v1 -o proxy=http://squid:3128 cms.cern.ch /mnt\n  \
                        volplane mount --foreground cms.cern.ch ~/cms       (ends with Ctrl-C or `umount`)"
)]
pub(super) struct MountArguments {
    /// What to mount
    name: String,
    /// Where: a directory, made if its parent exists
    target: PathBuf,
    /// An option of the volume, as of `docker volume create -o`
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    options: Vec<OptionArgument>,
    /// Serve it in this process, without any daemon; as an ordinary user through fusermount3
    #[arg(long)]
    foreground: bool,
    /// With --foreground: CernVM-FS client configuration of the site
    #[arg(long, value_name = "DIR", default_value = "/etc/cvmfs", requires = "foreground")]
    cvmfs_config_dir: PathBuf,
    /// With --foreground: the cache [default: volplane/cvmfs in the user's cache directory]
    #[arg(long, value_name = "DIR", requires = "foreground")]
    cvmfs_cache_dir: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Debug, Args)]
pub(super) struct UmountArguments {
    /// Where it was mounted
    target: PathBuf,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn mount(arguments: &MountArguments) -> Result<(), CliError> {
    let options = OptionArgument::collect(&arguments.options)?;
    let target = std::path::absolute(&arguments.target).map_err(CliError::other)?;
    if arguments.foreground {
        return foreground::run(foreground::Foreground {
            name: arguments.name.clone(),
            target,
            options,
            config_dir: std::path::absolute(&arguments.cvmfs_config_dir).map_err(CliError::other)?,
            cache_dir: arguments.cvmfs_cache_dir.clone(),
        });
    }
    let request = Request::Mount { name: arguments.name.clone(), options, target };
    control::call(&arguments.reach.run_dir, &request)?;
    Ok(())
}

pub(super) fn umount(arguments: &UmountArguments) -> Result<(), CliError> {
    let target = std::path::absolute(&arguments.target).map_err(CliError::other)?;
    control::call(&arguments.reach.run_dir, &Request::Umount { target })?;
    Ok(())
}

pub(super) fn refresh(reach: &Reach) -> Result<(), CliError> {
    control::call(&reach.run_dir, &Request::Refresh)?;
    Ok(())
}
