use std::sync::Mutex;

use volume::{Frontend, Launched, Revision, WorkerReport};

use super::*;
use crate::payload::RepositorySetup;

const DOCKER: Caller = Caller::admin(Frontend::Docker);

/// A pool that starts nothing and remembers what it was asked for.
#[derive(Default)]
struct Recorder(Mutex<Vec<LaunchRequest>>);

#[async_trait]
impl WorkerPool for Recorder {
    async fn launch(&self, request: LaunchRequest) -> Result<Launched, Fault> {
        let key = request.key.clone();
        self.0.lock().unwrap().push(request);
        Ok(Launched { key, report: WorkerReport::default() })
    }

    async fn report(&self, key: &MountKey) -> Option<Result<WorkerReport, Fault>> {
        self.0.lock().unwrap().iter().any(|request| request.key == *key).then(|| Ok(WorkerReport::default()))
    }

    async fn refresh(&self, _key: &MountKey) -> Result<(), Fault> {
        Ok(())
    }

    async fn stop(&self, key: &MountKey, _mountpoint: &Path) -> Result<(), Fault> {
        self.0.lock().unwrap().retain(|request| request.key != *key);
        Ok(())
    }

    async fn survivors(&self, _driver: Driver) -> Vec<Survivor> {
        Vec::new()
    }
}

struct Node {
    directory: tempfile::TempDir,
    pool: Arc<Recorder>,
    backend: CvmfsBackend,
}

fn node(files: &[(&str, &str)]) -> Node {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join("etc").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let settings = CvmfsSettings {
        config_dir: directory.path().join("etc"),
        cache_dir: directory.path().join("cache"),
        quota_mib: Some(77),
        deadline: Duration::from_secs(30),
        pods: PodRules::default(),
    };
    let pool = Arc::new(Recorder::default());
    Node { backend: CvmfsBackend::new(settings, pool.clone()), directory, pool }
}

