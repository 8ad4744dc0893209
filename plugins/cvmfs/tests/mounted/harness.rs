//! A repository behind a loopback server, mounted by a worker in this process, and taken down whatever happens.

#![allow(clippy::unwrap_used, dead_code)] // all of it is test code, and other tests use a part of it

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmfs::client::config::{Origin, Parameters};
use cvmfs::payload::{KeyText, Kind, Owner, Payload, RepositorySetup};
use cvmfs::publish::serve::{FileServer, ServeLimits, ServingFiles};
use cvmfs::worker::{self, ServeContext, Serving};
use fuse::{Connection, DeviceBackings, MountOptions};
use tempfile::TempDir;
use volume::{Fault, Revision};

/// A loopback server for a document root.
pub(crate) fn server(root: &Path) -> ServingFiles {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    FileServer::bind(root, listen, ServeLimits::default()).unwrap().spawn().unwrap()
}

/// What a mount is made of.
pub(crate) struct Setup {
    pub(crate) repository: String,
    pub(crate) revision: Revision,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) key: PathBuf,
    pub(crate) cache: PathBuf,
    pub(crate) deadline: Duration,
}

impl Setup {
    /// A fixture behind a server of the fixtures' document root.
    pub(crate) fn fixture(fqrn: &str, server: &ServingFiles, cache: &Path) -> Setup {
        Setup {
            repository: fqrn.to_owned(),
            revision: Revision::Trunk,
            parameters: vec![
                ("CVMFS_SERVER_URL".into(), server.url(&format!("cvmfs/{fqrn}"))),
                ("CVMFS_EXTERNAL_URL".into(), server.url(&format!("ext/{fqrn}"))),
                ("CVMFS_CLAIM_OWNERSHIP".into(), "no".into()),
                ("CVMFS_TEST_VAR".into(), "testvalue".into()),
                ("CVMFS_ARCH".into(), "x86_64".into()),
            ],
            key: fixtures::public_key(fqrn),
            cache: cache.join("cache"),
            deadline: Duration::from_secs(10),
        }
    }

    pub(crate) fn set(mut self, name: &str, value: &str) -> Setup {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn at(mut self, revision: Revision) -> Setup {
        self.revision = revision;
        self
    }

    pub(crate) fn payload(&self) -> serde_json::Value {
        std::fs::create_dir_all(&self.cache).unwrap();
        let mut parameters = Parameters::new();
        for (name, value) in &self.parameters {
            parameters.set(name, value, Origin::volume_option());
        }
        let pem = std::fs::read_to_string(&self.key).unwrap();
        let setup = RepositorySetup {
            repository: self.repository.clone(),
            revision: self.revision.clone(),
            parameters,
            master_keys: vec![KeyText { origin: self.key.display().to_string(), pem }],
            blacklist: String::new(),
            uid_map: String::new(),
            gid_map: String::new(),
        };
        let payload = Payload {
            kind: Kind::One(Box::new(setup)),
            cache_dir: self.cache.clone(),
            deadline_ms: self.deadline.as_millis() as u64,
            owner: Owner { uid: 4711, gid: 4712 },
        };
        serde_json::to_value(payload).unwrap()
    }

    pub(crate) fn mount(&self) -> Result<Mounted, Fault> {
        Mounted::from_payload(self.payload(), &self.repository)
    }
}

/// A live mount; dropped, it is unmounted.
pub(crate) struct Mounted {
    // Dropped in this order: unmounted before the server goes, and both before the directory is removed.
    _watchdog: Watchdog,
    pub(crate) serving: Arc<Serving>,
    _keeps: Connection,
    directory: TempDir,
}

impl Mounted {
    pub(crate) fn from_payload(payload: serde_json::Value, name: &str) -> Result<Mounted, Fault> {
        let prepared = worker::prepare(payload, false)?;
        let directory = tempfile::Builder::new().prefix("cvmfs-mounted-").tempdir().unwrap();
        let mut options = MountOptions::new(directory.path(), name);
        options.suid = true;
        let connection = Connection::mount(&options).unwrap();
        let watchdog = Watchdog(directory.path().to_owned());
        let keeps = connection.try_clone().unwrap();
        let backings = Arc::new(DeviceBackings::new(connection.try_clone().unwrap()));
        let state = tempfile::tempfile().unwrap();
        let context = ServeContext { connection, adopted: false, state, backings };
        let serving = Arc::new(prepared.serve(context)?);
        Ok(Mounted { serving, directory, _keeps: keeps, _watchdog: watchdog })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn join(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }
}

/// Unmounts, also when a test panics; lazily, so that a dead server cannot hold it up.
pub(crate) struct Watchdog(pub(crate) PathBuf);

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Waits until `met`, at most 20 s.
pub(crate) fn wait_until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The error number of reading a whole file.
pub(crate) fn read_errno(path: &Path) -> Option<i32> {
    std::fs::read(path).err().and_then(|error| error.raw_os_error())
}
