//! The `statistics` table: what is in a catalog (`self_…`) and in all catalogs below it (`subtree_…`).

use super::image::{Image, flags};

/// Names without prefix, in the order of the reference tools' tables. The number of chunks in all subtrees is among them.
const NAMES: [&str; 12] = [
    "chunked",
    "chunked_size",
    "chunks",
    "dir",
    "external",
    "external_file_size",
    "file_size",
    "nested",
    "regular",
    "special",
    "symlink",
    "xattr",
];

/// One value for each of [`NAMES`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counters([i64; NAMES.len()]);

impl Counters {
    fn bump(&mut self, name: &str, by: i64) {
        let index = NAMES.iter().position(|known| *known == name).expect("a name of the table");
        self.0[index] = self.0[index].saturating_add(by);
    }

    /// Counts the rows of one catalog. A mountpoint counts as a directory here and once more, as the first row, in its nested catalog.
    pub(super) fn of(image: &Image) -> Self {
        let mut counters = Counters::default();
        for row in &image.rows {
            if row.flags & flags::DIRECTORY != 0 {
                counters.bump("dir", 1);
            } else if row.flags & flags::SYMLINK != 0 {
                counters.bump("symlink", 1);
            } else if row.flags & flags::SPECIAL != 0 {
                counters.bump("special", 1);
            } else {
                counters.bump("regular", 1);
                counters.bump("file_size", row.size);
                if row.flags & flags::CHUNKED != 0 {
                    counters.bump("chunked", 1);
                    counters.bump("chunked_size", row.size);
                }
                if row.flags & flags::EXTERNAL != 0 {
                    counters.bump("external", 1);
                    counters.bump("external_file_size", row.size);
                }
            }
            if row.xattr.is_some() {
                counters.bump("xattr", 1);
            }
        }
        counters.bump("chunks", image.chunks.len() as i64);
        counters.bump("nested", image.nested.len() as i64);
        counters
    }

    pub(super) fn add(&mut self, other: &Counters) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }

    /// The rows of the table.
    pub(super) fn table(own: &Counters, subtree: &Counters) -> Vec<(String, i64)> {
        let rows = |prefix: &'static str, counters: Counters| {
            NAMES.into_iter().zip(counters.0).map(move |(name, value)| (format!("{prefix}_{name}"), value))
        };
        rows("self", *own).chain(rows("subtree", *subtree)).collect()
    }

    /// Own and subtree counters from a table; what is missing counts as zero.
    pub(super) fn from_table(table: &[(String, i64)]) -> (Counters, Counters) {
        let read = |prefix: &str| {
            let mut counters = Counters::default();
            for (name, value) in table {
                if let Some(name) = name.strip_prefix(prefix)
                    && NAMES.contains(&name)
                {
                    counters.bump(name, *value);
                }
            }
            counters
        };
        (read("self_"), read("subtree_"))
    }
}
