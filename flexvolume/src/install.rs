//! Placing the executables where kubelet finds them: `DIR/VENDOR~DRIVER/DRIVER`.
//!
//! Kubelet watches the directory and initialises a driver after each change in it, whoever made it and however far it
//! is. So nothing appears under its final name before it is complete, names that begin with a dot (which kubelet passes over)
//! are used on the way, and what is right already is not touched.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use volume::Driver;

use crate::settings::{SETTINGS_FILE, Settings, SettingsError};

/// Where kubelet looks without `--volume-plugin-dir`.
pub const DEFAULT_DIR: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// The first half of `cern/cvmfs`.
pub const DEFAULT_VENDOR: &str = "cern";

/// Largest executable that is taken for ours, bytes.
const EXECUTABLE_LIMIT: u64 = 256 << 20;

/// It could not be placed or removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A vendor that kubelet would not find, or that leaves the directory.
    #[error("{0:?} is no vendor: use letters, digits, `-`, `_` and `.`, beginning with a letter or digit")]
    Vendor(String),
    /// Settings that the executable would refuse.
    #[error("{0}")]
    Settings(String),
    /// The executable was found nowhere.
    #[error(
        "the executable volplane-flexvolume is neither at {}; it comes with the package, and `make build` makes it",
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" nor at ")
    )]
    NoExecutable(Vec<PathBuf>),
    /// A file or directory.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A settings file that is not right.
    #[error(transparent)]
    Present(#[from] SettingsError),
}

/// What became of one driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was not there.
    Placed(PathBuf),
    /// Another one was there.
    Updated(PathBuf),
    /// It was there as it should be.
    Unchanged(PathBuf),
    /// It is gone.
    Removed(PathBuf),
    /// There was nothing to remove.
    Absent(PathBuf),
    /// Somebody else's driver; left alone.
    Foreign(PathBuf),
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (path, word) = match self {
            Done::Placed(path) => (path, "placed"),
            Done::Updated(path) => (path, "updated"),
            Done::Unchanged(path) => (path, "unchanged"),
            Done::Removed(path) => (path, "removed"),
            Done::Absent(path) => (path, "is not there"),
            Done::Foreign(path) => (path, "was not placed by volplane; left alone"),
        };
        write!(f, "{}: {word}", path.display())
    }
}

/// The executable that belongs to `program` (the `volplane` binary): beside it, or where packages put it.
///
/// # Errors
/// It is at none of these places.
pub fn executable_of(program: &Path) -> Result<PathBuf, InstallError> {
    let directory = program.parent().unwrap_or(Path::new("/"));
    let places =
        [directory.join("volplane-flexvolume"), directory.join("../libexec/volplane/volplane-flexvolume")];
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(place.clone()),
        None => Err(InstallError::NoExecutable(places.to_vec())),
    }
}

/// A directory of drivers, of one vendor.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
    vendor: String,
}

impl Directory {
    /// Checks the vendor; the directory may be missing.
    ///
    /// # Errors
    /// A vendor that is no name.
    pub fn new(path: PathBuf, vendor: &str) -> Result<Directory, InstallError> {
        let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let good = vendor.len() <= 100
            && vendor.starts_with(|c: char| c.is_ascii_alphanumeric())
            && vendor.chars().all(letters);
        if !good {
            return Err(InstallError::Vendor(vendor.to_owned()));
        }
        Ok(Directory { path, vendor: vendor.to_owned() })
    }

    fn home(&self, driver: Driver) -> PathBuf {
        self.path.join(format!("{}~{driver}", self.vendor))
    }

    /// Places or updates a driver.
    ///
    /// # Errors
    /// What the system refused; a driver that was there before is as it was.
    pub fn install(
        &self,
        driver: Driver,
        executable: &Path,
        settings: &Settings,
    ) -> Result<Done, InstallError> {
        settings.check().map_err(InstallError::Settings)?;
        let program = read(executable)?;
        let mut json = serde_json::to_vec_pretty(settings).expect("plain data becomes JSON");
        json.push(b'\n');
        let home = self.home(driver);
        let place = home.join(driver.as_str());
        if !home.exists() {
            // As a whole: kubelet must not find the directory before its driver.
            fs::create_dir_all(&self.path).map_err(at(&self.path))?;
            let hidden = self.path.join(format!(".{}~{driver}.{}", self.vendor, std::process::id()));
            // A container's process ids repeat: one that was killed here may have left its own.
            if hidden.exists() {
                fs::remove_dir_all(&hidden).map_err(at(&hidden))?;
            }
            let made = fs::create_dir(&hidden)
                .and_then(|()| fs::set_permissions(&hidden, Permissions::from_mode(0o755)))
                .and_then(|()| put(&hidden, SETTINGS_FILE, &json, 0o644))
                .and_then(|()| put(&hidden, driver.as_str(), &program, 0o755))
                .and_then(|()| fs::rename(&hidden, &home))
                .and_then(|()| synced(&self.path));
            return match made {
                Ok(()) => Ok(Done::Placed(place)),
                Err(source) => {
                    let _ = fs::remove_dir_all(&hidden);
                    Err(InstallError::Io { path: home, source })
                }
            };
        }
        let was_there = place.exists();
        let is_right = was_there && is_same(&place, &program, 0o755);
        if !is_same(&home.join(SETTINGS_FILE), &json, 0o644) {
            put(&home, SETTINGS_FILE, &json, 0o644).map_err(at(&home))?;
        } else if is_right {
            return Ok(Done::Unchanged(place));
        }
        if !is_right {
            put(&home, driver.as_str(), &program, 0o755).map_err(at(&place))?;
        }
        Ok(if was_there { Done::Updated(place) } else { Done::Placed(place) })
    }

    /// Removes a driver that [`install`](Directory::install) placed, and its directory if nothing else is in it.
    ///
    /// # Errors
    /// What the system refused.
    pub fn uninstall(&self, driver: Driver) -> Result<Done, InstallError> {
        let home = self.home(driver);
        let place = home.join(driver.as_str());
        let settings = home.join(SETTINGS_FILE);
        if !settings.exists() {
            return Ok(if place.exists() { Done::Foreign(place) } else { Done::Absent(place) });
        }
        // The mark that it is ours goes last, so that an interrupted removal can be repeated.
        for file in [&place, &settings] {
            match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(file)(error)),
                Ok(()) | Err(_) => {}
            }
        }
        match fs::remove_dir(&home) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(at(&home)(error)),
            Ok(()) | Err(_) => Ok(Done::Removed(place)),
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { path, source }
}

fn read(path: &Path) -> Result<Vec<u8>, InstallError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(EXECUTABLE_LIMIT).read_to_end(&mut bytes));
    read.map_err(at(path))?;
    Ok(bytes)
}

/// Whether the file has this content and at least this mode.
fn is_same(path: &Path, content: &[u8], mode: u32) -> bool {
    let right_mode =
        path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o777 == mode);
    right_mode && read(path).is_ok_and(|there| there == content)
}

/// Puts a file in place at once: a hidden one beside it, synced, renamed.
fn put(directory: &Path, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let hidden = directory.join(format!(".{}.{}", name.trim_start_matches('.'), std::process::id()));
    let written = (|| {
        let _ = fs::remove_file(&hidden);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&hidden)?;
        file.write_all(content)?;
        // The mode that was asked for is cut by the umask.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        drop(file);
        fs::rename(&hidden, directory.join(name))?;
        synced(directory)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    written
}

fn synced(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
