//! Attributes of PersistentVolumes and StorageClasses, as cvmfs-csi documents them.

use super::*;

const CSI: Caller = Caller::admin(Frontend::Csi);

fn given(pairs: &[(&str, &str)]) -> Result<VolumeSpec, Fault> {
    parse(Some("cvmfs-atlas-20220301-default"), &options(pairs), &CSI, &PodRules::default())
}

fn one(pairs: &[(&str, &str)]) -> CvmfsSpec {
    match given(pairs) {
        Ok(VolumeSpec::Cvmfs(spec)) => spec,
        other => panic!("{pairs:?}: {other:?}"),
    }
}

fn wrong(pairs: &[(&str, &str)]) -> String {
    let fault = given(pairs).expect_err(&format!("{pairs:?}"));
    assert_eq!(fault.kind, FaultKind::InvalidArgument, "{fault}");
    fault.to_string()
}

/// The example of cvmfs-csi's documentation.
const DATED: &str = "CVMFS_SERVER_URL=http://cvmfs-stratum-one.cern.ch/cvmfs/atlas.cern.ch\n\
    CVMFS_KEYS_DIR=/etc/cvmfs/keys/cern.ch\nCVMFS_HTTP_PROXY=DIRECT\nCVMFS_REPOSITORY_DATE=2022-03-01T00:00:00Z\n";

#[test]
fn a_handle_is_not_a_name() {
    let all = VolumeSpec::CvmfsAll(CvmfsAllSpec::default());
    for name in ["atlas.cern.ch", "cvmfs", "pvc-1", "../x", "cms.cern.ch@v1"] {
        assert_eq!(parse(Some(name), &OptionMap::new(), &CSI, &PodRules::default()), Ok(all.clone()));
        let flex = Caller::pod(Frontend::Flexvolume);
        let fault = parse(Some(name), &OptionMap::new(), &flex, &PodRules::default()).unwrap_err();
        assert!(fault.to_string().contains("repository=*"), "{fault}");
        let named = options(&[("repository", "lhcb.cern.ch")]);
        let Ok(VolumeSpec::Cvmfs(spec)) = parse(Some(name), &named, &flex, &PodRules::default()) else {
            panic!("{name}")
        };
        assert_eq!(spec.repository, "lhcb.cern.ch");
    }
    assert_eq!(given(&[("repository", "*")]), Ok(all));
}

#[test]
fn documented_volumes_of_cvmfs_csi_work_unchanged() {
    assert!(matches!(given(&[]), Ok(VolumeSpec::CvmfsAll(_))));
    assert_eq!(one(&[("repository", "atlas-nightlies.cern.ch")]).revision, Revision::Trunk);
    let pairs =
        [("repository", "atlas.cern.ch"), ("sharedMountID", "atlas-20220301"), ("clientConfig", DATED)];
    let dated = one(&pairs);
    assert_eq!(dated.revision, Revision::Date("2022-03-01T00:00:00Z".into()));
    assert_eq!(dated.parameters["CVMFS_HTTP_PROXY"], "DIRECT");
    assert_eq!(dated.parameters.len(), 3);
    // The shared mount's name and the order of lines make no other mount.
    let mut lines: Vec<&str> = DATED.lines().collect();
    lines.reverse();
    let text = format!("# comment\nexport {}\n", lines.join("\n"));
    assert_eq!(one(&[pairs[0], ("clientConfig", &text)]), dated);
    for (line, revision) in [
        ("CVMFS_REPOSITORY_TAG=v1", Revision::Tag("v1".into())),
        ("CVMFS_ROOT_HASH=080224936c226bafa5a35228bf913a1efda81dd8", Revision::Hash(HASH.into())),
        ("CVMFS_REPOSITORY_TAG=", Revision::Trunk),
    ] {
        assert_eq!(one(&[pairs[0], ("clientConfig", line)]).revision, revision);
    }
    let file = one(&[pairs[0], ("clientConfigFilepath", "/etc/cvmfs/atlas-2022.conf")]);
    assert_eq!(file.parameters[CONFIG_FILE], "/etc/cvmfs/atlas-2022.conf");
    // What cvmfs-csi refuses.
    assert_eq!(one(&[pairs[0], ("tag", "v1")]).revision, Revision::Tag("v1".into()));
}

