//! What is published is what is read back, and looks as the reference tools' repositories do.

mod checkout;
mod client;
mod cycle;
mod forged;
mod format;
mod random;

use std::path::{Path, PathBuf};

use super::forge::test_keys;
use super::{CreateOptions, Nesting, Publication, PublishOptions, Publisher};

/// A repository and a tree to publish, in a temporary directory.
struct Site {
    directory: tempfile::TempDir,
    publisher: Publisher,
}

impl Site {
    fn new(options: &CreateOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("tree")).unwrap();
        let publisher =
            Publisher::create(&directory.path().join("repository"), test_keys(), options).unwrap();
        Site { directory, publisher }
    }

    fn simple() -> Self {
        Site::new(&CreateOptions::new("sw.example.org"))
    }

    fn tree(&self) -> PathBuf {
        self.directory.path().join("tree")
    }

    fn repository(&self) -> PathBuf {
        self.directory.path().join("repository")
    }

    fn publish(&self, options: &PublishOptions) -> Publication {
        self.publisher.publish(&self.tree(), options, &()).unwrap()
    }

    /// Publishes, reads everything back and compares it with the tree.
    fn publish_and_check(&self, options: &PublishOptions) -> Publication {
        let publication = self.publish(options);
        let read = checkout::Checkout::read(&self.repository());
        let expected = checkout::expected(&self.tree());
        checkout::assert_same(&read, &expected);
        publication
    }
}

/// Writes a file, with the directories it is in.
fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Catalogs by marker files only.
fn markers_only() -> Nesting {
    Nesting { max_entries: None, ..Nesting::default() }
}
