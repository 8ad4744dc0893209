//! The container image of volplane, as `make package` builds it, of the binaries under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::daemon::{Scene, binary};
use crate::process;

/// The name under which [`archive`] is imported; the Helm chart's default.
pub const NAME: &str = concat!("localhost/volplane:", env!("CARGO_PKG_VERSION"));

/// The user and group of the image's `volplane`.
pub const USER: &str = "60987:60987";

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/image").join(name)
}

/// The programs that go into the image: `volplane`, and `volplane-flexvolume` if it lies beside it.
pub fn programs() -> Vec<PathBuf> {
    let volplane = binary();
    let beside = volplane.with_file_name("volplane-flexvolume");
    std::iter::once(volplane).chain(beside.exists().then_some(beside)).collect()
}

/// Builds the image and answers its archive, which is called `file` in the scene.
///
/// # Panics
/// When it cannot be built.
pub fn archive(scene: &Scene, file: &str) -> PathBuf {
    let archive = scene.path(file);
    let mut build = Command::new(script("build"));
    build.arg(&archive).arg(NAME).args(programs()).env("SOURCE_DATE_EPOCH", "1700000000");
    process::run(&mut build);
    archive
}

/// Lays out the image's root file system in `root`.
///
/// # Panics
/// When it cannot be made.
pub fn root(root: &Path) {
    process::run(Command::new(script("root")).arg(root).args(programs()));
}

/// An archive that was taken apart.
pub struct Unpacked {
    directory: PathBuf,
}

impl Unpacked {
    /// Takes `archive` apart in `directory`.
    ///
    /// # Panics
    /// When it is no archive.
    pub fn of(archive: &Path, directory: PathBuf) -> Unpacked {
        fs::create_dir_all(&directory).expect("the scene is ours");
        process::run(Command::new("tar").arg("-C").arg(&directory).arg("-xf").arg(archive));
        Unpacked { directory }
    }

    /// A JSON file of it by its path.
    ///
    /// # Panics
    /// When there is none.
    pub fn json(&self, path: &str) -> Value {
        let text = fs::read(self.directory.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Path of the blob with a digest (`sha256:…`), whose content has that digest.
    ///
    /// # Panics
    /// When there is none, or it has another digest or another size than the descriptor says.
    pub fn blob(&self, descriptor: &Value) -> PathBuf {
        let digest = descriptor["digest"].as_str().expect("a descriptor has a digest");
        let hex = digest.strip_prefix("sha256:").expect("digests are SHA-256");
        let path = self.directory.join("blobs/sha256").join(hex);
        let sum = process::run(Command::new("sha256sum").arg(&path));
        assert!(sum.starts_with(hex), "{path:?} is {sum}");
        let size = fs::metadata(&path).expect("sha256sum has read it").len();
        assert_eq!(descriptor["size"], size, "{digest}");
        path
    }

    /// A blob that is JSON.
    pub fn json_blob(&self, descriptor: &Value) -> Value {
        let path = self.blob(descriptor);
        self.json(path.to_str().expect("temporary paths are UTF-8"))
    }
}
