use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;

use super::*;

fn policy(fqrn: &str) -> TrustPolicy {
    let pem = std::fs::read_to_string(fixtures::public_key(fqrn)).unwrap();
    TrustPolicy {
        repository: fqrn.to_owned(),
        master_keys: vec![MasterKey::from_pem(&pem).unwrap()],
        blacklist: Blacklist::default(),
        floor: None,
    }
}

fn read(fqrn: &str, path: &str) -> Bytes {
    std::fs::read(fixtures::repository(fqrn).join(path)).unwrap().into()
}

fn evidence(fqrn: &str) -> Evidence {
    let published = read(fqrn, ".cvmfspublished");
    let certificate = read(fqrn, &Manifest::parse(&published).unwrap().certificate_path());
    Evidence { published, whitelist: read(fqrn, ".cvmfswhitelist"), certificate }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_262_400)
}

fn verdict(fqrn: &str) -> TrustError {
    verify(evidence(fqrn), &policy(fqrn), now()).unwrap_err()
}

#[test]
fn good_repositories_are_believed() {
    for fqrn in fixtures::GOOD.iter().chain(&["tampered.cern.ch"]) {
        let verified = verify(evidence(fqrn), &policy(fqrn), now()).unwrap();
        assert_eq!(verified.manifest().repository, *fqrn);
        let again = verify(verified.evidence().clone(), &policy(fqrn), now()).unwrap();
        assert_eq!(again, verified);
    }
}

#[test]
fn each_bad_repository_is_refused_for_its_own_reason() {
    assert!(matches!(verdict("badhash.cern.ch"), TrustError::ManifestHash));
    assert!(matches!(verdict("badsig.cern.ch"), TrustError::ManifestSignature));
    assert!(matches!(verdict("expired.cern.ch"), TrustError::Expired(_)));
    assert!(matches!(verdict("notlisted.cern.ch"), TrustError::NotListed(_)));
    assert!(matches!(verdict("wlbadsig.cern.ch"), TrustError::WhitelistSignature { keys: 1 }));
    assert!(matches!(verdict("wrongkey.cern.ch"), TrustError::WhitelistSignature { keys: 1 }));
    assert!(
        matches!(verdict("wlwrongname.cern.ch"), TrustError::WhitelistName { found } if found != "wlwrongname.cern.ch")
    );
    assert!(
        matches!(verdict("wrongname.cern.ch"), TrustError::ManifestName { found } if found != "wrongname.cern.ch")
    );
}

#[test]
fn any_of_several_master_keys_will_do() {
    let mut several = policy("test.cern.ch");
    several.master_keys.insert(0, policy("snap.cern.ch").master_keys.remove(0));
    verify(evidence("test.cern.ch"), &several, now()).unwrap();
    several.master_keys.pop();
    assert!(matches!(
        verify(evidence("test.cern.ch"), &several, now()),
        Err(TrustError::WhitelistSignature { keys: 1 })
    ));
    several.master_keys.clear();
    assert!(verify(evidence("test.cern.ch"), &several, now()).is_err());
}

#[test]
fn nothing_older_than_what_was_seen_is_taken() {
    let verified = verify(evidence("test.cern.ch"), &policy("test.cern.ch"), now()).unwrap();
    let floor = verified.floor();
    let mut seen = policy("test.cern.ch");
    seen.floor = Some(floor);
    verify(evidence("test.cern.ch"), &seen, now()).unwrap();
    for newer in
        [Floor { revision: floor.revision + 1, ..floor }, Floor { published: floor.published + 1, ..floor }]
    {
        seen.floor = Some(newer);
        let error = verify(evidence("test.cern.ch"), &seen, now()).unwrap_err();
        assert!(matches!(error, TrustError::Outdated { .. }), "{error}");
    }
}

#[test]
fn the_blacklist_wins_over_the_whitelist() {
    for (fqrn, algorithm) in [("test.cern.ch", "SHA1"), ("rmd160.cern.ch", "RMD160")] {
        let whitelist = read(fqrn, ".cvmfswhitelist");
        let text = String::from_utf8_lossy(&whitelist).into_owned();
        let line = text.lines().nth(3).unwrap();
        let mut strict = policy(fqrn);
        strict.blacklist = Blacklist::parse(line);
        let error = verify(evidence(fqrn), &strict, now()).unwrap_err();
        assert!(matches!(error, TrustError::Blacklisted(_)), "{algorithm}: {error}");
    }
    let mut strict = policy("test.cern.ch");
    strict.blacklist = Blacklist::parse("<test.cern.ch 1000000");
    let error = verify(evidence("test.cern.ch"), &strict, now()).unwrap_err();
    assert!(matches!(error, TrustError::RevisionBlacklisted { minimum: 1_000_000, .. }), "{error}");
}

