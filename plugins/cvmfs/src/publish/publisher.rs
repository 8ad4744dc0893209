//! The one writer of a repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::Flock;

use super::catalogs::{self, Header, Written};
use super::content::store_all;
use super::error::{PublishError, io_error};
use super::history::{HISTORY_LIMIT, History, Tag};
use super::keys::SigningKeys;
use super::nesting;
use super::options::{CreateOptions, Detection, Phase, Progress, PublishOptions};
use super::previous::Previous;
use super::scan::{Entry, Kind, Tree, scan};
use super::signed::{self, ManifestText, unix_seconds};
use super::store::Store;
use super::tags;
use crate::client::hash::{Compression, Digest, PathHash, Suffix};

pub(super) const MANIFEST: &str = ".cvmfspublished";
pub(super) const WHITELIST: &str = ".cvmfswhitelist";
const MAY_REPLICATE: &str = ".cvmfs_master_replica";
/// A manifest is less than a kilobyte.
const MANIFEST_LIMIT: u64 = 64 << 10;

/// A repository's directory and the keys that sign it.
///
/// All operations block, take the repository's lock for their time (another process gets [`PublishError::Busy`]), and replace the
/// manifest as their last step: on any error, and after a crash at any point, readers see the repository as it was.
#[derive(Debug)]
pub struct Publisher {
    pub(super) store: Store,
    pub(super) keys: SigningKeys,
    pub(super) fqrn: String,
}

/// What a publication did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Publication {
    /// The newest revision now.
    pub revision: u64,
    /// Its root catalog.
    pub root: Digest,
    /// Whether there was anything to publish; if not, the revision is the one there was.
    pub changed: bool,
    /// Entries in the tree, the root included.
    pub entries: u64,
    /// Catalogs that are new.
    pub catalogs: u64,
    /// Objects written, catalogs and the like included.
    pub objects: u64,
    /// Bytes written for them, after compression.
    pub bytes: u64,
}

/// A manifest about to be signed, with the names it goes with.
pub(super) struct Draft {
    pub(super) manifest: ManifestText,
    pub(super) history: History,
}

impl Publisher {
    /// Makes a repository with an empty root directory as revision 1 in `root`, which is made when missing and may hold no repository yet.
    ///
    /// # Errors
    /// [`PublishError::Exists`], [`PublishError::Option`], [`PublishError::Key`] when the master key is not among the keys, or what
    /// the file system says.
    pub fn create(root: &Path, keys: SigningKeys, options: &CreateOptions) -> Result<Self, PublishError> {
        options.check()?;
        if root.join(MANIFEST).exists() {
            return Err(PublishError::Exists { repository: root.to_owned() });
        }
        let store = Store::new(root);
        store.make_directories()?;
        let lock = store.lock()?;
        let publisher = Publisher { store, keys, fqrn: options.fqrn.clone() };
        let now = SystemTime::now();
        let whitelist = signed::whitelist(
            &options.fqrn,
            &publisher.keys,
            options.algorithm,
            now,
            options.whitelist_validity,
        )?;
        publisher.store.replace(WHITELIST, &whitelist)?;
        if options.replicable {
            publisher.store.replace(MAY_REPLICATE, b"")?;
        }
        let put = |bytes: &[u8], suffix| {
            publisher.store.put_bytes(bytes, options.algorithm, Compression::Zlib, suffix)
        };
        let certificate = put(publisher.keys.certificate_pem().as_bytes(), Suffix::Certificate)?;
        let metainfo =
            options.metainfo.as_ref().map(|text| put(text.as_bytes(), Suffix::Metainfo)).transpose()?;
        let published = unix_seconds(now);
        let header = Header {
            algorithm: options.algorithm,
            revision: 1,
            previous_root: None,
            ttl: options.ttl.as_secs(),
            volatile: options.volatile,
            now: published,
            hard_links: true,
        };
        let tree = Tree::empty(published);
        let written =
            catalogs::write(&tree, &[0], &[None], &Previous::default(), &publisher.store, &header, &())?;
        let manifest = ManifestText {
            root: written.root,
            root_size: written.root_size,
            ttl: header.ttl,
            revision: 1,
            garbage_collectable: options.garbage_collectable,
            fqrn: options.fqrn.clone(),
            certificate,
            history: None,
            published,
            metainfo,
        };
        let mut history = History::default();
        history.advance(trunk(&manifest));
        publisher.commit(Draft { manifest, history }, None)?;
        drop(lock);
        Ok(publisher)
    }

