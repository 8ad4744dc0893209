//! A backend that is a directory of image files, with every ability there is: what a block-storage driver would do,
//! on loop devices. Only tests have it; it makes every CSI call real before a production backend has the ability.
//!
//! ```text
//! <root>/state.json              volumes, snapshots and groups; replaced as a whole
//! <root>/volumes/vol-00000001    a volume: sparse, its length is its size
//! <root>/snapshots/snap-00000002 a snapshot: a copy of a volume at one instant
//! ```
//!
//! It plays [`Driver::Rbd`]. One call changes the state at a time: it is meant to be right, not fast.

mod backend;
mod device;
mod extents;
mod groups;
mod provision;
mod publish;
mod snapshots;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use volume::{Abilities, Fault, FaultKind, Secrets, Segments};

use device::FileSystem;
use state::State;

/// Longest time of one call: copying and formatting small images.
const PATIENCE: Duration = Duration::from_secs(60);

/// Name of the secret that calls must carry when the backend is told to want one.
pub const SECRET: &str = "password";

/// Why the reference backend cannot do everything on this machine, if it cannot.
pub fn missing() -> Option<&'static str> {
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices");
    }
    FileSystem::growable().is_none().then_some(
        "no file system can grow while it is mounted: neither is CAP_SYS_RESOURCE there for ext4, nor xfsprogs",
    )
}

/// What a reference backend is told.
#[derive(Debug, Clone)]
pub struct ReferenceConfig {
    /// Where images and state are kept; made if it is not there.
    pub root: PathBuf,
    /// Where the registry has its mountpoints.
    pub mount_dir: PathBuf,
    /// The only node.
    pub node: String,
    /// Volumes that the node can have published at once.
    pub max_volumes: usize,
    /// Where the storage is; volumes are reachable there alone. Empty: everywhere.
    pub place: Segments,
    /// Value of [`SECRET`] that every call which may carry secrets must carry; `None`: any.
    pub password: Option<String>,
    /// Bytes that all volumes together may have.
    pub room: u64,
}

/// The backend.
#[derive(Clone)]
pub struct Reference {
    inner: Arc<Inner>,
}

struct Inner {
    config: ReferenceConfig,
    /// What a volume is formatted with unless the caller says so.
    file_system: FileSystem,
    state: Mutex<State>,
}

impl Reference {
    /// Opens the directory; finds what an earlier process left in it.
    ///
    /// # Errors
    /// `Internal`: the directory or its state cannot be used.
    pub fn open(config: ReferenceConfig) -> Result<Reference, Fault> {
        for directory in ["volumes", "snapshots"] {
            std::fs::create_dir_all(config.root.join(directory)).map_err(|error| failed("open", error))?;
        }
        let state = Mutex::new(State::load(&config.root.join("state.json"))?);
        let file_system = FileSystem::growable().unwrap_or(FileSystem::Ext4);
        Ok(Reference { inner: Arc::new(Inner { config, file_system, state }) })
    }

    /// Everything it can do.
    fn abilities(&self) -> Abilities {
        let this = Arc::new(self.clone());
        Abilities {
            provision: this.clone(),
            clone: true,
            publish: Some(this.clone()),
            capacity: Some(this.clone()),
            grow: FileSystem::growable().map(|_| this.clone() as _),
            modify: Some(this.clone()),
            snapshots: Some(this.clone()),
            group_snapshots: Some(this.clone()),
            extents: Some(this),
        }
    }

    /// Runs `work`, which blocks, on a thread.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let inner = self.inner.clone();
        let done = host::blocking::run("reference", PATIENCE, move || work(&inner)).await;
        done.map_err(|error| Fault::new(FaultKind::DeadlineExceeded, "run", "", error.to_string()))?
    }

    /// Runs `work` on the state, and keeps what it made of it if it succeeds.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &mut State) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.run(move |inner| {
            let mut state = inner.state.lock().expect("no call panics");
            let mut next = state.clone();
            let answer = work(inner, &mut next)?;
            next.save(&inner.config.root.join("state.json"))?;
            *state = next;
            Ok(answer)
        })
        .await
    }

    /// Whether a call carries the right password, where one is wanted.
    fn admit(&self, op: &str, subject: &str, secrets: &Secrets) -> Result<(), Fault> {
        let wanted = self.inner.config.password.as_ref().map(String::as_bytes);
        let given = secrets.get(SECRET).map(|secret| secret.expose());
        if wanted.is_none() || wanted == given {
            return Ok(());
        }
        let detail = format!("the secret {SECRET:?} is missing or wrong");
        Err(Fault::new(FaultKind::PermissionDenied, op, subject, detail))
    }
}

impl Inner {
    /// Where everything can be reached; empty: anywhere.
    fn places(&self) -> Vec<Segments> {
        Some(&self.config.place).filter(|place| !place.is_empty()).into_iter().cloned().collect()
    }

    fn image(&self, volume: &str) -> PathBuf {
        self.config.root.join("volumes").join(volume)
    }

    fn copy(&self, snapshot: &str) -> PathBuf {
        self.config.root.join("snapshots").join(snapshot)
    }
}

/// A fault of the machine.
fn failed(op: &str, error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Internal, op, "the reference backend", error.to_string())
}

fn not_found(op: &str, what: &str, id: &str) -> Fault {
    Fault::new(FaultKind::NotFound, op, id, format!("there is no such {what}"))
}

/// Copies an image, holes and all; what is under way to it through a mounted file system is held up meanwhile.
fn copy_image(from: &Path, to: &Path) -> Result<(), Fault> {
    let frozen = device::Frozen::of(from)?;
    let copied = device::run("cp", &["--sparse=always", "--reflink=auto"], &[from, to]);
    drop(frozen);
    if copied.is_err() {
        let _ = std::fs::remove_file(to);
    }
    copied.map(drop)
}
