//! All that the daemon reads for a repository, in one go.

use std::path::Path;

use volume::{OptionMap, Revision};

use super::chain::{self, ConfigError};
use super::tree::{ConfigTree, FILE_LIMIT, KEY_LIMIT};
use super::{Parameters, SYSTEM_DIR, builtin};
use crate::client::fqrn::Fqrn;
use crate::payload::{AllSetup, KeyText, RepositorySetup};

/// Most master keys of one repository.
const KEYS_MAX: usize = 256;

/// Reads configuration, keys, blacklist and id maps of one repository.
///
/// `revision` is what the volume asks for; where it asks for the trunk, the configuration may pin another. `keys` are
/// the volume's own; where there are any, the configuration's are not used.
///
/// # Errors
/// Something is missing or wrong; the error names the file to make or mend.
pub fn read_setup(
    tree: &ConfigTree,
    fqrn: &Fqrn,
    revision: &Revision,
    overrides: &OptionMap,
    keys: &[KeyText],
) -> Result<RepositorySetup, ConfigError> {
    let parameters = chain::read(tree, Some(fqrn), overrides)?;
    if parameters.get("CVMFS_SERVER_URL").is_none() {
        let file = tree.path(format!("domain.d/{}.local", fqrn.domain()));
        return Err(ConfigError::NoServer { repository: fqrn.clone(), file });
    }
    let mut setup = RepositorySetup {
        repository: fqrn.to_string(),
        revision: revision.clone(),
        master_keys: if keys.is_empty() { master_keys(tree, fqrn, &parameters)? } else { keys.to_vec() },
        blacklist: blacklist(tree, &parameters)?,
        uid_map: named_file(tree, &parameters, "CVMFS_UID_MAP")?,
        gid_map: named_file(tree, &parameters, "CVMFS_GID_MAP")?,
        parameters,
    };
    // What cannot be used is said now, not when a worker starts.
    let config = setup.client_config()?;
    setup.id_maps()?;
    if *revision == Revision::Trunk {
        setup.revision = config.revision;
    }
    Ok(setup)
}

/// The master keys that the configuration names, in the C++ client's order: files, else a directory, else the usual
/// places, else what is built in.
fn master_keys(tree: &ConfigTree, fqrn: &Fqrn, parameters: &Parameters) -> Result<Vec<KeyText>, ConfigError> {
    if let Some(files) = parameters.get("CVMFS_PUBLIC_KEY") {
        let files: Vec<_> = files.split(':').filter(|file| !file.is_empty()).take(KEYS_MAX).collect();
        return files.into_iter().map(|file| read_key(tree, Path::new(file))).collect();
    }
    let usual = tree.path("keys");
    let of_domain = usual.join(fqrn.domain());
    let mut directories = vec![of_domain.clone(), usual];
    let mut looked = "CVMFS_PUBLIC_KEY and CVMFS_KEYS_DIR are not set".to_owned();
    if let Some(named) = parameters.get("CVMFS_KEYS_DIR") {
        looked = format!("{named}, from CVMFS_KEYS_DIR, has no *.pub file");
        // The value that the shipped default.conf sets for all domains says no more than no value.
        if Path::new(named) == Path::new(SYSTEM_DIR).join("keys") {
            directories.rotate_right(1);
        } else {
            directories = vec![named.into()];
        }
    }
    for directory in &directories {
        let files = tree.list(directory, ".pub");
        if !files.is_empty() {
            return files.iter().take(KEYS_MAX).map(|file| read_key(tree, file)).collect();
        }
    }
    // The package's domain files name directories that only the package fills.
    let keys = builtin::keys(fqrn);
    let packaged = Path::new(SYSTEM_DIR).join("keys").join(fqrn.domain());
    let asked_elsewhere = parameters.get("CVMFS_KEYS_DIR").is_some_and(|named| {
        Path::new(named) != packaged && Path::new(named) != Path::new(SYSTEM_DIR).join("keys")
    });
    if keys.is_empty() || asked_elsewhere {
        let file = of_domain.join(format!("{fqrn}.pub"));
        return Err(ConfigError::NoKey { repository: fqrn.clone(), looked, file });
    }
    Ok(keys)
}

/// Whether a directory of keys is one that the package of the C++ client fills: `/etc/cvmfs/keys` or a domain's below it.
pub fn is_packaged_keys(directory: &Path) -> bool {
    let keys = Path::new(SYSTEM_DIR).join("keys");
    directory == keys || directory.parent() == Some(&keys)
}

/// Reads one key file.
///
/// # Errors
/// It is not there, no regular file, or larger than 64 KiB.
pub fn read_key(tree: &ConfigTree, path: &Path) -> Result<KeyText, ConfigError> {
    let pem = required(tree, path, KEY_LIMIT)?;
    Ok(KeyText { origin: path.display().to_string(), pem })
}

fn required(tree: &ConfigTree, path: &Path, limit: u64) -> Result<String, ConfigError> {
    let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
    tree.read(path, limit)
        .and_then(|text| text.ok_or_else(missing))
        .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error })
}

/// The blacklist; a missing file is an empty one.
fn blacklist(tree: &ConfigTree, parameters: &Parameters) -> Result<String, ConfigError> {
    let path = parameters.get("CVMFS_BLACKLIST").map_or_else(|| tree.path("blacklist"), Into::into);
    let text = tree.read(&path, FILE_LIMIT);
    text.map(Option::unwrap_or_default).map_err(|error| ConfigError::Unreadable { path, error })
}

