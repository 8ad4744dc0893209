//! Names of revisions, and going back to one.

use std::time::SystemTime;

use super::catalogs;
use super::database::{self, CATALOG_LIMIT};
use super::error::PublishError;
use super::history::Tag;
use super::options::NewTag;
use super::publisher::{Draft, Publication, Publisher, later_than, trunk};
use super::signed::ManifestText;
use crate::client::hash::Suffix;

impl Publisher {
    /// Publishes the state of a tag once more, as the next revision.
    ///
    /// # Errors
    /// [`PublishError::Option`] for an unknown tag; else as [`publish`](Self::publish).
    pub fn roll_back(&self, tag: &str) -> Result<Publication, PublishError> {
        let _lock = self.lock()?;
        let old = self.manifest()?;
        self.check_listed()?;
        let mut history = self.history(&old)?;
        let target = history.find(tag).ok_or_else(|| unknown(tag))?.clone();
        let id = target.root.with_suffix(Suffix::Catalog);
        let bytes = self.store.get(&id, CATALOG_LIMIT)?;
        let mut image = database::read(&self.store, &format!("catalog {id}"), &bytes)?;
        let now = later_than(&old, SystemTime::now());
        for (key, value) in &mut image.properties {
            match key.as_str() {
                "revision" => *value = (old.revision + 1).to_string().into_bytes(),
                "previous_revision" => *value = old.root.to_string().into_bytes(),
                "last_modified" => *value = now.to_string().into_bytes(),
                _ => {}
            }
        }
        let (root, root_size) = catalogs::put(&self.store, &image, old.root.algorithm)?;
        let manifest =
            ManifestText { root, root_size, revision: old.revision + 1, published: now, ..old.clone() };
        history.advance(trunk(&manifest));
        let revision = manifest.revision;
        self.commit(Draft { manifest, history }, Some(&old))?;
        let (objects, bytes) = self.store.take_written();
        Ok(Publication { revision, root, changed: true, entries: 0, catalogs: 1, objects, bytes })
    }

    /// Gives the newest revision, or that of another tag, a name.
    ///
    /// # Errors
    /// [`PublishError::Option`] for a name that is taken or not allowed, or an unknown `from`.
    pub fn tag(&self, tag: &NewTag, from: Option<&str>) -> Result<(), PublishError> {
        tag.check()?;
        let _lock = self.lock()?;
        let old = self.manifest()?;
        let mut history = self.history(&old)?;
        if history.find(&tag.name).is_some() {
            return Err(taken(tag));
        }
        let target = match from {
            Some(name) => history.find(name).ok_or_else(|| unknown(name))?.clone(),
            None => trunk(&old),
        };
        history.tags.push(Tag { name: tag.name.clone(), description: tag.description.clone(), ..target });
        let manifest = ManifestText { published: later_than(&old, SystemTime::now()), ..old.clone() };
        self.commit(Draft { manifest, history }, Some(&old))
    }

    /// Takes a name away. The revision stays until somebody collects garbage.
    ///
    /// # Errors
    /// [`PublishError::Option`] for an unknown name.
    pub fn untag(&self, name: &str) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        let old = self.manifest()?;
        let mut history = self.history(&old)?;
        let at = history.tags.iter().position(|tag| tag.name == name).ok_or_else(|| unknown(name))?;
        history.tags.remove(at);
        let manifest = ManifestText { published: later_than(&old, SystemTime::now()), ..old.clone() };
        self.commit(Draft { manifest, history }, Some(&old))
    }

    /// All names, oldest first.
    ///
    /// # Errors
    /// [`PublishError::Damaged`] when the history cannot be read.
    pub fn tags(&self) -> Result<Vec<Tag>, PublishError> {
        Ok(self.history(&self.manifest()?)?.tags)
    }
}

pub(super) fn taken(tag: &NewTag) -> PublishError {
    PublishError::Option {
        option: "tag",
        reason: format!("{} names a revision already: choose another name, or take it away first", tag.name),
    }
}

fn unknown(name: &str) -> PublishError {
    PublishError::Option {
        option: "tag",
        reason: format!("there is no tag {name}: list the tags to see which there are"),
    }
}
