//! Repositories over HTTP: verified, pinned, refreshed, and without a server.

use std::path::Path;

use super::*;
use crate::client::cache::{Cache, CacheConfig};
use crate::client::config::{Origin as From, Parameters};
use crate::client::fetch::address::ProxyGroups;
use crate::client::fetch::{FetchConfig, Origin};
use crate::client::update::{Change, What};
use crate::payload::KeyText;
use crate::publish::forge::test_keys;
use crate::publish::serve::{FileServer, ServeLimits, ServingFiles};
use crate::publish::{CreateOptions, NewTag, PublishOptions, Publisher};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn serve(directory: &Path) -> ServingFiles {
    let any = "127.0.0.1:0".parse().unwrap();
    FileServer::bind(directory, any, ServeLimits::default()).unwrap().spawn().unwrap()
}

fn setup(fqrn: &str, pem: &str, revision: Revision) -> RepositorySetup {
    let mut parameters = Parameters::new();
    parameters.set("CVMFS_SERVER_URL", "http://127.0.0.1/cvmfs/@fqrn@", From::built_in());
    RepositorySetup {
        repository: fqrn.to_owned(),
        revision,
        parameters,
        master_keys: vec![KeyText { origin: "test".to_owned(), pem: pem.to_owned() }],
        blacklist: String::new(),
        uid_map: String::new(),
        gid_map: String::new(),
    }
}

/// A client with its own cache; the server may be gone.
fn fetcher(fqrn: &str, url: &str, cache: &Path) -> Arc<Fetcher> {
    let origin = Origin::new(url.parse().unwrap(), ProxyGroups::direct());
    let mut config = FetchConfig::new(fqrn, origin);
    config.max_retries = 0;
    config.deadline = Duration::from_secs(5);
    Fetcher::new(config, Cache::open(CacheConfig::new(cache, None)).unwrap())
}

/// A served fixture and an empty cache.
struct Fixture {
    fqrn: String,
    server: Option<ServingFiles>,
    url: String,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn of(fqrn: &str) -> Self {
        let server = serve(&fixtures::www());
        let url = server.url(&format!("cvmfs/{fqrn}"));
        Fixture { fqrn: fqrn.to_owned(), server: Some(server), url, directory: tempfile::tempdir().unwrap() }
    }

    fn setup(&self, revision: Revision) -> RepositorySetup {
        let pem = std::fs::read_to_string(fixtures::public_key(&self.fqrn)).unwrap();
        setup(&self.fqrn, &pem, revision)
    }

    async fn open_as(
        &self,
        setup: &RepositorySetup,
        offline: bool,
        resume: Option<Resume>,
    ) -> Result<Arc<Repository>, Fault> {
        let fetcher = fetcher(&self.fqrn, &self.url, &self.directory.path().join("cache"));
        Repository::open(setup, fetcher, offline, resume).await
    }

    async fn open(&self, revision: Revision) -> Result<Arc<Repository>, Fault> {
        self.open_as(&self.setup(revision), false, None).await
    }
}

#[test]
fn good_repositories_open_and_bad_ones_are_refused() {
    runtime().block_on(async {
        for fqrn in fixtures::GOOD {
            let repository = Fixture::of(fqrn).open(Revision::Trunk).await.unwrap();
            assert_eq!(repository.trouble(), None);
            assert!(repository.snapshot().lookup(b"").await.unwrap().is_some());
            assert!(repository.next_refresh().unwrap() > Instant::now() + Duration::from_secs(200));
        }
        for fqrn in fixtures::REFUSED {
            let fault = Fixture::of(fqrn).open(Revision::Trunk).await.unwrap_err();
            assert_eq!((fault.kind, fault.subject.as_str()), (FaultKind::Untrusted, fqrn), "{fault}");
        }
        let fault = Fixture::of("nobody.cern.ch").open(Revision::Trunk).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::NotFound, "{fault}");
    });
}

#[test]
fn tags_dates_and_hashes_pin_a_revision() {
    runtime().block_on(async {
        let fixture = Fixture::of("test.cern.ch");
        let v1 = "8525f62af77aa17c07cdc582d2a72e559dc99780";
        for revision in [
            Revision::Tag("v1.0".to_owned()),
            Revision::Date("2026-11-21T07:55:07Z".to_owned()),
            Revision::Hash(v1.to_owned()),
        ] {
            let repository = fixture.open(revision.clone()).await.unwrap();
            let snapshot = repository.snapshot();
            assert_eq!(
                (snapshot.root().digest.to_string().as_str(), snapshot.revision()),
                (v1, 3),
                "{revision:?}"
            );
            assert!(repository.is_pinned() && repository.next_refresh().is_none());
            assert!(repository.refresh().await.unwrap().is_none());
        }
        for (revision, kind, words) in [
            (Revision::Tag("v1.9".to_owned()), FaultKind::NotFound, "v1.0"),
            (Revision::Date("2001-01-01T00:00:00Z".to_owned()), FaultKind::NotFound, "2001"),
            (Revision::Date("yesterday".to_owned()), FaultKind::InvalidArgument, "2026"),
            (Revision::Hash("beef".to_owned()), FaultKind::InvalidArgument, "beef"),
            (Revision::Hash("0".repeat(40)), FaultKind::NotFound, "0000"),
            // The catalog of a subdirectory.
            (
                Revision::Hash("7059e5ad56691aef21883179e47a2165b0f2ef47".to_owned()),
                FaultKind::Untrusted,
                "subdirectory",
            ),
        ] {
            let fault = fixture.open(revision.clone()).await.unwrap_err();
            assert_eq!(fault.kind, kind, "{revision:?}: {fault}");
            assert!(fault.to_string().contains(words), "{revision:?}: {fault}");
        }
        // The blacklist holds for pinned revisions too.
        let mut setup = fixture.setup(Revision::Tag("v1.0".to_owned()));
        setup.blacklist = "<test.cern.ch 4\n".to_owned();
        assert_eq!(fixture.open_as(&setup, false, None).await.unwrap_err().kind, FaultKind::Untrusted);
    });
}

