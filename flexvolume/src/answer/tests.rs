use proptest::prelude::*;

use super::*;

fn environment(arguments: &[&str]) -> Environment {
    Environment {
        arguments: arguments.iter().map(OsString::from).collect(),
        directory: "/nonexistent/cern~cvmfs".into(),
        run_dir: Some("/nonexistent/run".into()),
    }
}

fn said(arguments: &[&str]) -> (serde_json::Value, u8) {
    let outcome = answer(&environment(arguments));
    (serde_json::from_str(&outcome.line()).unwrap(), outcome.exit_status())
}

const PROGRAM: &str = "/plugins/cern~cvmfs/cvmfs";

#[test]
fn init_needs_no_daemon_and_tells_every_capability() {
    let (cvmfs, status) = said(&[PROGRAM, "init"]);
    assert_eq!(status, 0);
    let all_but_metrics = serde_json::json!({
        "attach": false, "selinuxRelabel": false, "supportsMetrics": true, "fsGroup": false, "requiresFSResize": false
    });
    assert_eq!(cvmfs, serde_json::json!({"status": "Success", "capabilities": all_but_metrics}));
    let (rbd, _) = said(&["/plugins/cern~rbd/rbd", "init"]);
    assert_eq!(
        (&rbd["capabilities"]["fsGroup"], &rbd["capabilities"]["attach"]),
        (&true.into(), &false.into())
    );
}

#[test]
fn what_it_does_not_have_is_not_supported() {
    for call in [
        &["getvolumename", "{}"][..],
        &["attach", "{}", "node"],
        &["waitforattach", "/dev/x", "{}"],
        &["isattached", "{}", "node"],
        &["mountdevice", "/d", "/dev/x", "{}"],
        &["unmountdevice", "/d"],
        &["detach", "volume", "node"],
        &["expandvolume", "{}", "/d", "2", "1"],
        &["expandfs", "{}", "/dev/x", "/d", "2", "1"],
        &["reboot"],
        &[""],
        &["INIT"],
        &[],
    ] {
        let arguments = [&[PROGRAM], call].concat();
        let (reply, status) = said(&arguments);
        assert_eq!((reply["status"].as_str(), status), (Some("Not supported"), 1), "{call:?}");
    }
    assert_eq!(said(&[]).0["status"], "Not supported");
}

#[test]
fn a_mount_that_carried_secrets_does_not_make_kubelet_log_them() {
    let json = r#"{"repository": "lhcb.cern.ch", "kubernetes.io/secret/k": "aHVudGVyMg=="}"#;
    let (reply, status) = said(&[PROGRAM, "mount", "/nonexistent/pods/a", json]);
    assert_eq!((reply["status"].as_str(), status), (Some("Failure"), 0));
    assert!(!reply.to_string().contains("aHVudGVyMg"), "{reply}");
    let (reply, status) =
        said(&[PROGRAM, "mount", "/nonexistent/pods/a", r#"{"repository": "lhcb.cern.ch"}"#]);
    assert_eq!((reply["status"].as_str(), status), (Some("Failure"), 1));
    assert!(reply["message"].as_str().unwrap().contains("/nonexistent/run/control.sock"), "{reply}");
}

#[test]
fn without_a_daemon_only_what_is_not_mounted_is_unmounted() {
    let (reply, status) = said(&[PROGRAM, "unmount", "/nonexistent/pods/a"]);
    assert_eq!((reply["status"].as_str(), status), (Some("Success"), 0));
    let (reply, status) = said(&[PROGRAM, "unmount", "/proc"]);
    assert_eq!((reply["status"].as_str(), status), (Some("Failure"), 1));
    assert!(Path::new("/proc/self").exists());
}

#[test]
fn a_program_with_another_name_goes_by_its_directory() {
    let mut environment = environment(&["volplane-flexvolume", "init"]);
    assert!(answer(&environment).line().contains("Success"));
    environment.directory = "/usr/bin".into();
    let outcome = answer(&environment);
    assert!(outcome.line().contains("flexvolume install"), "{}", outcome.line());
}

fn argument() -> impl Strategy<Value = String> {
    let words = proptest::sample::select(vec![
        "init",
        "mount",
        "unmount",
        "attach",
        "/nonexistent/a",
        "/nonexistent/../proc",
        "{}",
        "[]",
        "",
        "null",
        r#"{"repository":"x"}"#,
        r#"{"kubernetes.io/secret/a":"%%"}"#,
        "{\"a\":",
        "/dev/sda",
        "getvolumename",
    ]);
    prop_oneof![
        4 => words.prop_map(str::to_owned),
        1 => ".{0,64}",
        1 => "\\{(\"[a-z./]{1,12}\":(\"[^\"\\\\]{0,12}\"|[0-9]{1,4}|\\[\\]|null),?){0,4}\\}",
        1 => (1_usize..5000).prop_map(|depth| "[".repeat(depth)),
        1 => (1_usize..100_000).prop_map(|length| format!("/{}", "x".repeat(length))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_called_one_object_comes_out(
        program in prop_oneof![Just(PROGRAM.to_owned()), ".{0,20}"],
        arguments in proptest::collection::vec(argument(), 0..6),
    ) {
        let words: Vec<&str> = std::iter::once(program.as_str()).chain(arguments.iter().map(String::as_str)).collect();
        let outcome = answer(&environment(&words));
        let line = outcome.line();
        prop_assert_eq!(line.matches('\n').count(), 1);
        let reply: serde_json::Value = serde_json::from_str(&line).unwrap();
        let status = reply["status"].as_str().unwrap();
        prop_assert!(["Success", "Failure", "Not supported"].contains(&status));
        prop_assert!(status != "Success" || outcome.exit_status() == 0);
        prop_assert!(line.len() < 4096);
    }
}
