//! What a publisher can choose.

use std::time::{Duration, SystemTime};

use super::error::PublishError;
use crate::client::hash::{Algorithm, Compression};

/// Thirty days, as the reference tools have it.
const WHITELIST_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Choices for the life of a repository. Made once, by [`Publisher::create`](super::Publisher::create).
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Fully qualified repository name, as in `/cvmfs/<fqrn>`: at most 60 letters, digits, dots, dashes and underscores.
    pub fqrn: String,
    /// Names all objects. SHA-1 is what every client of the world reads.
    pub algorithm: Algorithm,
    /// How long clients go without asking for a new revision, 1 second to 1 year.
    pub ttl: Duration,
    /// How long the whitelist is valid: [`Publisher::resign_whitelist`](super::Publisher::resign_whitelist) within that time, or
    /// clients refuse the repository.
    pub whitelist_validity: Duration,
    /// Promises clients and replicas that old revisions may vanish.
    pub garbage_collectable: bool,
    /// Tells clients to evict this repository's objects first.
    pub volatile: bool,
    /// JSON text for people and monitoring (`M` object): who runs the repository. Checked to be JSON.
    pub metainfo: Option<String>,
    /// Allows others to replicate the whole repository (`.cvmfs_master_replica`).
    pub replicable: bool,
}

impl CreateOptions {
    /// The usual choices: SHA-1, four minutes, thirty days, collectable, replicable.
    #[must_use]
    pub fn new(fqrn: &str) -> Self {
        CreateOptions {
            fqrn: fqrn.to_owned(),
            algorithm: Algorithm::Sha1,
            ttl: Duration::from_secs(240),
            whitelist_validity: WHITELIST_VALIDITY,
            garbage_collectable: true,
            volatile: false,
            metainfo: None,
            replicable: true,
        }
    }

    pub(super) fn check(&self) -> Result<(), PublishError> {
        let name = self.fqrn.as_bytes();
        let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
        if !(1..=60).contains(&name.len()) || !name.iter().all(legal) || !name[0].is_ascii_alphanumeric() {
            return Err(PublishError::Option {
                option: "name",
                reason: format!(
                    "{:?} is no repository name: 1 to 60 letters, digits, '.', '-' or '_', as in sw.example.org",
                    self.fqrn
                ),
            });
        }
        check_ttl(self.ttl)?;
        if let Some(text) = &self.metainfo {
            serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| PublishError::Option {
                option: "metainfo",
                reason: format!("is not JSON: {error}"),
            })?;
        }
        check_validity(self.whitelist_validity)
    }
}

fn check_ttl(ttl: Duration) -> Result<(), PublishError> {
    if (1..=31_536_000).contains(&ttl.as_secs()) {
        return Ok(());
    }
    Err(PublishError::Option { option: "ttl", reason: "must be between 1 second and 1 year".to_owned() })
}

/// Whitelists are compared by the hour.
pub(super) fn check_validity(validity: Duration) -> Result<(), PublishError> {
    if (7_200..=100 * 366 * 86_400).contains(&validity.as_secs()) {
        return Ok(());
    }
    Err(PublishError::Option {
        option: "whitelist validity",
        reason: "must be between 2 hours and 100 years".to_owned(),
    })
}

/// Choices for one publication.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// How file contents are stored. Catalogs and the like are always zlib.
    pub compression: Compression,
    /// How big files are cut. `None`: each file is one object.
    pub chunking: Option<Chunking>,
    /// Where the tree is cut into catalogs.
    pub nesting: Nesting,
    /// Whose files they are.
    pub ownership: Ownership,
    /// Publishes extended attributes: `user.*`, capabilities, POSIX ACLs. An attribute too long for the format (255 bytes) is an
    /// error, not dropped.
    pub xattrs: bool,
    /// Keeps names of one file within one catalog one file (same inode, link count).
    pub hard_links: bool,
    /// Publishes devices, fifos and sockets. `false`: they are an error.
    pub special_files: bool,
    /// How a changed file is told from one that is stored already.
    pub detection: Detection,
    /// Names the new revision.
    pub tag: Option<NewTag>,
    /// New time to live for this and later revisions.
    pub ttl: Option<Duration>,
    /// New promise for this and later revisions, see [`CreateOptions::garbage_collectable`].
    pub garbage_collectable: Option<bool>,
    /// New choice for this and later revisions, see [`CreateOptions::volatile`].
    pub volatile: Option<bool>,
    /// New meta information (JSON) for this and later revisions.
    pub metainfo: Option<String>,
    /// How long a whitelist that is renewed on this occasion is valid: it is when the master key is here and less than half of this
    /// time is left. `None` never renews it.
    pub whitelist_validity: Option<Duration>,
    /// Threads that read, compress and hash. `None`: one per core.
    pub threads: Option<usize>,
    /// The time of publication, unless the previous revision is younger; `None` is now. Fixed, it makes a publication
    /// reproducible to the byte.
    pub time: Option<SystemTime>,
}

impl Default for PublishOptions {
    fn default() -> Self {
        PublishOptions {
            compression: Compression::Zlib,
            chunking: Some(Chunking::default()),
            nesting: Nesting::default(),
            ownership: Ownership::Source,
            xattrs: true,
            hard_links: true,
            special_files: true,
            detection: Detection::Content,
            tag: None,
            ttl: None,
            garbage_collectable: None,
            volatile: None,
            metainfo: None,
            whitelist_validity: Some(WHITELIST_VALIDITY),
            threads: None,
            time: None,
        }
    }
}

