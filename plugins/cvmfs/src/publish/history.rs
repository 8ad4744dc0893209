//! The history database: names of revisions. Schema 1.0 revision 3 (CernVM-FS `history_sql.cc`).

use rusqlite::{Connection, params};

use super::database::{build, inspect};
use super::error::PublishError;
use super::store::Store;
use crate::client::hash::Digest;

/// No history that clients can cope with is larger.
pub(super) const HISTORY_LIMIT: u64 = 1 << 30;

/// The newest revision.
const TRUNK: &str = "trunk";
/// The one before.
const TRUNK_PREVIOUS: &str = "trunk-previous";

const TABLES: &str = "
    CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk_properties PRIMARY KEY (key));
    CREATE TABLE branches (
        branch TEXT, parent TEXT, initial_revision INTEGER, CONSTRAINT pk_branch PRIMARY KEY (branch),
        FOREIGN KEY (parent) REFERENCES branches (branch),
        CHECK ((branch <> '') OR (parent IS NULL)), CHECK ((branch = '') OR (parent IS NOT NULL)));
    CREATE TABLE tags (
        name TEXT, hash TEXT, revision INTEGER, timestamp INTEGER, channel INTEGER, description TEXT, size INTEGER,
        branch TEXT, CONSTRAINT pk_tags PRIMARY KEY (name), FOREIGN KEY (branch) REFERENCES branches (branch));
    CREATE TABLE recycle_bin (hash TEXT, flags INTEGER, CONSTRAINT pk_hash PRIMARY KEY (hash));
";

/// A named revision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// Root catalog.
    pub root: Digest,
    /// Revision number.
    pub revision: u64,
    /// When it was published, seconds since 1970.
    pub published: i64,
    /// For people.
    pub description: String,
    /// Bytes of the root catalog before compression.
    pub root_size: u64,
}

/// All names of a repository.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct History {
    pub(super) tags: Vec<Tag>,
}

impl History {
    pub(super) fn read(store: &Store, bytes: &[u8]) -> Result<Self, PublishError> {
        let rows = inspect(store, "history", bytes, |connection| {
            connection
                .prepare(
                    "SELECT name, hash, revision, timestamp, description, size FROM tags ORDER BY rowid",
                )?
                .query_map([], |row| {
                    Ok((
                        row.get::<_, String>(0)?,
                        row.get::<_, String>(1)?,
                        row.get::<_, i64>(2)?,
                        row.get::<_, i64>(3)?,
                        row.get::<_, Option<String>>(4)?.unwrap_or_default(),
                        row.get::<_, Option<i64>>(5)?.unwrap_or(0),
                    ))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let damaged = |reason: String| PublishError::Damaged { what: "history".to_owned(), reason };
        let tags = rows
            .into_iter()
            .map(|(name, hash, revision, published, description, size)| {
                Ok(Tag {
                    root: hash.parse().map_err(|error| damaged(format!("tag {name}: {error}")))?,
                    revision: u64::try_from(revision)
                        .map_err(|_| damaged(format!("tag {name}: revision {revision}")))?,
                    root_size: u64::try_from(size).unwrap_or(0),
                    name,
                    published,
                    description,
                })
            })
            .collect::<Result<_, PublishError>>()?;
        Ok(History { tags })
    }

    pub(super) fn write(
        &self,
        store: &Store,
        fqrn: &str,
        previous: Option<Digest>,
    ) -> Result<Vec<u8>, PublishError> {
        build(store, |connection| self.fill(connection, fqrn, previous))
    }

    fn fill(&self, connection: &Connection, fqrn: &str, previous: Option<Digest>) -> rusqlite::Result<()> {
        connection.execute_batch(TABLES)?;
        let property = |key: &str, value: &str| {
            connection.execute("INSERT INTO properties VALUES (?, ?)", params![key, value]).map(|_| ())
        };
        property("schema", "1.0")?;
        property("schema_revision", "3")?;
        property("fqrn", fqrn)?;
        if let Some(previous) = previous {
            property("previous_revision", &previous.to_string())?;
        }
        connection.execute("INSERT INTO branches VALUES ('', NULL, 0)", [])?;
        let mut insert = connection.prepare("INSERT INTO tags VALUES (?, ?, ?, ?, 0, ?, ?, '')")?;
        for tag in &self.tags {
            insert.execute(params![
                tag.name,
                tag.root.to_string(),
                tag.revision as i64,
                tag.published,
                tag.description,
                tag.root_size as i64,
            ])?;
        }
        Ok(())
    }

    /// The revision that a name stands for.
    pub(super) fn find(&self, name: &str) -> Option<&Tag> {
        self.tags.iter().find(|tag| tag.name == name)
    }

    /// Makes `tag` the newest revision: the names for the newest two move on.
    pub(super) fn advance(&mut self, tag: Tag) {
        self.tags.retain(|known| known.name != TRUNK_PREVIOUS);
        if let Some(trunk) = self.tags.iter().position(|known| known.name == TRUNK) {
            let old = self.tags.remove(trunk);
            self.tags.push(Tag {
                name: TRUNK_PREVIOUS.to_owned(),
                description: "default undo target".to_owned(),
                ..old
            });
        }
        self.tags.push(Tag { name: TRUNK.to_owned(), description: "current HEAD".to_owned(), ..tag });
    }
}
