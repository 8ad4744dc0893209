//! The tags database of a repository: which named snapshots there are.
//!
//! The manifest names it (line `H`); it is a zlib object with suffix `H`, in it an SQLite file with a table
//! `tags(name, hash, revision, timestamp, channel, description, size, branch)`. Format: CernVM-FS `history_sql.cc`.
//! All tags are read at once: real databases have up to some thousands.

use std::collections::BTreeMap;
use std::sync::Arc;

use volume::{Fault, FaultKind, Revision, nearest};

use super::catalog::DatabaseFile;
use super::catalog::sqlite::{Database, Record, Schema, SqliteError, Table, TableCursor};
use super::hash::Digest;
use super::whitelist::days_since_1970;

/// Most tags that are read.
const TAGS_MAX: usize = 100_000;
/// Longest name of a tag that can be asked for, in bytes.
const NAME_MAX: usize = 255;

/// A named snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Its name, unique in the repository.
    pub name: String,
    /// Root catalog.
    pub root: Digest,
    /// Its revision.
    pub revision: u64,
    /// Seconds since 1970 at which it was published.
    pub published: u64,
}

/// All named snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    tags: BTreeMap<String, Tag>,
}

/// Why a file is no tags database.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// What the kernel said.
    #[error("the tags database cannot be read: {0}")]
    Io(std::io::Error),
    /// What is wrong with its bytes.
    #[error("the tags database is broken: {0}")]
    Malformed(&'static str),
}

impl From<SqliteError> for HistoryError {
    fn from(error: SqliteError) -> Self {
        match error {
            SqliteError::Io(error) => HistoryError::Io(error),
            SqliteError::Malformed(reason) => HistoryError::Malformed(reason),
        }
    }
}

/// Where the columns are.
struct Columns {
    name: usize,
    hash: usize,
    revision: usize,
    timestamp: usize,
    branch: Option<usize>,
}

impl Columns {
    fn find(table: &Table) -> Option<Self> {
        Some(Columns {
            name: table.column("name")?,
            hash: table.column("hash")?,
            revision: table.column("revision")?,
            timestamp: table.column("timestamp")?,
            branch: table.column("branch"),
        })
    }

    /// The tag of a row; `None` for rows of other branches and rows that make no sense.
    fn tag(&self, record: &Record<'_>) -> Option<Tag> {
        let text = |column| {
            let bytes = record.get(column).bytes().flatten()?;
            std::str::from_utf8(bytes).ok().filter(|text| text.len() <= NAME_MAX)
        };
        let number = |column| record.get(column).integer().and_then(|number| u64::try_from(number).ok());
        if self.branch.and_then(text).is_some_and(|branch| !branch.is_empty()) {
            return None;
        }
        Some(Tag {
            name: text(self.name)?.to_owned(),
            root: text(self.hash)?.parse().ok()?,
            revision: number(self.revision)?,
            published: number(self.timestamp)?,
        })
    }
}

impl History {
    /// Reads a verified, inflated history object.
    ///
    /// # Errors
    /// It cannot be read or is no tags database. Single rows that make no sense are left out.
    pub fn read(file: Arc<dyn DatabaseFile>) -> Result<Self, HistoryError> {
        let database = Database::open(file)?;
        let schema = Schema::read(&database)?;
        let table = schema.table("tags").ok_or(HistoryError::Malformed("it has no table of tags"))?;
        let columns =
            Columns::find(table).ok_or(HistoryError::Malformed("its table of tags lacks a column"))?;
        let mut cursor = TableCursor::new(&database, table.root);
        let mut tags = BTreeMap::new();
        let mut next = Some(i64::MIN);
        for _ in 0..TAGS_MAX {
            let Some(from) = next else { break };
            let Some((id, payload)) = cursor.at_or_after(from)? else { break };
            next = id.checked_add(1);
            if let Some(tag) = Record::decode(payload).as_ref().and_then(|record| columns.tag(record)) {
                tags.insert(tag.name.clone(), tag);
            }
        }
        Ok(History { tags })
    }

    /// The snapshot of this name.
    pub fn by_name(&self, name: &str) -> Option<&Tag> {
        self.tags.get(name)
    }

    /// The newest snapshot at or before a time in seconds since 1970.
    pub fn by_time(&self, seconds: u64) -> Option<&Tag> {
        let before = self.tags.values().filter(|tag| tag.published <= seconds);
        before.max_by_key(|tag| (tag.published, tag.revision))
    }