impl PublishOptions {
    pub(super) fn check(&self) -> Result<(), PublishError> {
        if let Some(ttl) = self.ttl {
            check_ttl(ttl)?;
        }
        if let Some(validity) = self.whitelist_validity {
            check_validity(validity)?;
        }
        if let Some(chunking) = &self.chunking {
            chunking.check()?;
        }
        if let Some(tag) = &self.tag {
            tag.check()?;
        }
        if let Some(text) = &self.metainfo {
            serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|error| PublishError::Option {
                option: "metainfo",
                reason: format!("is not JSON: {error}"),
            })?;
        }
        Ok(())
    }
}

/// How big files are cut into chunks, all in bytes.
///
/// Cuts follow the content, so that an insertion moves only the chunks around it; with `min == max` they are at fixed distances.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunking {
    /// Files of at least this size are cut.
    pub threshold: u64,
    /// No chunk but the last is smaller.
    pub min: u32,
    /// What chunks come to on average, a power of two.
    pub average: u32,
    /// No chunk is larger. At most 64 MiB: a reader inflates a chunk as a whole.
    pub max: u32,
}

impl Default for Chunking {
    /// 4, 8 and 16 MiB; files from 8 MiB on.
    fn default() -> Self {
        Chunking { threshold: 8 << 20, min: 4 << 20, average: 8 << 20, max: 16 << 20 }
    }
}

impl Chunking {
    fn check(&self) -> Result<(), PublishError> {
        let ordered = 0 < self.min && self.min <= self.average && self.average <= self.max;
        if ordered && self.max <= 64 << 20 && (self.average.is_power_of_two() || self.min == self.max) {
            return Ok(());
        }
        Err(PublishError::Option {
            option: "chunking",
            reason: "needs 0 < min <= average <= max <= 64 MiB, and an average that is a power of two"
                .to_owned(),
        })
    }
}

/// Where a nested catalog begins. Clients load catalogs as a whole: some thousand to a hundred thousand entries each, along the
/// lines by which the tree is used (one per software version, say), serve them best.
#[derive(Clone, Debug)]
pub struct Nesting {
    /// A directory with a file `.cvmfscatalog` begins one.
    pub marker_files: bool,
    /// `/.cvmfsdirtab` in the tree holds patterns, one a line; `!` before a pattern excludes, `#` begins a comment.
    pub dirtab: bool,
    /// More patterns: absolute paths in which `*`, `?` and `[…]` stand for anything within one name.
    pub patterns: Vec<String>,
    /// A catalog that would exceed this many entries is cut further, at its biggest directories. `None`: never.
    pub max_entries: Option<usize>,
    /// Cutting makes no catalog smaller than this many entries.
    pub min_entries: usize,
}

impl Default for Nesting {
    fn default() -> Self {
        Nesting {
            marker_files: true,
            dirtab: true,
            patterns: Vec::new(),
            max_entries: Some(100_000),
            min_entries: 1_000,
        }
    }
}

/// Owner and group of everything published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ownership {
    /// As in the tree.
    Source,
    /// All the same.
    Fixed {
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// How a file that is stored already is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detection {
    /// All files are read and hashed: right whatever was done to the tree.
    Content,
    /// Files with the size and the modification time (to the nanosecond) of the previous revision's are taken as unchanged. Wrong
    /// for trees whose tools set times back, as reproducible builds do.
    Times,
}

/// A name for a revision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewTag {
    /// Its name: no spaces or slashes, and not `trunk` or `trunk-previous`.
    pub name: String,
    /// For people.
    pub description: String,
}

impl NewTag {
    pub(super) fn check(&self) -> Result<(), PublishError> {
        let legal = |c: char| !c.is_whitespace() && !c.is_control() && !"/@#".contains(c);
        if (1..=255).contains(&self.name.len())
            && self.name.chars().all(legal)
            && !["trunk", "trunk-previous", ".", ".."].contains(&self.name.as_str())
        {
            return Ok(());
        }
        Err(PublishError::Option {
            option: "tag",
            reason: format!(
                "{:?} cannot name a revision: 1 to 255 bytes without spaces, '/', '@' or '#'; trunk and \
                 trunk-previous are kept for the newest two",
                self.name
            ),
        })
    }
}

/// A part of a publication, in this order.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Looking at the previous revision.
    Previous,
    /// Looking at the tree.
    Scan,
    /// Reading, compressing and storing files.
    Content,
    /// Writing catalogs.
    Catalogs,
    /// Flushing to disk, then the manifest.
    Commit,
}

/// Hears how a publication goes on, from several threads at once.
pub trait Progress: Sync {
    /// A part begins.
    fn phase(&self, phase: Phase) {
        let _ = phase;
    }

    /// What [`Phase::Content`] has to do: distinct files, and their bytes before compression.
    fn total(&self, files: u64, bytes: u64) {
        let _ = (files, bytes);
    }

    /// Another part of that is done; the sums of all calls reach the total.
    fn done(&self, files: u64, bytes: u64) {
        let _ = (files, bytes);
    }

    /// Asked often; `true` ends the publication with [`PublishError::Cancelled`].
    fn cancelled(&self) -> bool {
        false
    }
}

/// Nobody listens.
impl Progress for () {}