    /// Opens a repository that this or the reference tools made.
    ///
    /// # Errors
    /// [`PublishError::NoRepository`], [`PublishError::Damaged`].
    pub fn open(root: &Path, keys: SigningKeys) -> Result<Self, PublishError> {
        let mut publisher = Publisher { store: Store::new(root), keys, fqrn: String::new() };
        publisher.fqrn = publisher.manifest()?.fqrn;
        Ok(publisher)
    }

    /// The name of the repository in a directory: what its keys are called.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn name_of(root: &Path) -> Result<String, PublishError> {
        read_manifest(root).map(|manifest| manifest.fqrn)
    }

    /// The repository's name.
    #[must_use]
    pub fn fqrn(&self) -> &str {
        &self.fqrn
    }

    /// Publishes the tree below `source` as the next revision; when nothing changed, there is none. What is not in the tree is not in
    /// the revision.
    ///
    /// # Errors
    /// Every variant of [`PublishError`] but [`PublishError::Exists`].
    pub fn publish(
        &self,
        source: &Path,
        options: &PublishOptions,
        progress: &dyn Progress,
    ) -> Result<Publication, PublishError> {
        options.check()?;
        self.refuse_inside(source)?;
        let _lock = self.lock()?;
        let old = self.manifest()?;
        self.check_listed()?;
        if let Some(validity) = options.whitelist_validity {
            self.renew_whitelist(&old, validity)?;
        }
        if let Some(tag) = &options.tag
            && self.history(&old)?.find(&tag.name).is_some()
        {
            return Err(tags::taken(tag));
        }
        let now = later_than(&old, options.time.unwrap_or_else(SystemTime::now));
        progress.phase(Phase::Previous);
        let previous = Previous::read(&self.store, old.root, options.detection == Detection::Times)?;
        progress.phase(Phase::Scan);
        let tree = scan(source, options, progress)?;
        let owners = nesting::catalogs(&tree, &options.nesting)?;
        progress.phase(Phase::Content);
        let algorithm = old.root.algorithm;
        let known = |id, identity: &super::scan::FileIdentity| {
            let entry: &Entry = &tree.entries[id];
            let known = previous.files.get(&PathHash::of(&tree.path(id)))?;
            let same = known.size == identity.size as i64
                && known.mtime == (entry.mtime, i64::from(entry.mtime_ns))
                && known.content.compression == options.compression;
            same.then(|| known.content.clone())
        };
        let contents = store_all(&tree, &self.store, algorithm, options, known, progress)?;
        progress.phase(Phase::Catalogs);
        let header = Header {
            algorithm,
            revision: old.revision + 1,
            previous_root: Some(old.root),
            ttl: options.ttl.map(|ttl| ttl.as_secs()).or(previous.ttl).unwrap_or(old.ttl),
            volatile: options.volatile.unwrap_or(previous.volatile),
            now,
            hard_links: options.hard_links,
        };
        let written = catalogs::write(&tree, &owners, &contents, &previous, &self.store, &header, progress)?;
        progress.phase(Phase::Commit);
        let draft = self.draft(&old, &written, &header, options)?;
        let changed = written.root != old.root;
        let revision = draft.manifest.revision;
        self.commit(draft, Some(&old))?;
        let (objects, bytes) = self.store.take_written();
        Ok(Publication {
            revision,
            root: written.root,
            changed,
            entries: tree.entries.len() as u64,
            catalogs: written.catalogs,
            objects,
            bytes,
        })
    }

    pub(super) fn lock(&self) -> Result<Flock<fs::File>, PublishError> {
        self.store.lock()
    }

    pub(super) fn manifest(&self) -> Result<ManifestText, PublishError> {
        read_manifest(self.store.root())
    }

    pub(super) fn history(&self, manifest: &ManifestText) -> Result<History, PublishError> {
        match manifest.history {
            Some(digest) => {
                let bytes = self.store.get(&digest.with_suffix(Suffix::History), HISTORY_LIMIT)?;
                History::read(&self.store, &bytes)
            }
            None => Ok(History::default()),
        }
    }

    fn draft(
        &self,
        old: &ManifestText,
        written: &Written,
        header: &Header,
        options: &PublishOptions,
    ) -> Result<Draft, PublishError> {
        let changed = written.root != old.root;
        let metainfo = match &options.metainfo {
            Some(text) => Some(self.store.put_bytes(
                text.as_bytes(),
                header.algorithm,
                Compression::Zlib,
                Suffix::Metainfo,
            )?),
            None => old.metainfo,
        };
        let certificate = self.store.put_bytes(
            self.keys.certificate_pem().as_bytes(),
            header.algorithm,
            Compression::Zlib,
            Suffix::Certificate,
        )?;
        let manifest = ManifestText {
            root: written.root,
            root_size: written.root_size,
            ttl: header.ttl,
            revision: if changed { header.revision } else { old.revision },
            garbage_collectable: options.garbage_collectable.unwrap_or(old.garbage_collectable),
            fqrn: old.fqrn.clone(),
            certificate,
            history: old.history,
            published: header.now,
            metainfo,
        };
        let mut history = self.history(old)?;
        if changed {
            history.advance(trunk(&manifest));
        }
        if let Some(tag) = &options.tag {
            let named =
                Tag { name: tag.name.clone(), description: tag.description.clone(), ..trunk(&manifest) };
            history.tags.push(named);
        }
        Ok(Draft { manifest, history })
    }

    /// Stores the history, flushes everything to disk, and replaces the manifest. Does nothing when nothing is new.
    pub(super) fn commit(&self, draft: Draft, old: Option<&ManifestText>) -> Result<(), PublishError> {
        let Draft { mut manifest, history } = draft;
        let known = match old {
            Some(old) => Some(self.history(old)?),
            None => None,
        };
        manifest.history = if known.as_ref() == Some(&history) {
            old.and_then(|old| old.history)
        } else {
            let previous = old.and_then(|old| old.history);
            let bytes = history.write(&self.store, &manifest.fqrn, previous)?;
            let algorithm = manifest.root.algorithm;
            Some(self.store.put_bytes(&bytes, algorithm, Compression::Zlib, Suffix::History)?)
        };
        if old.is_some_and(|old| *old == ManifestText { published: old.published, ..manifest.clone() }) {
            return Ok(());
        }
        self.store.sync()?;
        self.store.replace(MANIFEST, &manifest.sign(&self.keys))
    }

    /// A repository within the tree would be published into itself, and grow by doing so.
    fn refuse_inside(&self, source: &Path) -> Result<(), PublishError> {
        let source = fs::canonicalize(source).map_err(io_error("read", source))?;
        let root = fs::canonicalize(self.store.root()).map_err(io_error("read", self.store.root()))?;
        if root.starts_with(&source) {
            let reason = format!("the repository itself ({}) is inside: keep them apart", root.display());
            return Err(PublishError::Unstorable { path: source, reason });
        }
        Ok(())
    }
}

