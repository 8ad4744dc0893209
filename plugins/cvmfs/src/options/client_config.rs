//! `clientConfig`: a piece of client configuration as text, as PersistentVolumes for cvmfs-csi carry it.
//!
//! It is evaluated like a file of the site's configuration, but sees no file: text that came over a socket does not
//! read the node. What it assigns counts as an option of the same name, so the same rules hold for both.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

use volume::Fault;

use super::refused;
use super::vocabulary::{self, Meaning};
use crate::client::config::shell::Files;
use crate::client::config::{Parameters, chain};
use crate::client::fqrn::Fqrn;

/// Name in messages, which become `clientConfig:LINE: …`.
pub(super) const NAME: &str = "clientConfig";
/// Longest message about a text, in characters; it may quote what the text has made of itself.
const MESSAGE_MAX: usize = 500;
/// Most variables that a text may set.
const VARIABLES_MAX: usize = 256;

/// One assignment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    /// `NAME in clientConfig`, for messages.
    pub(super) label: String,
    /// The variable.
    pub(super) name: String,
    /// Its value at the end.
    pub(super) value: String,
    /// What is known of it; `None`: a variable that is no parameter.
    pub(super) meaning: Option<Meaning>,
}

/// What a text assigns, by name.
///
/// # Errors
/// It cannot be evaluated, looks at files, or sets too much. Never panics.
pub(super) fn assignments(fqrn: &Fqrn, text: &str) -> Result<Vec<Assignment>, Fault> {
    let files = NoFiles::default();
    let assigned = chain::evaluate(&files, Path::new(NAME), text, Some(fqrn), &Parameters::new())
        .map_err(|error| refused(NAME, error.to_string().chars().take(MESSAGE_MAX).collect::<String>()))?;
    if let Some(path) = files.0.into_inner() {
        let detail = format!(
            "it looks at {} of the node, which text in a volume's attributes cannot; an administrator can use \
             clientConfigFilepath",
            path.display()
        );
        return Err(refused(NAME, detail));
    }
    if assigned.len() > VARIABLES_MAX {
        let detail = format!("it sets {} variables; {VARIABLES_MAX} is the limit", assigned.len());
        return Err(refused(NAME, detail));
    }
    let assignment = |(name, assigned): (String, crate::client::config::shell::Assigned)| {
        let label = format!("{name} in {NAME}");
        let meaning = vocabulary::find(&name).map(|known| known.meaning);
        Assignment { label, name, value: assigned.value, meaning }
    };
    Ok(assigned.into_iter().map(assignment).collect())
}

/// Remembers the first path that was looked at.
#[derive(Default)]
struct NoFiles(RefCell<Option<PathBuf>>);

impl NoFiles {
    fn note(&self, path: &Path) {
        self.0.borrow_mut().get_or_insert_with(|| path.to_owned());
    }
}

impl Files for NoFiles {
    fn read(&self, path: &Path) -> io::Result<String> {
        self.note(path);
        Err(io::Error::other("files of the node are not read for a volume's attributes"))
    }

    fn look(&self, path: &Path) -> Option<std::fs::Metadata> {
        self.note(path);
        None
    }
}
