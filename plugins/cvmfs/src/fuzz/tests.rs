use std::io::Read as _;

use super::*;

/// Mutations of each seed in one run, unless the environment variable `FUZZ_ROUNDS` says another number.
const ROUNDS: usize = 400;

/// Pieces that parsers look for.
const PIECES: &[&[u8]] = &[
    b"\n--\n",
    b"${A:-",
    b"$((",
    b"$(",
    b"if [ ",
    b" ]; then ",
    b"fi\n",
    b"\"",
    b"'",
    b"\\",
    b"&&",
    b"}",
    b"-shake128",
    b"@",
    b"#",
    b"..",
    b"\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"18446744073709551616",
    b"\xf0\x9f\x90\x9f",
];

/// Marsaglia's xorshift: the same numbers in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % (limit.max(1) as u64)).expect("below an usize")
    }

    /// One to eight changes.
    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.below(8) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(32)).min(bytes.len());
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                4 => {
                    let piece = PIECES[self.below(PIECES.len())];
                    bytes.splice(at..at, piece.iter().copied());
                }
                5 if self.below(4) == 0 => bytes.truncate(at),
                _ => {
                    let letters: Vec<u8> = (0..self.below(8)).map(|_| self.below(256) as u8).collect();
                    bytes.splice(at..end, letters);
                }
            }
        }
        bytes
    }
}

fn hammer(target: fn(&[u8]), seeds: &[Vec<u8>]) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    target(b"");
    for seed in seeds {
        target(seed);
        for _ in 0..rounds {
            target(&random.mutate(seed));
        }
    }
}

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