#[test]
fn without_a_server_the_last_verified_revision_is_served() {
    runtime().block_on(async {
        let mut fixture = Fixture::of("test.cern.ch");
        let trunk = Revision::Trunk;
        let online = fixture.open(trunk.clone()).await.unwrap();
        let (resume, root) = (online.resume(), online.snapshot().root().clone());
        online.snapshot().lookup(b"/nested/a/inner").await.unwrap().unwrap();
        drop(online);
        fixture.server = None;

        let asked = fixture.open(trunk.clone()).await.unwrap();
        assert!(asked.trouble().unwrap().contains("last verified"));
        assert_eq!(asked.snapshot().root(), &root);
        assert!(asked.snapshot().lookup(b"/nested/a/inner").await.unwrap().is_some());
        assert!(asked.refresh().await.is_err());
        let since = |text: String| text.split(": ").next().unwrap_or_default().to_owned();
        let first = asked.trouble().unwrap();
        assert!(first.starts_with("since 20") && first.contains("revision 6 is served"), "{first}");
        assert!(asked.refresh().await.is_err());
        assert_eq!(since(asked.trouble().unwrap()), since(first));

        let setup = fixture.setup(trunk.clone());
        let offline = fixture.open_as(&setup, true, None).await.unwrap();
        assert_eq!((offline.trouble(), offline.snapshot().root()), (None, &root));
        assert!(offline.next_refresh().unwrap() <= Instant::now());

        // A record that other keys do not vouch for is no record.
        let other = setup_with_key(&setup, &test_keys().public_key_pem());
        assert!(fixture.open_as(&other, true, None).await.is_err());
        // A live mount goes on all the same.
        let adopted = fixture.open_as(&other, true, Some(resume.clone())).await.unwrap();
        assert_eq!(adopted.resume(), resume);

        // Nothing was ever verified here.
        let fresh = Fixture { directory: tempfile::tempdir().unwrap(), ..fixture };
        for offline in [true, false] {
            let fault = fresh.open_as(&setup, offline, None).await.unwrap_err();
            assert_eq!(fault.kind, FaultKind::Unavailable, "{fault}");
        }
    });
}

fn setup_with_key(setup: &RepositorySetup, pem: &str) -> RepositorySetup {
    let master_keys = vec![KeyText { origin: "test".to_owned(), pem: pem.to_owned() }];
    RepositorySetup { master_keys, ..setup.clone() }
}

/// A repository that is published to while clients have it open.
struct Site {
    directory: tempfile::TempDir,
    publisher: Publisher,
    server: ServingFiles,
}

const FQRN: &str = "sw.example.org";

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let www = directory.path().join("www");
        std::fs::create_dir_all(directory.path().join("tree/d")).unwrap();
        std::fs::create_dir_all(&www).unwrap();
        let publisher = Publisher::create(&www.join("repo"), test_keys(), &CreateOptions::new(FQRN)).unwrap();
        let server = serve(&www);
        Site { directory, publisher, server }
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join("tree").join(name), text).unwrap();
    }

    fn publish(&self, tag: Option<&str>) -> u64 {
        let tag = tag.map(|name| NewTag { name: name.to_owned(), description: String::new() });
        let options = PublishOptions { tag, ..PublishOptions::default() };
        self.publisher.publish(&self.directory.path().join("tree"), &options, &()).unwrap().revision
    }

    async fn open(&self, revision: Revision, cache: &str) -> Result<Arc<Repository>, Fault> {
        let cache = self.directory.path().join(cache);
        let fetcher = fetcher(FQRN, &self.server.url("repo"), &cache);
        let setup = setup(FQRN, &test_keys().public_key_pem(), revision);
        Repository::open(&setup, fetcher, false, None).await
    }

    fn manifest(&self) -> std::path::PathBuf {
        self.directory.path().join("www/repo/.cvmfspublished")
    }
}

