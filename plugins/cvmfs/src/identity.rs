//! Which volumes share a mount.

use volume::{MountKey, OptionMap, Revision, VolumeSpec};

/// The key of a spec: `fqrn`, then `@tag` or `#hash` for a pinned revision, then `+` and 16 hex digits when the volume sets
/// parameters of its own. Two specs have the same key only when they are the same. `None`: the spec is another
/// driver's.
pub fn mount_key(spec: &VolumeSpec) -> Option<MountKey> {
    let (base, exact, revision, parameters) = match spec {
        VolumeSpec::Rbd(_) => return None,
        VolumeSpec::CvmfsAll(spec) => ("cvmfs".to_owned(), true, None, &spec.parameters),
        VolumeSpec::Cvmfs(spec) => {
            let (suffix, exact) = revision_suffix(&spec.revision);
            (format!("{}{suffix}", spec.repository), exact, Some(&spec.revision), &spec.parameters)
        }
    };
    let text = if exact && parameters.is_empty() {
        base
    } else {
        format!("{base}+{}", digest(revision, parameters))
    };
    let key = MountKey::new(text);
    Some(key.expect("a repository name, a cleaned revision and hex digits have the form of a key"))
}

/// How a revision shows in a key, and whether it shows in full.
fn revision_suffix(revision: &Revision) -> (String, bool) {
    match revision {
        Revision::Trunk => (String::new(), true),
        Revision::Hash(hash) => (format!("#{}", clean(hash, 49)), hash.len() <= 49),
        Revision::Tag(tag) => {
            let shown = clean(tag, 40);
            // A plus sign is left to the digest.
            let exact = shown == *tag;
            (format!("@{shown}"), exact)
        }
        Revision::Date(date) => (format!("@{}", clean(date, 40)), false),
    }
}

/// At most `limit` characters, all of which a key can have.
fn clean(text: &str, limit: usize) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '-' };
    text.chars().take(limit).map(safe).collect::<String>().replace("..", "--")
}

/// 16 hex digits over everything that makes the mount another one.
fn digest(revision: Option<&Revision>, parameters: &OptionMap) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    add(&format!("{revision:?}"));
    for (name, value) in parameters {
        add(name);
        add(value);
    }
    hasher.finalize().to_hex().as_str()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use volume::{CvmfsAllSpec, CvmfsSpec};

    use super::*;

    fn key(revision: Revision, parameters: &[(&str, &str)]) -> String {
        let parameters = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let spec = CvmfsSpec { repository: "cms.cern.ch".into(), revision, parameters };
        mount_key(&VolumeSpec::Cvmfs(spec)).unwrap().to_string()
    }

    #[test]
    fn plain_specs_have_plain_keys() {
        assert_eq!(key(Revision::Trunk, &[]), "cms.cern.ch");
        assert_eq!(key(Revision::Tag("v1.0".into()), &[]), "cms.cern.ch@v1.0");
        let hash = "080224936c226bafa5a35228bf913a1efda81dd8-shake128";
        assert_eq!(key(Revision::Hash(hash.into()), &[]), format!("cms.cern.ch#{hash}"));
        assert_eq!(mount_key(&VolumeSpec::CvmfsAll(CvmfsAllSpec::default())).unwrap().as_str(), "cvmfs");
    }

    #[test]
    fn different_specs_have_different_keys() {
        let keys = [
            key(Revision::Trunk, &[]),
            key(Revision::Trunk, &[("A", "1")]),
            key(Revision::Trunk, &[("A", "2")]),
            key(Revision::Trunk, &[("A1", "")]),
            key(Revision::Tag("a-b".into()), &[]),
            key(Revision::Tag("a:b".into()), &[]),
            key(Revision::Tag("a+b".into()), &[]),
            key(Revision::Tag("x".repeat(250)), &[]),
            key(Revision::Tag("x".repeat(251)), &[]),
            key(Revision::Date("2026-01-01T00:00:00Z".into()), &[]),
            key(Revision::Tag("2026-01-01T00-00-00Z".into()), &[]),
        ];
        for (at, left) in keys.iter().enumerate() {
            assert!(keys[at + 1..].iter().all(|right| right != left), "{left}");
            assert!(left.starts_with("cms.cern.ch") && left.len() <= 120);
        }
        assert_eq!(key(Revision::Trunk, &[("A", "1")]), keys[1]);
    }

    #[test]
    fn the_longest_names_still_make_keys() {
        let spec = CvmfsSpec {
            repository: format!("{}.ch", "a".repeat(124)),
            revision: Revision::Hash(format!("{}-shake128", "a".repeat(40))),
            parameters: OptionMap::from([("A".to_owned(), "1".to_owned())]),
        };
        assert!(mount_key(&VolumeSpec::Cvmfs(spec)).unwrap().as_str().len() <= 200);
    }
}