impl Node {
    fn resolve(&self, name: &str, options: &[(&str, &str)]) -> Result<Resolved, Fault> {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let spec = self.backend.parse(Some(name), &options, &Form::default(), &DOCKER)?;
        run(self.backend.resolve(&spec, &DOCKER))
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn key_text(fqrn: &str) -> String {
    std::fs::read_to_string(fixtures::public_key(fqrn)).unwrap()
}

fn payload(resolved: &Resolved) -> Payload {
    serde_json::from_value(resolved.payload.clone()).unwrap()
}

fn one_of(resolved: &Resolved) -> RepositorySetup {
    match payload(resolved).kind {
        Kind::One(setup) => *setup,
        Kind::All(_) => panic!("one repository was asked for"),
    }
}

#[test]
fn a_volume_becomes_a_launch_with_keys_as_text() {
    let pem = key_text("test.cern.ch");
    let node = node(&[
        (
            "default.local",
            "CVMFS_HTTP_PROXY=DIRECT\nCVMFS_SERVER_URL=http://localhost/cvmfs/@fqrn@\nCVMFS_SUID=yes\n",
        ),
        ("keys/cern.ch/test.cern.ch.pub", &pem),
    ]);
    let resolved = node.resolve("test.cern.ch@v1.0", &[("timeout", "3")]).unwrap();
    assert!(resolved.key.as_str().starts_with("test.cern.ch@v1.0+"));
    let setup = one_of(&resolved);
    assert_eq!(setup.revision, Revision::Tag("v1.0".into()));
    assert_eq!(setup.master_keys[0].pem, pem);
    let config = setup.client_config().unwrap();
    assert_eq!(config.servers.urls()[0].to_string(), "http://localhost/cvmfs/test.cern.ch");
    assert_eq!(config.transfer.timeout, Duration::from_secs(3));
    assert_eq!(config.quota, crate::client::config::Quota::Bytes(77 << 20));
    assert_eq!(payload(&resolved).deadline(), Duration::from_secs(30));

    let mountpoint = node.directory.path().join("mnt");
    run(node.backend.attach(&resolved, &mountpoint)).unwrap();
    let request = node.pool.0.lock().unwrap()[0].clone();
    assert!(request.suid);
    assert_eq!((request.fs_name.as_str(), &request.mountpoint), ("test.cern.ch", &mountpoint));
    assert_eq!(request.writable, [node.directory.path().join("cache")]);
    assert_eq!(request.readable, Vec::<PathBuf>::new());
    assert!(matches!(run(node.backend.inspect(&resolved.key, &mountpoint)), Inspection::Live(_)));
    run(node.backend.detach(&resolved.key, &mountpoint)).unwrap();
    assert_eq!(run(node.backend.inspect(&resolved.key, &mountpoint)), Inspection::Absent);
}

#[test]
fn keys_that_a_volume_names_replace_those_of_the_node() {
    let node = node(&[("keys/x.pub", &key_text("mini.cern.ch"))]);
    let file = fixtures::public_key("test.cern.ch");
    let options = [("server", "http://h/@fqrn@"), ("public_key", file.to_str().unwrap())];
    let setup = one_of(&node.resolve("x.example.org", &options).unwrap());
    assert_eq!(setup.master_keys.len(), 1);
    assert_eq!(setup.master_keys[0].pem, key_text("test.cern.ch"));
    let text = key_text("snap.cern.ch");
    let setup = one_of(&node.resolve("x.example.org", &[options[0], ("public_key", &text)]).unwrap());
    assert_eq!(setup.master_keys[0].pem, text);
    let directory = file.parent().unwrap().to_str().unwrap();
    let setup = one_of(&node.resolve("x.example.org", &[options[0], ("keys_dir", directory)]).unwrap());
    assert!(setup.master_keys.len() > 1);
}

#[test]
fn a_file_of_configuration_is_read_at_each_mount() {
    let node = node(&[
        ("keys/cern.ch/c.pub", &key_text("mini.cern.ch")),
        ("atlas.conf", "T=9\nCVMFS_TIMEOUT=$T\nCVMFS_HTTP_PROXY=http://p:1\nCVMFS_REPOSITORY_TAG=v1\n"),
    ]);
    let options = [("clientConfigFilepath", "/etc/cvmfs/atlas.conf"), ("proxy", "DIRECT")];
    let first = node.resolve("cms.cern.ch", &options).unwrap();
    let setup = one_of(&first);
    assert_eq!(setup.revision, Revision::Tag("v1".into()));
    let config = setup.client_config().unwrap();
    assert_eq!(config.transfer.timeout, Duration::from_secs(9));
    assert_eq!(config.proxies.to_string(), "DIRECT");
    assert_eq!(setup.parameters.get(CONFIG_FILE), None);
    assert_eq!(node.resolve("cms.cern.ch", &options).unwrap(), first);
    std::fs::write(node.directory.path().join("etc/atlas.conf"), "CVMFS_TIMEOUT=10\n").unwrap();
    let second = node.resolve("cms.cern.ch", &options).unwrap();
    assert_ne!(second.key, first.key);
    assert_eq!(second.spec, first.spec);
    for (text, part) in [(Some("while true\n"), "atlas.conf:1"), (None, "atlas.conf cannot be read")] {
        let file = node.directory.path().join("etc/atlas.conf");
        match text {
            Some(text) => std::fs::write(file, text).unwrap(),
            None => std::fs::remove_file(file).unwrap(),
        }
        let text = node.resolve("cms.cern.ch", &options).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn keys_of_the_reference_package_are_built_in() {
    let bare = node(&[]);
    let resolve = |config: &str| {
        let options = OptionMap::from([
            ("repository".to_owned(), "atlas.cern.ch".to_owned()),
            ("clientConfig".to_owned(), config.to_owned()),
        ]);
        let csi = Caller::admin(Frontend::Csi);
        let spec = bare.backend.parse(Some("pv-1"), &options, &Form::default(), &csi)?;
        run(bare.backend.resolve(&spec, &csi))
    };
    let setup =
        one_of(&resolve("CVMFS_KEYS_DIR=/etc/cvmfs/keys/cern.ch\nCVMFS_HTTP_PROXY=DIRECT\n").unwrap());
    assert!(setup.master_keys.iter().all(|key| key.origin == "built-in"));
    let text = resolve("CVMFS_KEYS_DIR=/etc/cvmfs/mine\n").unwrap_err().to_string();
    assert!(text.contains("/etc/cvmfs/mine"), "{text}");
}

#[test]
fn what_is_missing_or_wrong_names_the_file() {
    let bare = node(&[]);
    for (name, options, part) in [
        ("x.example.org", &[][..], "etc/domain.d/example.org.local"),
        ("x.example.org", &[("server", "http://h/x")], "etc/keys/example.org/x.example.org.pub"),
        ("cms.cern.ch", &[("public_key", "/nonexistent.pub")], "/nonexistent.pub"),
        ("cms.cern.ch", &[("public_key", "/dev/zero")], "no regular file"),
        ("cms.cern.ch", &[("public_key", "/proc/self/exe")], "more than 65536 bytes"),
        ("cms.cern.ch", &[("public_key", "/etc/passwd")], "no PEM text"),
        ("cms.cern.ch", &[("keys_dir", "/nonexistent")], "no *.pub file"),
    ] {
        let text = bare.resolve(name, options).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
    let wrong = node(&[("default.local", "\nCVMFS_TIMEOUT=never\n")]);
    let fault = wrong.resolve("cms.cern.ch", &[]).unwrap_err();
    assert!(fault.detail.contains("default.local:2): use a whole number"), "{fault}");
    assert_eq!(fault.kind, FaultKind::Unsupported);
}

#[test]
fn all_repositories_are_configured_by_the_worker() {
    let node = node(&[
        ("default.local", "CVMFS_REPOSITORIES=test,cms.cern.ch\nCVMFS_SERVER_URL=http://h/cvmfs/@fqrn@\n"),
        ("keys/cern.ch/test.cern.ch.pub", &key_text("test.cern.ch")),
    ]);
    let resolved = node.resolve("cvmfs", &[("proxy", "http://p:3128")]).unwrap();
    assert!(resolved.key.as_str().starts_with("cvmfs+"));
    let request = launch_request(&resolved, Path::new("/m")).unwrap();
    assert_eq!(request.fs_name, "cvmfs");
    assert!(request.readable.contains(&node.directory.path().join("etc")));
    let Kind::All(setup) = payload(&resolved).kind else { panic!("all were asked for") };
    assert_eq!(setup.configured, ["cms.cern.ch", "test.cern.ch"]);
    let test = setup.repository(&"test.cern.ch".parse().unwrap()).unwrap();
    let config = test.client_config().unwrap();
    assert_eq!(config.proxies.to_string(), "http://p:3128");
    assert_eq!(config.quota, crate::client::config::Quota::Bytes(77 << 20));
    assert!(setup.repository(&"x.example.org".parse().unwrap()).is_err());
}
