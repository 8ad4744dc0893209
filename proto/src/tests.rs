use std::collections::HashMap;

use crate::csi::v1::{self, volume_capability};

fn secrets() -> HashMap<String, String> {
    HashMap::from([("userKey".to_owned(), "hunter2".to_owned())])
}

/// Asserts that the text shows the rest of the message and nothing of its secrets.
fn assert_hidden(text: &str) {
    assert!(text.contains("vol-1"), "the rest of the message is shown: {text}");
    assert!(text.contains("hidden"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("userKey"), "{text}");
}

#[test]
fn debug_shows_no_secret() {
    let id = || "vol-1".to_owned();
    let create = v1::CreateVolumeRequest { name: id(), secrets: secrets(), ..Default::default() };
    assert_hidden(&format!("{create:?}"));
    assert_hidden(&format!("{:#?}", tonic::Request::new(create).into_inner()));
    let delete = v1::DeleteVolumeRequest { volume_id: id(), secrets: secrets() };
    assert_hidden(&format!("{delete:?}"));
    let stage = v1::NodeStageVolumeRequest { volume_id: id(), secrets: secrets(), ..Default::default() };
    assert_hidden(&format!("{stage:?}"));
    let publish = v1::NodePublishVolumeRequest { volume_id: id(), secrets: secrets(), ..Default::default() };
    assert_hidden(&format!("{publish:?}"));
    let expand = v1::NodeExpandVolumeRequest { volume_id: id(), secrets: secrets(), ..Default::default() };
    assert_hidden(&format!("{expand:?}"));
    let delta =
        v1::GetMetadataDeltaRequest { base_snapshot_id: id(), secrets: secrets(), ..Default::default() };
    assert_hidden(&format!("{delta:?}"));
}

#[test]
fn debug_shows_no_mount_flags_even_inside_another_message() {
    let mount = volume_capability::MountVolume {
        fs_type: "vol-1".into(),
        mount_flags: vec!["password=hunter2".into()],
        ..Default::default()
    };
    let capability = v1::VolumeCapability {
        access_type: Some(volume_capability::AccessType::Mount(mount)),
        access_mode: None,
    };
    assert_hidden(&format!("{capability:?}"));
}

#[test]
fn every_secret_field_of_the_file_has_its_hidden_debug() {
    let declared = include_str!("../csi.proto").matches("[(csi_secret) = true").count();
    let hidden = include_str!(concat!(env!("OUT_DIR"), "/csi.v1.debug.rs"))
        .matches(r#".field("secrets", &format_args!("#)
        .count();
    assert_eq!(hidden, declared);
    assert!(declared > 15);
}
