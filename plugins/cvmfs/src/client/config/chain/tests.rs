use super::*;

struct Site(tempfile::TempDir);

impl Site {
    fn new(files: &[(&str, &str)]) -> Self {
        let site = Site(tempfile::tempdir().unwrap());
        for (path, text) in files {
            let path = site.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        site
    }

    fn tree(&self) -> ConfigTree {
        ConfigTree::new(self.0.path())
    }

    fn read(&self, fqrn: &str) -> Result<Parameters, ConfigError> {
        read(&self.tree(), Some(&fqrn.parse().unwrap()), &OptionMap::new())
    }
}

#[test]
fn later_files_win_and_every_value_knows_where_it_came_from() {
    let site = Site::new(&[
        ("default.conf", "A=1\nB=1\nC=1\nD=1\nE=1\nF=1\nG=1\nCVMFS_SERVER_URL=http://h/@fqrn@/@org@\n"),
        ("default.d/20-b.conf", "B=3\nC=3\nD=3\nE=3\nF=3\nG=$G:3\n"),
        ("default.d/10-a.conf", "B=2\n"),
        ("default.d/README", "not a ( configuration"),
        ("default.local", "C=4\nD=4\nE=4\nF=4\n"),
        ("domain.d/cern.ch.conf", "D=5\nE=5\nF=5\n"),
        ("domain.d/cern.ch.local", "E=6\nF=6\n"),
        ("config.d/cms.cern.ch.conf", "\nF=7\n"),
        ("config.d/atlas.cern.ch.conf", "F=8\n"),
    ]);
    let parameters = site.read("cms.cern.ch").unwrap();
    let values: String = "ABCDEF".chars().map(|name| parameters.get(&name.to_string()).unwrap()).collect();
    assert_eq!(values, "134567");
    assert_eq!(parameters.get("G"), Some("1:3"));
    assert_eq!(parameters.get("CVMFS_SERVER_URL"), Some("http://h/cms.cern.ch/cms"));
    let origin = parameters.setting("F").unwrap().origin.to_string();
    assert!(origin.ends_with("config.d/cms.cern.ch.conf:2"), "{origin}");
    assert!(parameters.get("CVMFS_ARCH").is_some());
}

#[test]
fn templates_are_filled_in_what_a_volume_sets_too() {
    let overrides = OptionMap::from([("CVMFS_SERVER_URL".to_owned(), "http://mine/@fqrn@".to_owned())]);
    let site = Site::new(&[("default.local", "CVMFS_SERVER_URL=http://site/@fqrn@")]);
    let parameters = read(&site.tree(), Some(&"a.example.org".parse().unwrap()), &overrides).unwrap();
    assert_eq!(parameters.get("CVMFS_SERVER_URL"), Some("http://mine/a.example.org"));
    assert_eq!(parameters.setting("CVMFS_SERVER_URL").unwrap().origin, Origin::volume_option());
}

#[test]
fn a_node_without_files_reaches_the_known_domains() {
    let site = Site::new(&[]);
    for fqrn in ["cms.cern.ch", "wenmr.egi.eu", "oasis.opensciencegrid.org"] {
        let parameters = site.read(fqrn).unwrap();
        let url = parameters.get("CVMFS_SERVER_URL").unwrap();
        assert!(url.contains(&format!("/cvmfs/{fqrn};")), "{url}");
        super::super::ClientConfig::from_parameters(&parameters).unwrap();
    }
    assert_eq!(site.read("x.example.org").unwrap().get("CVMFS_SERVER_URL"), None);
}

/// The files as the reference client's package installs them (their constructs; the text is ours).
#[test]
fn the_constructs_of_the_shipped_files_work() {
    let site = Site::new(&[
        (
            "default.conf",
            "CVMFS_CLIENT_PROFILE=\nCVMFS_CACHE_BASE=/var/lib/cvmfs\nCVMFS_QUOTA_LIMIT=4000\nCVMFS_TIMEOUT=5\n\
             CVMFS_KEYS_DIR=/etc/cvmfs/keys\nif [ \"x$CVMFS_BASE_ENV\" = \"x\" ]; then\n  readonly CVMFS_USER=cvmfs\n  \
             readonly CVMFS_MOUNT_DIR=/cvmfs\n  readonly CVMFS_BASE_ENV=1\nfi\n",
        ),
        (
            "default.d/50-cern-debian.conf",
            "CVMFS_CONFIG_REPO_DEFAULT_ENV=\n\
             if [ -f /etc/debian_version ] && grep -q \"wheezy\\|jessie\" /etc/debian_version;\nthen\n    :\nelse\n    \
             CVMFS_CONFIG_REPOSITORY=cvmfs-config.cern.ch\nfi\nCVMFS_DEFAULT_DOMAIN=cern.ch\n",
        ),
        (
            "domain.d/cern.ch.conf",
            "if [ \"$CVMFS_CONFIG_REPO_DEFAULT_ENV\" = \"\" ]; then\n  if [ \"$CVMFS_USE_CDN\" = \"yes\" ]; then\n    \
             CVMFS_SERVER_URL=\"http://cdn/cvmfs/@fqrn@\"\n  else\n    \
             CVMFS_SERVER_URL=\"http://one/cvmfs/@fqrn@;http://two/cvmfs/@fqrn@\"\n  fi\n  \
             CVMFS_KEYS_DIR=/etc/cvmfs/keys/cern.ch\n  CVMFS_USE_GEOAPI=yes\nfi\n",
        ),
        ("config.d/cvmfs-config.cern.ch.conf", "CVMFS_HTTP_PROXY=\"${CVMFS_HTTP_PROXY:=DIRECT}\"\n"),
        ("config.d/grid.cern.ch.conf", "export GLITE_VERSION=${GLITE_VERSION:=default}\n"),
    ]);
    let parameters = site.read("grid.cern.ch").unwrap();
    assert_eq!(parameters.get("GLITE_VERSION"), Some("default"));
    assert_eq!(
        parameters.get("CVMFS_SERVER_URL"),
        Some("http://one/cvmfs/grid.cern.ch;http://two/cvmfs/grid.cern.ch")
    );
    let config = super::super::ClientConfig::from_parameters(&parameters).unwrap();
    assert!(
        config.notes.iter().any(|note| note.starts_with("CVMFS_CONFIG_REPOSITORY")),
        "{:?}",
        config.notes
    );
    assert_eq!(site.read("cvmfs-config.cern.ch").unwrap().get("CVMFS_HTTP_PROXY"), Some("DIRECT"));
}

#[test]
fn the_config_repository_is_fixed_after_default_d() {
    let site = Site::new(&[
        ("default.d/50.conf", "CVMFS_CONFIG_REPOSITORY=one.cern.ch"),
        ("default.local", "CVMFS_CONFIG_REPOSITORY=two.cern.ch"),
    ]);
    assert_eq!(site.read("cms.cern.ch").unwrap().get("CVMFS_CONFIG_REPOSITORY"), Some("one.cern.ch"));
}

#[test]
fn unfit_files_are_named() {
    let site = Site::new(&[("default.local", "A=1\nB=$(curl x)\n")]);
    let error = site.read("cms.cern.ch").unwrap_err().to_string();
    assert!(error.contains("default.local:2: "), "{error}");
    let site = Site::new(&[("default.local/directory", "")]);
    let error = site.read("cms.cern.ch").unwrap_err().to_string();
    assert!(error.contains("default.local cannot be read"), "{error}");
    let site = Site::new(&[]);
    nix::unistd::mkfifo(&site.0.path().join("default.local"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = site.read("cms.cern.ch").unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
}

#[test]
fn configured_repositories_come_from_the_list_and_from_files() {
    let site = Site::new(&[
        ("default.local", "CVMFS_REPOSITORIES=atlas,cms.cern.ch,x.example.org\nCVMFS_DEFAULT_DOMAIN=cern.ch"),
        ("config.d/lhcb.cern.ch.local", ""),
        ("config.d/cms.cern.ch.conf", ""),
        ("config.d/README", ""),
        ("config.d/nodots.conf", ""),
    ]);
    let names = configured(&site.tree()).unwrap();
    assert_eq!(names, ["atlas.cern.ch", "cms.cern.ch", "lhcb.cern.ch", "x.example.org"]);
}
