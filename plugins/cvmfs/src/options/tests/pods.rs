//! What authors of pods may set.

use super::*;

const POD: Caller = Caller::pod(Frontend::Csi);

fn list<T: TryFrom<Vec<String>>>(entries: &[&str]) -> Result<T, T::Error> {
    T::try_from(entries.iter().map(|entry| (*entry).to_owned()).collect())
}

fn rules() -> PodRules {
    PodRules {
        servers: list(&["http://s1.example.org/cvmfs/@fqrn@", "http://s2.example.org:8000/@org@/x/"])
            .unwrap(),
        proxies: list(&["http://squid.example.org:3128", "DIRECT"]).unwrap(),
        file: "/etc/volplane/volplane.toml".into(),
        ..PodRules::default()
    }
}

fn asked(rules: &PodRules, pairs: &[(&str, &str)]) -> Result<VolumeSpec, Fault> {
    parse(None, &options(pairs), &POD, rules)
}

fn denied(rules: &PodRules, pairs: &[(&str, &str)], option: &str, key: &str) {
    let fault = asked(rules, pairs).expect_err(&format!("{pairs:?}"));
    assert_eq!(fault.kind, FaultKind::PermissionDenied, "{fault}");
    assert_eq!(fault.subject, format!("option {option}"), "{fault}");
    assert!(fault.detail.contains(key), "{fault}");
}

#[test]
fn a_repository_and_its_revision_are_anybodys() {
    let rules = PodRules::default();
    for pair in
        [("tag", "v1"), ("CVMFS_ROOT_HASH", HASH), ("date", "2026-01-31T23:59:59Z"), ("auto_update", "no")]
    {
        asked(&rules, &[("repository", "cms.cern.ch"), pair, ("sharedMountID", "x")]).unwrap();
    }
    let config = "CVMFS_REPOSITORY_TAG=v1\nCVMFS_AUTO_UPDATE=no\n";
    asked(&rules, &[("repository", "cms.cern.ch"), ("clientConfig", config)]).unwrap();
    assert!(matches!(asked(&rules, &[]), Ok(VolumeSpec::CvmfsAll(_))));
}

#[test]
fn everything_else_waits_for_the_administrator() {
    let rules = rules();
    for (option, value) in [("timeout", "3"), ("CVMFS_CLAIM_OWNERSHIP", "no"), ("world_readable", "yes")] {
        let pairs = [("repository", "cms.cern.ch"), (option, value)];
        denied(&rules, &pairs, option, "cvmfs.pod_options of /etc/volplane/volplane.toml");
        let wider = PodRules { options: list(&["repository", option]).unwrap(), ..rules.clone() };
        asked(&wider, &pairs).unwrap();
        denied(&wider, &[pairs[0], ("tag", "v1")], "tag", "cvmfs.pod_options");
        for name in ["cms.cern.ch@v1".to_owned(), format!("cms.cern.ch#{HASH}")] {
            denied(&wider, &[("repository", &name)], "repository", "cvmfs.pod_options");
        }
        parse(None, &options(&pairs), &Caller::admin(Frontend::Csi), &rules).unwrap();
    }
    // The list says `timeout`, the pod says `CVMFS_TIMEOUT`.
    let wider = PodRules { options: list(&["repository", "timeout"]).unwrap(), ..rules };
    asked(&wider, &[("repository", "cms.cern.ch"), ("CVMFS_TIMEOUT", "3")]).unwrap();
}

#[test]
fn files_keys_identities_and_privileges_are_never_a_pods() {
    let key = std::fs::read_to_string(fixtures::public_key("mini.cern.ch")).unwrap();
    for (option, value) in [
        ("public_key", "/etc/shadow"),
        ("public_key", key.as_str()),
        ("CVMFS_PUBLIC_KEY", key.as_str()),
        ("keys_dir", "/etc"),
        ("uid_map", "/x"),
        ("CVMFS_GID_MAP", "/x"),
        ("CVMFS_BLACKLIST", "/x"),
        ("suid", "yes"),
        ("quota", "1"),
        ("clientConfigFilepath", "/etc/shadow"),
        ("CVMFS_CACHE_BASE", "/x"),
    ] {
        denied(&rules(), &[("repository", "cms.cern.ch"), (option, value)], option, "never");
        let error = list::<PodOptions>(&["repository", option]).unwrap_err();
        assert!(matches!(&error, PodRulesError::Never { option: named, .. } if named == option), "{error}");
        if option.starts_with("CVMFS_") {
            let config = format!("{option}='{value}'\n");
            let pairs = [("repository", "cms.cern.ch"), ("clientConfig", config.as_str())];
            denied(&rules(), &pairs, &format!("{option} in clientConfig"), "never");
        }
    }
}

