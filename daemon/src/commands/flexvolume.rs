//! `volplane flexvolume`: places the drivers that kubelet runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use flexvolume::Settings;
use flexvolume::install::{DEFAULT_DIR, DEFAULT_VENDOR, Directory, InstallError, executable_of};
use volume::Driver;

/// Drivers that the daemon of this build has.
const BUILT: [Driver; 1] = [Driver::Cvmfs];

#[derive(Debug, Subcommand)]
pub(crate) enum Flexvolume {
    /// Place or update the drivers
    #[command(
        after_help = "Each driver is DIR/VENDOR~DRIVER/DRIVER, complete from the moment that it is there; pods name it \
        VENDOR/DRIVER. What is right already is not touched, so this can be run again at any time, also by an init \
        container that has the node's DIR mounted. kubelet needs no restart.\n\nExamples:\n  \
        volplane flexvolume install\n  \
        volplane flexvolume install --dir /var/lib/kubelet/volumeplugins --run-dir /run/volplane"
    )]
    Install(Install),
    /// Remove the drivers that were placed
    #[command(after_help = "Example:\n  volplane flexvolume uninstall")]
    Uninstall(Which),
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    which: Which,
    /// Run directory of the daemon that the drivers ask, as kubelet sees it; VOLPLANE_RUN_DIR in kubelet's environment
    /// wins
    #[arg(long, value_name = "DIR", default_value = flexvolume::DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
    /// Give a mount up after so many seconds (kubelet itself would wait for ever)
    #[arg(long, value_name = "SECONDS", default_value_t = Settings::default().mount_deadline_seconds)]
    mount_deadline: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Kubelet's directory of volume plugins (its --volume-plugin-dir)
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// First half of the drivers' names
    #[arg(long, default_value = DEFAULT_VENDOR)]
    vendor: String,
    /// Which drivers, with commas [default: all that this build has]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = driver)]
    drivers: Vec<Driver>,
}

impl Which {
    fn directory(&self) -> Result<Directory, InstallError> {
        Directory::new(self.dir.clone(), &self.vendor)
    }

    fn drivers(&self) -> &[Driver] {
        if self.drivers.is_empty() { &BUILT } else { &self.drivers }
    }
}

fn driver(name: &str) -> Result<Driver, String> {
    let driver: Driver = name.parse().map_err(|error: volume::UnknownDriver| error.to_string())?;
    if BUILT.contains(&driver) { Ok(driver) } else { Err(format!("this build has no {driver}")) }
}

/// Carries it out; prints one line for each driver.
pub(crate) fn run(command: &Flexvolume) -> Result<(), InstallError> {
    match command {
        Flexvolume::Install(install) => {
            let program = std::env::current_exe()
                .map_err(|source| InstallError::Io { path: "/proc/self/exe".into(), source })?;
            let executable = executable_of(&program)?;
            let directory = install.which.directory()?;
            let settings =
                Settings { run_dir: install.run_dir.clone(), mount_deadline_seconds: install.mount_deadline };
            for driver in install.which.drivers() {
                println!("{}", directory.install(*driver, &executable, &settings)?);
            }
        }
        Flexvolume::Uninstall(which) => {
            let directory = which.directory()?;
            for driver in which.drivers() {
                println!("{}", directory.uninstall(*driver)?);
            }
        }
    }
    Ok(())
}
