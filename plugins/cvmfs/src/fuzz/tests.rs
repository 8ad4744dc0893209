use std::io::Read as _;

use fixtures::hammer;

use super::*;

fn published(fqrn: &str, name: &str) -> Vec<u8> {
    std::fs::read(fixtures::repository(fqrn).join(name)).unwrap()
}

fn inflated(fqrn: &str, path: &str) -> Vec<u8> {
    let mut content = Vec::new();
    flate2::read::ZlibDecoder::new(published(fqrn, path).as_slice()).read_to_end(&mut content).unwrap();
    content
}

fn manifest_of(fqrn: &str) -> Manifest {
    Manifest::parse(&published(fqrn, ".cvmfspublished")).unwrap()
}

#[test]
fn manifests() {
    hammer(
        manifest,
        &[published("test.cern.ch", ".cvmfspublished"), published("shake128.cern.ch", ".cvmfspublished")],
    );
}

#[test]
fn whitelists() {
    hammer(
        whitelist,
        &[
            published("multifp.cern.ch", ".cvmfswhitelist"),
            published("rmd160.cern.ch", ".cvmfswhitelist"),
            b"<cms.cern.ch 12\n".to_vec(),
        ],
    );
}

#[test]
fn certificates() {
    let object = manifest_of("mini.cern.ch").certificate_path();
    let key = std::fs::read(fixtures::public_key("mini.cern.ch")).unwrap();
    hammer(certificate, &[published("mini.cern.ch", &object), inflated("mini.cern.ch", &object), key]);
}

#[test]
fn catalogs() {
    hammer(
        catalog,
        &[
            inflated("mini.cern.ch", &manifest_of("mini.cern.ch").catalog_path()),
            inflated("hardlink.cern.ch", &manifest_of("hardlink.cern.ch").catalog_path()),
        ],
    );
}

#[test]
fn histories() {
    let id = manifest_of("mini.cern.ch").history.unwrap().with_suffix(crate::client::hash::Suffix::History);
    hammer(history, &[inflated("mini.cern.ch", &id.url_path())]);
}

#[test]
fn configurations() {
    hammer(configuration, &[
        b"CVMFS_SERVER_URL=\"http://a/@fqrn@;http://b\"\nCVMFS_HTTP_PROXY='http://p:1|http://q:2;DIRECT'\n".to_vec(),
        b"if [ \"x$A\" = \"x\" ]; then\n  readonly A=1\nelif test -f /x; then B=${A:=c}; else C=$((A + 1)); fi\n".to_vec(),
        b"export A=${B:-\"$C ${D:+e}\"} # x\n. ./other || true && X=$(uname -m)\ngrep -q 'a\\|b*$' /x\n".to_vec(),
        b"1000 2000\n* 65534\n".to_vec(),
    ]);
}

#[test]
fn volumes() {
    hammer(
        volume,
        &[
            b"cms.cern.ch@v1\ntag=v1\nproxy=http://p:3128;DIRECT\nCVMFS_TIMEOUT=3\n".to_vec(),
            b"cms.cern.ch#080224936c226bafa5a35228bf913a1efda81dd8-rmd160\nserver=http://h/@fqrn@\nquota=1\n"
                .to_vec(),
            b"cvmfs\nrepository=*\ndate=2026-01-31T23:59:59Z\npublic_key=/a:/b\n".to_vec(),
        ],
    );
}

#[test]
fn client_configs() {
    hammer(
        client_config,
        &[
            b"CVMFS_SERVER_URL=http://s/cvmfs/@fqrn@\nCVMFS_KEYS_DIR=/etc/cvmfs/keys/cern.ch\nCVMFS_REPOSITORY_DATE=2022-03-01T00:00:00Z\n".to_vec(),
            b"if [ \"$CVMFS_FQRN\" = cms.cern.ch ]; then export CVMFS_REPOSITORY_TAG=v1; fi\nX=y\nCVMFS_AUTO_UPDATE=$X\n".to_vec(),
            b"CVMFS_REPOSITORY_TAG=v1\nCVMFS_AUTO_UPDATE=no\n".to_vec(),
        ],
    );
}

#[test]
fn payloads() {
    let setup = crate::payload::AllSetup {
        config_dir: "/etc/cvmfs".into(),
        overrides: OptionMap::from([("CVMFS_TIMEOUT".to_owned(), "1".to_owned())]),
        master_keys: Vec::new(),
        configured: vec!["cms.cern.ch".to_owned()],
    };
    let payload_value = Payload {
        kind: crate::payload::Kind::All(setup),
        cache_dir: "/c".into(),
        deadline_ms: 1,
        owner: crate::payload::Owner { uid: 0, gid: 0 },
    };
    hammer(payload, &[serde_json::to_vec(&payload_value).unwrap()]);
}