fn read_manifest(root: &Path) -> Result<ManifestText, PublishError> {
    let path: PathBuf = root.join(MANIFEST);
    match fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(PublishError::NoRepository { repository: root.to_owned() });
        }
        Err(error) => return Err(io_error("read", &path)(error)),
        Ok(metadata) if metadata.len() > MANIFEST_LIMIT => {
            return Err(PublishError::Damaged {
                what: path.display().to_string(),
                reason: "it is unreasonably large".to_owned(),
            });
        }
        Ok(_) => {}
    }
    let bytes = fs::read(&path).map_err(io_error("read", &path))?;
    ManifestText::parse(&bytes).map_err(|reason| PublishError::Damaged {
        what: path.display().to_string(),
        reason: format!("it {reason}"),
    })
}

/// Clients refuse a manifest that is older than one they have seen, so time never goes back, whatever the clock says.
pub(super) fn later_than(old: &ManifestText, time: SystemTime) -> i64 {
    unix_seconds(time).max(old.published)
}

/// The tag of a manifest's own revision.
pub(super) fn trunk(manifest: &ManifestText) -> Tag {
    Tag {
        name: String::new(),
        root: manifest.root,
        revision: manifest.revision,
        published: manifest.published,
        description: String::new(),
        root_size: manifest.root_size,
    }
}

impl Tree {
    /// A root directory with nothing in it.
    fn empty(mtime: i64) -> Self {
        let root = Entry {
            parent: 0,
            name: Box::default(),
            kind: Kind::Directory { subdirectories: 0 },
            mode: 0o040_755,
            uid: 0,
            gid: 0,
            mtime,
            mtime_ns: 0,
            linked: false,
            xattr: None,
        };
        Tree::of(vec![root])
    }
}
