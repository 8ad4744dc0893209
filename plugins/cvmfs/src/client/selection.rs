//! Which revision a tag, a date or a hash stands for.

use volume::{Fault, FaultKind, Revision};

use crate::client::catalog::CatalogError;
use crate::client::fetch::FetchError;
use crate::client::hash::{Digest, DigestError};
use crate::client::history::History;
use crate::client::manifest::Manifest;
use crate::client::upstream::Upstream;

/// A revision that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Selected {
    /// Its root catalog.
    pub(crate) root: Digest,
    /// Its number, where it is known.
    pub(crate) revision: Option<u64>,
}

/// The newest revision.
pub(crate) fn trunk(manifest: &Manifest) -> Selected {
    Selected { root: manifest.catalog, revision: Some(manifest.revision) }
}

/// Resolves what was asked for. Tags and dates are looked up in the tags database that the manifest names.
///
/// # Errors
/// There is no such tag, no tag that old, or the text is no hash or date; or the tags database cannot be had.
pub(crate) async fn select(
    upstream: &dyn Upstream,
    manifest: &Manifest,
    wanted: &Revision,
) -> Result<Selected, Fault> {
    match wanted {
        Revision::Trunk => return Ok(trunk(manifest)),
        Revision::Tag(tag) if tag == "trunk" => return Ok(trunk(manifest)),
        Revision::Hash(text) => {
            let root = text.parse().map_err(|error: DigestError| {
                let subject = format!("{}#{text:.60}", manifest.repository);
                Fault::new(FaultKind::InvalidArgument, "find revision", subject, error.to_string())
            })?;
            let known = root == manifest.catalog;
            return Ok(Selected { root, revision: known.then_some(manifest.revision) });
        }
        Revision::Tag(_) | Revision::Date(_) => {}
    }
    let subject = subject(&manifest.repository, wanted);
    let Some(digest) = manifest.history else {
        let detail = "the repository has no tags";
        return Err(Fault::new(FaultKind::NotFound, "find revision", subject, detail));
    };
    let file = upstream.history(&digest).await?;
    let history = History::read(file).map_err(|error| {
        Fault::new(FaultKind::Untrusted, "find revision", &subject, format!("{error} ({digest})"))
    })?;
    let root = history.root_of(&subject, wanted)?;
    let revision = history.tags().find(|tag| tag.root == root).map(|tag| tag.revision);
    Ok(Selected { root, revision })
}

/// What was asked for, as a user writes it.
fn subject(repository: &str, wanted: &Revision) -> String {
    match wanted {
        Revision::Trunk => repository.to_owned(),
        Revision::Tag(tag) => format!("{repository}@{tag}"),
        Revision::Date(date) => format!("{repository} at {date}"),
        Revision::Hash(hash) => format!("{repository}#{hash}"),
    }
}

/// What a root catalog that cannot be opened means for who asked for it.
pub(crate) fn explain(repository: &str, wanted: &Revision, root: &Digest, error: &CatalogError) -> Fault {
    const OP: &str = "open root catalog";
    let subject = subject(repository, wanted);
    match error {
        CatalogError::Fetch { source, .. } => match source.downcast_ref::<FetchError>() {
            Some(FetchError::NotFound { .. }) if *wanted != Revision::Trunk => {
                let detail = format!(
                    "no server has a revision with root catalog {root}; it may have been deleted there"
                );
                Fault::new(FaultKind::NotFound, OP, subject, detail)
            }
            Some(fetch) => {
                let fault = fetch.fault(OP);
                Fault { subject, detail: format!("{fetch}"), ..fault }
            }
            None => Fault::new(FaultKind::Unavailable, OP, subject, error.to_string()),
        },
        CatalogError::Malformed { .. }
        | CatalogError::Nesting { .. }
        | CatalogError::Entry(_)
        | CatalogError::Path(_) => Fault::new(FaultKind::Untrusted, OP, subject, error.to_string()),
        CatalogError::Read { .. } => Fault::new(FaultKind::Internal, OP, subject, error.to_string()),
    }
}