/// The text of a file that a parameter names; empty when it is not set.
fn named_file(tree: &ConfigTree, parameters: &Parameters, name: &str) -> Result<String, ConfigError> {
    parameters.get(name).map_or(Ok(String::new()), |path| required(tree, Path::new(path), FILE_LIMIT))
}

impl AllSetup {
    /// Reads the configuration of one repository, at its first lookup.
    ///
    /// # Errors
    /// Something is missing or wrong; the error names the file to make or mend.
    pub fn repository(&self, fqrn: &Fqrn) -> Result<RepositorySetup, ConfigError> {
        let tree = ConfigTree::new(&self.config_dir);
        read_setup(&tree, fqrn, &Revision::Trunk, &self.overrides, &self.master_keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(files: &[(&str, &str)]) -> (tempfile::TempDir, ConfigTree) {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let tree = ConfigTree::new(directory.path());
        (directory, tree)
    }

    fn setup(tree: &ConfigTree, fqrn: &str) -> Result<RepositorySetup, ConfigError> {
        read_setup(tree, &fqrn.parse().unwrap(), &Revision::Trunk, &OptionMap::new(), &[])
    }

    fn key_origins(setup: &RepositorySetup) -> Vec<String> {
        let name = |key: &KeyText| key.origin.rsplit('/').next().unwrap_or_default().to_owned();
        setup.master_keys.iter().map(name).collect()
    }

    #[test]
    fn keys_are_looked_for_where_the_configuration_says() {
        let (_guard, tree) = site(&[
            ("default.local", "CVMFS_SERVER_URL=http://h/@fqrn@\nCVMFS_KEYS_DIR=/etc/cvmfs/keys\n"),
            ("config.d/named.example.org.conf", "CVMFS_PUBLIC_KEY=/etc/cvmfs/own/a.pub:/etc/cvmfs/own/b.pub"),
            ("config.d/directory.example.org.conf", "CVMFS_KEYS_DIR=/etc/cvmfs/own"),
            ("config.d/nothing.example.org.conf", "CVMFS_KEYS_DIR=/etc/cvmfs/nothing"),
            ("keys/cern.ch/c.pub", "c"),
            ("own/a.pub", "a"),
            ("own/b.pub", "b"),
            ("own/README", "x"),
        ]);
        assert_eq!(key_origins(&setup(&tree, "named.example.org").unwrap()), ["a.pub", "b.pub"]);
        assert_eq!(key_origins(&setup(&tree, "directory.example.org").unwrap()), ["a.pub", "b.pub"]);
        assert_eq!(key_origins(&setup(&tree, "cms.cern.ch").unwrap()), ["c.pub"]);
        assert_eq!(key_origins(&setup(&tree, "x.egi.eu").unwrap()), ["built-in"]);
        let error = setup(&tree, "nothing.example.org").unwrap_err().to_string();
        assert!(error.contains("/etc/cvmfs/nothing, from CVMFS_KEYS_DIR, has no *.pub file"), "{error}");
        let error = setup(&tree, "other.example.org").unwrap_err().to_string();
        assert!(error.contains("keys/example.org/other.example.org.pub"), "{error}");
    }

    #[test]
    fn a_missing_server_names_the_file_to_make() {
        let (_guard, tree) = site(&[("keys/x.pub", "k")]);
        let error = setup(&tree, "a.example.org").unwrap_err().to_string();
        assert!(error.contains("domain.d/example.org.local"), "{error}");
    }

    #[test]
    fn the_configuration_may_pin_a_revision_and_the_volume_wins() {
        let (_guard, tree) = site(&[("config.d/cms.cern.ch.local", "CVMFS_REPOSITORY_TAG=v1\n")]);
        assert_eq!(setup(&tree, "cms.cern.ch").unwrap().revision, Revision::Tag("v1".into()));
        let asked = Revision::Hash("ab".into());
        let setup =
            read_setup(&tree, &"cms.cern.ch".parse().unwrap(), &asked, &OptionMap::new(), &[]).unwrap();
        assert_eq!(setup.revision, asked);
    }

    #[test]
    fn maps_and_blacklist_are_carried_as_text() {
        let (_guard, tree) = site(&[
            ("default.local", "CVMFS_UID_MAP=/etc/cvmfs/uids"),
            ("uids", "1000 2000\n"),
            ("blacklist", "<cms.cern.ch 7\n"),
        ]);
        let good = setup(&tree, "cms.cern.ch").unwrap();
        assert_eq!(good.id_maps().unwrap().0.map(1000), 2000);
        assert_eq!(good.blacklist, "<cms.cern.ch 7\n");
        let (_guard, tree) = site(&[("default.local", "CVMFS_UID_MAP=/etc/cvmfs/uids"), ("uids", "x y\n")]);
        assert!(setup(&tree, "cms.cern.ch").unwrap_err().to_string().contains("line 1"));
        let (_guard, tree) = site(&[("default.local", "CVMFS_GID_MAP=/etc/cvmfs/gids")]);
        assert!(
            setup(&tree, "cms.cern.ch").unwrap_err().to_string().contains("/etc/cvmfs/gids cannot be read")
        );
    }
}