#[test]
fn servers_and_proxies_are_allowed_by_value() {
    let cms = ("repository", "cms.cern.ch");
    for (option, value) in [
        ("server", "http://s1.example.org/cvmfs/@fqrn@"),
        ("server", "http://s1.example.org:80/cvmfs/cms.cern.ch;http://s2.example.org:8000/cms/x"),
        ("CVMFS_EXTERNAL_URL", "http://s1.example.org/cvmfs/@fqrn@"),
        ("proxy", "http://squid.example.org:3128;DIRECT"),
        ("fallback_proxy", "squid.example.org:3128"),
        ("proxy", ""),
    ] {
        asked(&rules(), &[cms, (option, value)]).unwrap_or_else(|fault| panic!("{option}={value}: {fault}"));
    }
    for (option, value, key) in [
        ("server", "http://s1.example.org/cvmfs/atlas.cern.ch", "cvmfs.pod_servers of /etc/volplane"),
        ("server", "http://s1.example.org/cvmfs/@fqrn@;http://169.254.169.254/latest", "169.254.169.254"),
        ("server", "https://s1.example.org/cvmfs/@fqrn@", "cvmfs.pod_servers"),
        ("external_url", "http://kubernetes.default/", "cvmfs.pod_servers"),
        ("proxy", "http://squid.example.org:3129", "cvmfs.pod_proxies of /etc/volplane"),
        ("proxy", "http://squid.example.org:3128|http://evil:1", "http://evil:1"),
        ("CVMFS_HTTP_PROXY", "auto;DIRECT", "auto"),
        ("CVMFS_EXTERNAL_FALLBACK_PROXY", "http://evil:1", "cvmfs.pod_proxies"),
    ] {
        denied(&rules(), &[cms, (option, value)], option, key);
    }
    let config = "P=http://evil:1\nCVMFS_HTTP_PROXY=$P\n";
    let fault = asked(&rules(), &[cms, ("clientConfig", config)]).unwrap_err();
    assert!(fault.detail.contains("it sets P, which"), "{fault}");
    let config = ("clientConfig", "CVMFS_HTTP_PROXY=http://evil:1");
    denied(&rules(), &[cms, config], "CVMFS_HTTP_PROXY in clientConfig", "cvmfs.pod_proxies");
    denied(&rules(), &[("proxy", "http://evil:1")], "proxy", "cvmfs.pod_proxies");
    denied(&PodRules::default(), &[cms, ("proxy", "DIRECT")], "proxy", "cvmfs.pod_proxies");
    for option in ["server", "CVMFS_HTTP_PROXY"] {
        let error = list::<PodOptions>(&[option]).unwrap_err();
        assert!(matches!(error, PodRulesError::ByValue { .. }), "{error}");
    }
}

#[test]
fn an_administrator_may_narrow_the_repositories() {
    let rules = PodRules { repositories: list(&["*.cern.ch", "sw.example.org"]).unwrap(), ..rules() };
    for good in ["cms.cern.ch", "sw.example.org", "a.b.cern.ch"] {
        asked(&rules, &[("repository", good)]).unwrap();
    }
    for bad in ["cms.cern.ch.evil.org", "xcern.ch", "sw.example.orgx", "*"] {
        denied(&rules, &[("repository", bad)], "repository", "cvmfs.pod_repositories of /etc/volplane");
    }
    denied(&rules, &[], "repository", "all repositories");
}

#[test]
fn lists_that_mean_nothing_are_refused() {
    let text = list::<PodOptions>(&["repositry"]).unwrap_err().to_string();
    assert!(text.contains("did you mean repository?"), "{text}");
    assert!(list::<PodServers>(&["squid:3128"]).is_err());
    assert!(list::<PodServers>(&["http://a/x;http://b/x"]).is_err());
    assert!(list::<PodProxies>(&["socks://x"]).is_err());
    assert!(list::<PodRepositories>(&["/etc"]).is_err());
    assert!(list::<PodRepositories>(&[""]).is_err());
    assert!(PodProxies::try_from(vec!["DIRECT".to_owned(); 1001]).is_err());
}