#[test]
fn what_a_node_decides_is_passed_over_in_configuration_text() {
    let text =
        "CVMFS_CACHE_BASE=/x\nCVMFS_RELOAD_SOCKETS=/y\nCVMFS_NFILES=9\nMYSITE=desy\nCVMFS_TIMEOUT=${T:-7}\n";
    let spec = one(&[("repository", "atlas.cern.ch"), ("clientConfig", text)]);
    assert_eq!(spec.parameters, options(&[("CVMFS_TIMEOUT", "7"), ("MYSITE", "desy")]));
}

#[test]
fn mistakes_are_named() {
    let atlas = ("repository", "atlas.cern.ch");
    for (pairs, part) in [
        (&[("repositry", "x")][..], "did you mean repository?"),
        (&[("shareMountID", "x")], "did you mean sharedMountID?"),
        (&[("clientconfig", "x")], "did you mean clientConfig?"),
        (&[("clientConfig", DATED)], "name it"),
        (&[("clientConfigFilepath", "/x")], "name it"),
        (&[atlas, ("clientConfig", ""), ("clientConfigFilepath", "/x")], "exclude each other"),
        (&[atlas, ("clientConfigFilepath", "x.conf")], "no absolute path"),
        (&[atlas, ("sharedMountID", "../x")], "sharedMountID"),
        (&[atlas, ("sharedMountID", "")], "sharedMountID"),
        (&[("tag", "v1")], "this volume is all of them"),
        (&[atlas, ("clientConfig", "CVMFS_TIMEOUT=5\nif true; do\n")], "clientConfig:2"),
        (&[atlas, ("clientConfig", "CVMFS_TIMEOUT=soon")], "CVMFS_TIMEOUT in clientConfig"),
        (&[atlas, ("clientConfig", "CVMFS_TIMEOUT=5"), ("timeout", "6")], "something else"),
        (&[atlas, ("clientConfig", "CVMFS_REPOSITORY_TAG=a"), ("tag", "b")], "different revisions"),
        (&[atlas, ("clientConfig", ". /etc/passwd")], "files of the node"),
        (&[atlas, ("clientConfig", "X=$(cat /etc/shadow)")], "files of the node"),
        (&[atlas, ("clientConfig", "if [ -e /etc/shadow ]; then X=1; fi")], "looks at /etc/shadow"),
        (&[atlas, ("clientConfig", "rm -rf /")], "not supported"),
    ] {
        let text = wrong(pairs);
        assert!(text.contains(part), "{pairs:?}: {text}");
    }
    // Text that grows while it is evaluated.
    let double = "A=0123456789abcdef\n".to_owned() + &"A=$A$A\n".repeat(15);
    for growing in [
        (0..3000).map(|n| format!("V{n}=$A\n")).collect::<String>(),
        format!("echo {}\n", "$A".repeat(20_000)),
        "A=${B:-$A$A}\n".repeat(2000),
        "test -n \"$A$A\"\n".repeat(3000),
        "A+=x\n".repeat(6000),
        "B=${A:+x}\n".repeat(5000),
    ] {
        let text = wrong(&[atlas, ("clientConfig", &(double.clone() + &growing))]);
        assert!(text.contains("too long"), "{text}");
    }
    let long = wrong(&[atlas, ("clientConfig", &(double + "X=$((A x))\nexport \"$A\"=1\n"))]);
    assert!(long.len() < 1000, "{} bytes", long.len());
    let many: String = (0..300).map(|n| format!("X{n}=1\n")).collect();
    assert!(wrong(&[atlas, ("clientConfig", &many)]).contains("300 variables"));
}

#[test]
fn mount_flags_that_cannot_be_honoured_are_refused() {
    let form = |flags: &[&str]| volume::Form::Filesystem {
        fs_type: Some("ext4".to_owned()),
        mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        group: Some(1000),
    };
    let spec = VolumeSpec::Cvmfs(one(&[("repository", "atlas.cern.ch")]));
    form::check(&form(&["ro", "nosuid,nodev", "noatime", "relatime", ""]), &spec).unwrap();
    for (flag, part) in [("noexec", "\"noexec\""), ("rw", "\"rw\""), ("noatim", "did you mean noatime?")] {
        let text = form::check(&form(&[flag]), &spec).unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
    let suid = VolumeSpec::Cvmfs(one(&[("repository", "atlas.cern.ch"), ("suid", "yes")]));
    assert!(form::check(&form(&["nosuid"]), &suid).is_err());
    assert!(form::check(&volume::Form::Block, &spec).is_err());
}
