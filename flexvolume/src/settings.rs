//! Where the executable finds its daemon.
//!
//! The environment variable wins (kubelet's environment is handed down), then the file that `volplane flexvolume install`
//! leaves beside the executable, then the default. The file's name begins with a dot: kubelet watches the directory and
//! initialises the driver anew after each change but of such files.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The run directory of a daemon that was not told another one.
pub const DEFAULT_RUN_DIR: &str = "/run/volplane";

/// Name of the settings file beside the executable.
pub const SETTINGS_FILE: &str = ".volplane.json";

/// Largest settings file, bytes.
const LIMIT: u64 = 64 << 10;

/// Less than the daemon's own 110 s, so that the executable knows what the daemon said.
const MOUNT_DEADLINE_SECONDS: u64 = 100;

/// The settings of an installed driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The daemon's run directory; its `control.sock` is asked.
    pub run_dir: PathBuf,
    /// After so long a mount is given up and taken back. Kubelet itself would wait for ever.
    pub mount_deadline_seconds: u64,
}

/// The settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It has no settings in it.
    #[error("{}: {detail}; `volplane flexvolume install` writes it anew", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Settings { run_dir: DEFAULT_RUN_DIR.into(), mount_deadline_seconds: MOUNT_DEADLINE_SECONDS }
    }
}

impl Settings {
    /// Those of an executable in `directory`, for a process in whose environment `run_dir` is `VOLPLANE_RUN_DIR`.
    ///
    /// # Errors
    /// A file that is there and not right. Nothing is guessed: another daemon might be asked.
    pub fn of(directory: &Path, run_dir: Option<PathBuf>) -> Result<Settings, SettingsError> {
        let mut settings = Settings::read(&directory.join(SETTINGS_FILE))?.unwrap_or_default();
        if let Some(run_dir) = run_dir.filter(|path| !path.as_os_str().is_empty()) {
            settings.run_dir = run_dir;
        }
        Ok(settings)
    }

    /// Those of a file; `None` if there is none.
    ///
    /// # Errors
    /// The file cannot be read, or has something else in it.
    pub fn read(path: &Path) -> Result<Option<Settings>, SettingsError> {
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(SettingsError::Read { path: path.to_owned(), source }),
        }
        let wrong = |detail: String| SettingsError::Content { path: path.to_owned(), detail };
        let settings: Settings = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        settings.check().map_err(wrong)?;
        Ok(Some(settings))
    }

    /// Whether the values can be used.
    ///
    /// # Errors
    /// A sentence that says which cannot.
    pub fn check(&self) -> Result<(), String> {
        if !self.run_dir.is_absolute() {
            return Err(format!("run_dir {} is not an absolute path", self.run_dir.display()));
        }
        if !(1..=3600).contains(&self.mount_deadline_seconds) {
            return Err(format!(
                "mount_deadline_seconds {} is not in 1 to 3600",
                self.mount_deadline_seconds
            ));
        }
        Ok(())
    }

    /// The daemon's control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }

    pub(crate) fn mount_deadline(&self) -> Duration {
        Duration::from_secs(self.mount_deadline_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_wins_over_file_wins_over_default() {
        let directory = tempfile::tempdir().unwrap();
        let of = |run_dir: Option<&str>| Settings::of(directory.path(), run_dir.map(PathBuf::from));
        assert_eq!(of(None).unwrap(), Settings::default());
        assert_eq!(of(Some("")).unwrap().run_dir, Path::new(DEFAULT_RUN_DIR));
        std::fs::write(directory.path().join(SETTINGS_FILE), r#"{"run_dir": "/run/other"}"#).unwrap();
        assert_eq!(of(None).unwrap().socket(), Path::new("/run/other/control.sock"));
        assert_eq!(of(Some("/run/env")).unwrap().run_dir, Path::new("/run/env"));
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        for bad in
            ["", r#"{"run_dir": "relative"}"#, r#"{"mount_deadline_seconds": 0}"#, r#"{"rundir": "/x"}"#]
        {
            std::fs::write(directory.path().join(SETTINGS_FILE), bad).unwrap();
            let said = Settings::of(directory.path(), None).unwrap_err().to_string();
            assert!(said.contains(SETTINGS_FILE) && said.contains("install"), "{said}");
        }
    }
}