#[test]
fn another_certificate_object_is_noticed() {
    let mut mixed = evidence("test.cern.ch");
    mixed.certificate = evidence("snap.cern.ch").certificate;
    let error = verify(mixed, &policy("test.cern.ch"), now()).unwrap_err();
    assert!(matches!(error, TrustError::CertificateHash { .. }), "{error}");
}

/// Whatever byte of any blob is flipped, the result is an error or the very same manifest, and never a panic.
#[test]
fn no_flipped_byte_changes_what_is_believed() {
    let good = verify(evidence("test.cern.ch"), &policy("test.cern.ch"), now()).unwrap();
    let flip = |bytes: &Bytes, at: usize| {
        let mut copy = bytes.to_vec();
        copy[at] ^= 0x04;
        Bytes::from(copy)
    };
    let base = good.evidence().clone();
    for at in 0..base.published.len() {
        let changed = Evidence { published: flip(&base.published, at), ..base.clone() };
        assert!(verify(changed, &policy("test.cern.ch"), now()).is_err(), "manifest byte {at}");
    }
    for at in 0..base.whitelist.len() {
        let changed = Evidence { whitelist: flip(&base.whitelist, at), ..base.clone() };
        assert!(verify(changed, &policy("test.cern.ch"), now()).is_err(), "whitelist byte {at}");
    }
    for at in 0..base.certificate.len() {
        let changed = Evidence { certificate: flip(&base.certificate, at), ..base.clone() };
        assert!(verify(changed, &policy("test.cern.ch"), now()).is_err(), "certificate byte {at}");
    }
}

#[test]
fn a_refusal_names_the_repository_and_a_remedy() {
    let fault = verdict("expired.cern.ch").into_fault("expired.cern.ch");
    assert_eq!(fault.kind, FaultKind::Untrusted);
    let text = fault.to_string();
    assert!(text.contains("expired.cern.ch") && text.contains("the whitelist expired at"), "{text}");
    assert!(text.contains("renew the whitelist"), "{text}");
}

/// A source whose cache on the way is bad, and whose first server is too.
struct Flawed {
    server: AtomicUsize,
    servers: Vec<Option<&'static str>>,
    cached: Option<&'static str>,
}

impl Flawed {
    fn get(&self, path: &str, fresh: bool) -> Result<Bytes, Fault> {
        let repository = match self.cached {
            Some(bad) if !fresh => bad,
            _ => self.servers[self.server.load(Ordering::Relaxed)]
                .ok_or_else(|| Fault::new(FaultKind::Unavailable, "fetch", path, "connection refused"))?,
        };
        Ok(read(repository, path))
    }
}

#[async_trait]
impl TrustSource for Flawed {
    async fn published(&self, fresh: bool) -> Result<Bytes, Fault> {
        self.get(".cvmfspublished", fresh)
    }

    async fn whitelist(&self, fresh: bool) -> Result<Bytes, Fault> {
        self.get(".cvmfswhitelist", fresh)
    }

    async fn certificate(&self, path: &str, fresh: bool) -> Result<Bytes, Fault> {
        self.get(path, fresh)
    }

    async fn next_server(&self) -> bool {
        self.server.fetch_add(1, Ordering::Relaxed) + 1 < self.servers.len()
    }
}

fn established(
    servers: &[Option<&'static str>],
    cached: Option<&'static str>,
) -> Result<VerifiedManifest, Fault> {
    let source = Flawed { server: AtomicUsize::new(0), servers: servers.to_vec(), cached };
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(establish(&source, &policy("mini.cern.ch")))
}

#[test]
fn a_bad_cache_and_a_bad_server_are_passed_by() {
    established(&[Some("mini.cern.ch")], None).unwrap();
    established(&[Some("mini.cern.ch")], Some("badhash.cern.ch")).unwrap();
    established(&[Some("wrongkey.cern.ch"), Some("mini.cern.ch")], None).unwrap();
}

#[test]
fn the_first_verdict_is_told_when_no_server_is_good() {
    let fault = established(&[Some("badsig.cern.ch"), None], None).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Untrusted);
    let fault = established(&[None], None).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable);
}