    /// All, by name.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tags.values()
    }

    /// The root catalog of a pinned revision.
    ///
    /// # Errors
    /// There is no such snapshot; the error names likely ones.
    pub fn root_of(&self, repository: &str, tag_or_date: &Revision) -> Result<Digest, Fault> {
        let fault = |kind, detail| Err(Fault::new(kind, "find revision", repository, detail));
        match tag_or_date {
            Revision::Tag(name) => match self.by_name(name) {
                Some(tag) => Ok(tag.root),
                None => fault(FaultKind::NotFound, self.unknown_tag(name)),
            },
            Revision::Date(date) => match parse_date(date).map(|seconds| self.by_time(seconds)) {
                Some(Some(tag)) => Ok(tag.root),
                Some(None) => fault(
                    FaultKind::NotFound,
                    format!("no named snapshot is as old as {date}; use a later date"),
                ),
                None => fault(FaultKind::InvalidArgument, DATE_EXPECTED.to_owned()),
            },
            Revision::Hash(text) => match text.parse() {
                Ok(digest) => Ok(digest),
                Err(error) => fault(FaultKind::InvalidArgument, format!("{error}")),
            },
            Revision::Trunk => match self.by_name("trunk") {
                Some(tag) => Ok(tag.root),
                None => fault(FaultKind::NotFound, "the tags database does not name the trunk".to_owned()),
            },
        }
    }

    fn unknown_tag(&self, name: &str) -> String {
        let generic = |tag: &&Tag| !tag.name.starts_with("generic-");
        if let Some(near) = nearest(name, self.tags.keys().map(String::as_str)) {
            return format!("there is no tag {name:?}; did you mean {near:?}?");
        }
        let mut newest: Vec<&Tag> = self.tags().filter(generic).collect();
        newest.sort_by_key(|tag| std::cmp::Reverse(tag.revision));
        let names: Vec<&str> = newest.iter().take(5).map(|tag| tag.name.as_str()).collect();
        format!("there is no tag {name:?}; the newest are {}", names.join(", "))
    }
}

/// What a date must look like.
pub const DATE_EXPECTED: &str = "a date has the form 2026-01-31T23:59:59Z (UTC)";

/// Seconds since 1970 of `YYYY-MM-DDThh:mm:ssZ`.
pub fn parse_date(text: &str) -> Option<u64> {
    let form = "dddd-dd-ddTdd:dd:ddZ";
    let fits =
        |(letter, wanted): (u8, u8)| if wanted == b'd' { letter.is_ascii_digit() } else { letter == wanted };
    if text.len() != form.len() || !text.bytes().zip(form.bytes()).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u64>().ok();
    let days = days_since_1970(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (hours, minutes, seconds) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    (hours < 24 && minutes < 60 && seconds < 60)
        .then_some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::client::hash::Suffix;
    use crate::client::manifest::Manifest;

    fn history(fqrn: &str) -> History {
        let directory = fixtures::repository(fqrn);
        let manifest = Manifest::parse(&std::fs::read(directory.join(".cvmfspublished")).unwrap()).unwrap();
        let id = manifest.history.unwrap().with_suffix(Suffix::History);
        let raw = std::fs::File::open(directory.join(id.url_path())).unwrap();
        let mut inflated = Vec::new();
        flate2::read::ZlibDecoder::new(raw).read_to_end(&mut inflated).unwrap();
        History::read(Arc::new(inflated)).unwrap()
    }

    #[test]
    fn tags_of_real_repositories_are_found_by_name_and_time() {
        let history = history("test.cern.ch");
        let v1 = history.by_name("v1.0").unwrap();
        assert_eq!((v1.revision, v1.published), (3, 1_795_247_707));
        assert_eq!(v1.root.to_string(), "8525f62af77aa17c07cdc582d2a72e559dc99780");
        assert_eq!(history.by_time(1_795_247_707), Some(v1));
        assert_eq!(history.by_time(1_795_247_706).unwrap().name, "base");
        assert_eq!(history.by_time(1), None);
        let root = |revision| history.root_of("test.cern.ch", &revision);
        let newest = root(Revision::Tag("v4.0".into())).unwrap();
        assert_eq!(root(Revision::Tag("trunk".into())).unwrap(), newest);
        assert_eq!(root(Revision::Date("2026-12-31T00:00:00Z".into())).unwrap(), newest);
        assert_ne!(root(Revision::Tag("trunk-previous".into())).unwrap(), newest);
    }

    #[test]
    fn other_hash_algorithms_are_read() {
        for fqrn in fixtures::GOOD {
            assert!(history(fqrn).by_name("trunk").is_some(), "{fqrn}");
        }
    }

    #[test]
    fn an_unknown_tag_is_answered_with_known_ones() {
        let history = history("test.cern.ch");
        let fault = history.root_of("test.cern.ch", &Revision::Tag("v1.1".into())).unwrap_err();
        assert_eq!(fault.kind, FaultKind::NotFound);
        assert!(fault.detail.contains("did you mean \"v1.0\""), "{fault}");
        let fault = history.root_of("test.cern.ch", &Revision::Tag("wurzelwerk".into())).unwrap_err();
        assert!(fault.detail.contains("v4.0"), "{fault}");
        assert!(history.root_of("test.cern.ch", &Revision::Date("yesterday".into())).is_err());
    }

    #[test]
    fn dates() {
        assert_eq!(parse_date("1970-01-01T00:00:01Z"), Some(1));
        assert_eq!(parse_date("2026-11-21T12:00:00Z"), Some(1_795_262_400));
        for bad in ["2026-11-21", "2026-13-21T12:00:00Z", "2026-11-21T24:00:00Z", "2026-11-21 12:00:00Z", ""]
        {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn garbage_is_no_history() {
        assert!(History::read(Arc::new(b"SQLite format 3\0 and nothing".to_vec())).is_err());
        assert!(History::read(Arc::new(Vec::new())).is_err());
    }
}
