use super::*;

const DOCKER: Caller = Caller::admin(Frontend::Docker);
const HASH: &str = "080224936c226bafa5a35228bf913a1efda81dd8";

fn options(pairs: &[(&str, &str)]) -> OptionMap {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn spec(name: &str, pairs: &[(&str, &str)]) -> CvmfsSpec {
    match parse(Some(name), &options(pairs), &DOCKER, &PodRules::default()) {
        Ok(VolumeSpec::Cvmfs(spec)) => spec,
        other => panic!("{name} {pairs:?}: {other:?}"),
    }
}

fn error(name: &str, pairs: &[(&str, &str)]) -> String {
    let fault = parse(Some(name), &options(pairs), &DOCKER, &PodRules::default())
        .expect_err(&format!("{name} {pairs:?}"));
    assert_eq!(fault.kind, FaultKind::InvalidArgument);
    fault.to_string()
}

#[test]
fn a_name_alone_says_everything() {
    let revision = |name: &str| spec(name, &[]).revision;
    assert_eq!(spec("cms.cern.ch", &[]).repository, "cms.cern.ch");
    assert_eq!(revision("cms.cern.ch"), Revision::Trunk);
    assert_eq!(revision("cms.cern.ch@v1.0"), Revision::Tag("v1.0".into()));
    assert_eq!(revision("cms.cern.ch@trunk"), Revision::Trunk);
    assert_eq!(revision("cms.cern.ch@trunk-previous"), Revision::Tag("trunk-previous".into()));
    assert_eq!(revision(&format!("cms.cern.ch#{HASH}")), Revision::Hash(HASH.into()));
    assert_eq!(revision(&format!("cms.cern.ch#{HASH}-rmd160")), Revision::Hash(format!("{HASH}-rmd160")));
    let all = parse(Some("cvmfs"), &OptionMap::new(), &DOCKER, &PodRules::default()).unwrap();
    assert_eq!(all, VolumeSpec::CvmfsAll(CvmfsAllSpec::default()));
}

#[test]
fn another_name_needs_the_option_repository() {
    assert!(error("myvolume", &[]).contains("repository=REPOSITORY"));
    assert_eq!(spec("myvolume", &[("repository", "cms.cern.ch")]).repository, "cms.cern.ch");
    assert_eq!(spec("myvolume", &[("repository", "cms.cern.ch@v1")]).revision, Revision::Tag("v1".into()));
    let all =
        parse(Some("software"), &options(&[("repository", "*")]), &DOCKER, &PodRules::default()).unwrap();
    assert_eq!(all, VolumeSpec::CvmfsAll(CvmfsAllSpec::default()));
    let unnamed =
        parse(None, &options(&[("repository", "cms.cern.ch")]), &DOCKER, &PodRules::default()).unwrap();
    assert!(matches!(unnamed, VolumeSpec::Cvmfs(_)));
    assert!(parse(None, &OptionMap::new(), &DOCKER, &PodRules::default()).is_err());
}

#[test]
fn options_become_parameters() {
    let spec = spec(
        "cms.cern.ch",
        &[
            ("proxy", "http://squid:3128;DIRECT"),
            ("server", "http://h/cvmfs/@fqrn@"),
            ("quota", "100"),
            ("CVMFS_TIMEOUT", "3"),
            ("CVMFS_REPOSITORY_TAG", "v2"),
            ("public_key", "/etc/keys/a.pub:/etc/keys/b.pub"),
        ],
    );
    assert_eq!(spec.revision, Revision::Tag("v2".into()));
    assert_eq!(spec.parameters["CVMFS_HTTP_PROXY"], "http://squid:3128;DIRECT");
    assert_eq!(spec.parameters["CVMFS_SERVER_URL"], "http://h/cvmfs/@fqrn@");
    assert_eq!(spec.parameters.len(), 5);
}

#[test]
fn unknown_options_name_the_nearest_known_one() {
    assert!(error("cms.cern.ch", &[("prox", "x")]).contains("did you mean proxy?"));
    assert!(error("cms.cern.ch", &[("repositry", "x")]).contains("did you mean repository?"));
    assert!(error("cms.cern.ch", &[("CVMFS_HTTP_PROXI", "x")]).contains("did you mean CVMFS_HTTP_PROXY?"));
    assert!(error("cms.cern.ch", &[("frobnicate", "x")]).contains("known are repository, tag"));
    assert!(error("cms.cern.ch", &[("CVMFS_ENTIRELY_UNHEARD_OF", "x")]).contains("no parameter"));
}

#[test]
fn parameters_that_make_no_sense_for_a_volume_are_refused_with_the_reason() {
    for (option, reason) in [
        ("CVMFS_CACHE_BASE", "share one cache"),
        ("CVMFS_CACHE_hpc_TYPE", "share one cache"),
        ("CVMFS_MOUNT_DIR", "container engine"),
        ("CVMFS_NFILES", "C++ client"),
        ("CVMFS_CONFIG_REPOSITORY", "configuration files"),
        ("CVMFS_DEBUGLOG", "logs"),
        ("_CVMFS_DEVEL_IGNORE_SIGNATURE_FAILURES", "always verified"),
    ] {
        let text = error("cms.cern.ch", &[(option, "x")]);
        assert!(text.contains(reason) && text.contains(option), "{text}");
    }
}

#[test]
fn contradictions_are_refused() {
    for (name, pairs) in [
        ("cms.cern.ch", &[("tag", "a"), ("hash", HASH)][..]),
        ("cms.cern.ch@a", &[("tag", "b")]),
        ("cms.cern.ch@a", &[("hash", HASH)]),
        ("cms.cern.ch", &[("tag", "a"), ("CVMFS_REPOSITORY_TAG", "b")]),
        ("cms.cern.ch@a", &[("repository", "cms.cern.ch@b")]),
        ("cms.cern.ch@a", &[("repository", "atlas.cern.ch")]),
        ("cms.cern.ch", &[("repository", "*")]),
        ("cvmfs", &[("repository", "cms.cern.ch")]),
        ("cvmfs", &[("tag", "a")]),
        ("cms.cern.ch", &[("proxy", "DIRECT"), ("CVMFS_HTTP_PROXY", "http://p:1")]),
        ("cms.cern.ch", &[("public_key", "/a"), ("keys_dir", "/b")]),
    ] {
        error(name, pairs);
    }
    assert_eq!(spec("cms.cern.ch@a", &[("tag", "a")]).revision, Revision::Tag("a".into()));
    spec("cms.cern.ch", &[("proxy", "DIRECT"), ("CVMFS_HTTP_PROXY", "DIRECT")]);
}

#[test]
fn hostile_names_and_values_are_refused() {
    for name in [
        "",
        "../etc",
        "cms.cern.ch/../..",
        "cms.cern.ch@../../etc",
        "cms.cern.ch@a/b",
        "cms.cern.ch@",
        "cms.cern.ch@.hidden",
        "cms.cern.ch@a b",
        "cms.cern.ch#12",
        "cms.cern.ch#",
        "cms",
        "@tag",
        "#",
        "cms.cern.ch@a@b",
        "\u{0}",
        "cms\u{e9}.cern.ch",
    ] {
        error(name, &[]);
    }
    assert!(
        parse(Some("../x"), &options(&[("repository", "cms.cern.ch")]), &DOCKER, &PodRules::default())
            .is_err()
    );
    for (option, value, part) in [
        ("tag", "a/b", "no name of a tag"),
        ("tag", "..", "no name of a tag"),
        ("hash", "xyz", "40 lower-case hex digits"),
        ("date", "yesterday", "2026-01-31T23:59:59Z"),
        ("repository", "", "is empty"),
        ("repository", "cms", "no repository name"),
        ("timeout", "soon", "a whole number from 1 to 86400"),
        ("quota", "0", "number of MiB"),
        ("proxy", "socks://x", "is no proxy"),
        ("server", "nowhere", "is no URL"),
        ("public_key", "relative.pub", "no absolute path"),
        ("suid", "perhaps", "yes or no"),
    ] {
        let text = error("cms.cern.ch", &[(option, value)]);
        assert!(text.contains(part) && text.contains(option), "{text}");
    }
    let long = "x".repeat(VALUE_MAX + 1);
    error("cms.cern.ch", &[("proxy", &long)]);
    let many: OptionMap = (0..200).map(|n| (format!("o{n}"), String::new())).collect();
    assert!(parse(Some("cms.cern.ch"), &many, &DOCKER, &PodRules::default()).is_err());
}

mod kubernetes;
mod pods;