#[test]
fn a_new_revision_is_found_and_told_and_none_is_taken_back() {
    runtime().block_on(async {
        let site = Site::new();
        site.write("d/kept", "kept");
        site.write("d/file", "one");
        site.write("gone", "gone");
        site.publish(Some("first"));
        let old_manifest = std::fs::read(site.manifest()).unwrap();
        let repository = site.open(Revision::Trunk, "cache").await.unwrap();
        let pinned = site.open(Revision::Tag("first".to_owned()), "cache").await.unwrap();
        let before = repository.snapshot();
        before.lookup(b"/d/file").await.unwrap().unwrap();
        assert!(repository.refresh().await.unwrap().is_none());

        site.write("d/file", "two");
        site.write("d/new", "new");
        std::fs::remove_file(site.directory.path().join("tree/gone")).unwrap();
        let revision = site.publish(None);
        let update = repository.refresh().await.unwrap().unwrap();
        assert_eq!((repository.snapshot().revision(), update.old.revision()), (revision, before.revision()));
        let mut changes = Vec::new();
        update.changes(&[], &mut |change: Change| changes.push(change)).await.unwrap();
        let what = |parent: &[u8], name: &[u8]| {
            let found = changes.iter().find(|change| change.parent == parent && change.name == name);
            found.map(|change| change.what)
        };
        assert_eq!(what(b"/d", b"file"), Some(What::Content));
        assert_eq!(what(b"/d", b"new"), Some(What::Added));
        assert_eq!(what(b"", b"gone"), Some(What::Removed));
        assert_eq!(what(b"/d", b"kept"), None);
        // What was open before is what it was.
        let located = before.lookup(b"/d/file").await.unwrap().unwrap();
        assert_eq!(
            repository.catalogs().entry(&located.catalog, b"/d/file").await.unwrap(),
            Some(located.dirent)
        );
        assert_eq!(pinned.snapshot().root(), before.root());

        // An older manifest, validly signed, moves nothing back: neither here nor in a process that starts anew.
        let newest = std::fs::read(site.manifest()).unwrap();
        std::fs::write(site.manifest(), &old_manifest).unwrap();
        let fault = repository.refresh().await.unwrap_err();
        assert_eq!((fault.kind, fault.retry), (FaultKind::Untrusted, Retry::Later), "{fault}");
        assert!(repository.trouble().is_some());
        assert_eq!(repository.snapshot().revision(), revision);
        let again = site.open(Revision::Trunk, "cache").await.unwrap();
        assert_eq!(again.snapshot().revision(), revision);
        // Who never saw more takes it.
        let innocent = site.open(Revision::Trunk, "other").await.unwrap();
        assert_eq!(innocent.snapshot().revision(), before.revision());

        std::fs::write(site.manifest(), newest).unwrap();
        assert!(repository.refresh().await.unwrap().is_none());
        assert_eq!(repository.trouble(), None);
        assert_eq!(innocent.refresh().await.unwrap().unwrap().new.revision(), revision);
    });
}

#[test]
fn a_revision_whose_root_is_missing_is_not_switched_to() {
    runtime().block_on(async {
        let site = Site::new();
        site.write("a", "1");
        site.publish(None);
        let repository = site.open(Revision::Trunk, "cache").await.unwrap();
        let before = repository.snapshot();
        site.write("a", "2");
        site.publish(None);
        let manifest = Manifest::parse(&std::fs::read(site.manifest()).unwrap()).unwrap();
        let root = site.directory.path().join("www/repo").join(manifest.catalog_path());
        let kept = root.with_extension("kept");
        std::fs::rename(&root, &kept).unwrap();
        assert!(repository.refresh().await.is_err());
        assert_eq!(repository.snapshot().root(), before.root());
        assert!(before.lookup(b"/a").await.unwrap().is_some());
        std::fs::rename(&kept, &root).unwrap();
        assert!(repository.refresh().await.unwrap().is_some());
    });
}

#[test]
fn a_process_that_takes_over_goes_on_where_the_last_one_was() {
    runtime().block_on(async {
        let site = Site::new();
        site.write("a", "1");
        site.publish(None);
        let repository = site.open(Revision::Trunk, "cache").await.unwrap();
        let resume = repository.resume();
        drop(repository);
        site.write("a", "2");
        site.publish(None);
        // Another process of the node sees the new revision first.
        let other = site.open(Revision::Trunk, "cache").await.unwrap();
        assert!(other.snapshot().revision() > resume.revision);
        let fetcher = fetcher(FQRN, &site.server.url("repo"), &site.directory.path().join("cache"));
        let setup = setup(FQRN, &test_keys().public_key_pem(), Revision::Trunk);
        let adopted = Repository::open(&setup, fetcher, true, Some(resume.clone())).await.unwrap();
        assert_eq!(adopted.resume(), resume);
        let text = serde_json::to_string(&resume).unwrap();
        assert_eq!(serde_json::from_str::<Resume>(&text).unwrap(), resume);
        let update = adopted.refresh().await.unwrap().unwrap();
        assert_eq!(
            (update.old.revision(), update.new.revision()),
            (resume.revision, other.snapshot().revision())
        );
    });
}
