//! Every parser of outside bytes behind one kind of function: bytes in, nothing out, no panic, no matter what.
//!
//! The cargo-fuzz targets in `fuzz/` call these with what libFuzzer makes up; the tests here call them with
//! mutations of real inputs, the same ones in each run, so that a short run is part of every test.

use std::io;
use std::path::Path;
use std::sync::Arc;

use volume::{Author, Caller, Frontend, OptionMap, Secrets};

use crate::client::blacklist::Blacklist;
use crate::client::catalog::{Catalog, Kind};
use crate::client::certificate::{Certificate, MasterKey};
use crate::client::config::shell::Files;
use crate::client::config::{ClientConfig, IdMap, Origin, Parameters, chain};
use crate::client::history::History;
use crate::client::manifest::Manifest;
use crate::client::whitelist::Whitelist;
use crate::identity::mount_key;
use crate::options::PodRules;
use crate::payload::Payload;

/// `.cvmfspublished`.
pub fn manifest(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::parse(bytes) {
        manifest.catalog_path();
        manifest.certificate_path();
    }
}

/// `.cvmfswhitelist`, and the blacklist, whose lines are alike.
pub fn whitelist(bytes: &[u8]) {
    if let Ok(whitelist) = Whitelist::parse(bytes) {
        whitelist.is_expired(std::time::UNIX_EPOCH);
    }
    Blacklist::parse(&String::from_utf8_lossy(bytes)).minimum_revision("cms.cern.ch");
}

/// A certificate object, a certificate and a master key.
pub fn certificate(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for certificate in [Certificate::from_object(bytes), Certificate::from_pem(&text)].into_iter().flatten() {
        certificate.signed("hash line", bytes);
    }
    if let Ok(key) = MasterKey::from_pem(&text) {
        key.signed("hash line", bytes);
    }
}

/// An inflated catalog: everything that can be read of it from its root on.
pub fn catalog(bytes: &[u8]) {
    let Ok(catalog) = Catalog::open(Arc::new(bytes.to_vec())) else { return };
    catalog.nested_towards(b"/nested/a/b");
    let root = catalog.properties().root_prefix.clone();
    let _ = catalog.lookup(&root);
    for row in catalog.list(&root, 0, 64).unwrap_or_default() {
        let Ok(dirent) = row.entry else { continue };
        let path = [root.as_slice(), b"/", &dirent.name].concat();
        if let Ok(Some(Ok(dirent))) = catalog.lookup(&path) {
            match &dirent.kind {
                Kind::Symlink(target) => drop(crate::client::symlink::expand(target, |_| None)),
                Kind::Regular(content) => drop(catalog.chunks(&path, content)),
                _ => {}
            }
        }
        let _ = catalog.list(&path, 0, 64);
    }
}

/// An inflated tags database.
pub fn history(bytes: &[u8]) {
    if let Ok(history) = History::read(Arc::new(bytes.to_vec())) {
        history.by_time(u64::MAX);
        let _ = history.root_of("cms.cern.ch", &volume::Revision::Tag("v1".into()));
    }
}

/// A configuration file, and what its values become; also the files of id maps.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let fqrn = "cms.cern.ch".parse().expect("a repository name");
    let path = Path::new("/etc/cvmfs/default.local");
    if let Ok(assigned) = chain::evaluate(&NoFiles, path, &text, Some(&fqrn), &Parameters::new()) {
        let mut parameters = Parameters::new();
        for (name, assigned) in assigned {
            parameters.set(name, assigned.value, Origin::file(assigned.file, assigned.line));
        }
        let _ = ClientConfig::from_parameters(&parameters);
    }
    let _ = text.parse::<IdMap>();
}

/// A volume's name (the first line) and options (`name=value` lines).
pub fn volume(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let name = lines.next().filter(|name| !name.is_empty());
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options: OptionMap = lines.filter_map(pair).collect();
    parsed(name, &options);
}

/// `clientConfig`, as the author of a pod and an administrator write it.
pub fn client_config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let repository = ("repository".to_owned(), "cms.cern.ch".to_owned());
    parsed(None, &OptionMap::from([repository, ("clientConfig".to_owned(), text)]));
}

/// Parses options for each kind of caller.
fn parsed(name: Option<&str>, options: &OptionMap) {
    let callers = [
        (Frontend::Docker, Author::Admin),
        (Frontend::Csi, Author::Admin),
        (Frontend::Csi, Author::Pod),
        (Frontend::Flexvolume, Author::Pod),
    ];
    for (frontend, author) in callers {
        let caller = Caller { frontend, author, secrets: Secrets::new() };
        if let Ok(spec) = crate::options::parse(name, options, &caller, &PodRules::default()) {
            mount_key(&spec);
        }
    }
}

/// What a worker is handed.
pub fn payload(bytes: &[u8]) {
    if let Ok(payload) = serde_json::from_slice::<Payload>(bytes) {
        payload.deadline();
    }
}

/// A file system with nothing in it.
struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _path: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn look(&self, _path: &Path) -> Option<std::fs::Metadata> {
        None
    }
}

#[cfg(test)]
mod tests;
