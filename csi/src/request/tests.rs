use proto::csi::v1::volume_capability::{AccessMode, BlockVolume};
use tonic::Code;

use super::*;

const READ_ONLY: NodeAbilities =
    NodeAbilities { writable: false, many_writers: false, block: false, grow: false, group: false };
const DISK: NodeAbilities =
    NodeAbilities { writable: true, many_writers: false, block: true, grow: true, group: true };

fn mount(mode: Mode, group: &str) -> VolumeCapability {
    let mount = MountVolume { volume_mount_group: group.to_owned(), ..Default::default() };
    VolumeCapability {
        access_type: Some(AccessType::Mount(mount)),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

fn refusal(result: Result<impl std::fmt::Debug, Status>) -> String {
    let status = result.expect_err("is refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    status.message().to_owned()
}

#[test]
fn texts_have_their_limits() {
    assert_eq!(required("name", &"x".repeat(128)).unwrap().len(), 128);
    assert_eq!(refusal(required("name", &"x".repeat(129))), "name: has 129 bytes; 128 is the limit");
    assert_eq!(refusal(required("volume_id", "")), "volume_id: is missing");
    assert!(refusal(optional("name", "a\u{1b}[1m")).contains("control characters"));
    assert_eq!(optional("name", "").unwrap(), None);
}

#[test]
fn maps_have_their_limit_and_secrets_are_not_repeated() {
    let large = |bytes: usize| HashMap::from([("k".to_owned(), "hunter2".repeat(bytes / 7 + 1))]);
    assert!(map("parameters", large(4000)).is_ok());
    assert!(refusal(map("parameters", large(4096))).starts_with("parameters: has "));
    assert!(secrets(large(5000)).is_ok());
    assert!(!refusal(secrets(large(70_000))).contains("hunter2"));
}

#[test]
fn sizes_are_not_negative_and_in_order() {
    let range = |required_bytes, limit_bytes| size(Some(CapacityRange { required_bytes, limit_bytes }));
    assert_eq!(range(0, 0).unwrap(), SizeRange::default());
    assert_eq!(range(5, 5).unwrap(), SizeRange { required: Some(5), limit: Some(5) });
    assert!(refusal(range(-1, 0)).contains("required_bytes: is negative"));
    assert!(refusal(range(0, i64::MIN)).contains("limit_bytes: is negative"));
    assert!(refusal(range(6, 5)).contains("less than required_bytes"));
}

#[test]
fn a_read_only_driver_takes_single_node_writers_but_not_writers_on_many_nodes() {
    for mode in [Mode::SingleNodeWriter, Mode::SingleNodeMultiWriter, Mode::MultiNodeReaderOnly] {
        assert!(usage("c", Some(&mount(mode, "")), READ_ONLY).is_ok(), "{mode:?}");
    }
    for mode in [Mode::MultiNodeMultiWriter, Mode::MultiNodeSingleWriter] {
        let text = refusal(usage("c", Some(&mount(mode, "")), READ_ONLY));
        assert!(text.contains(mode.as_str_name()) && text.contains("read-only"), "{text}");
        assert!(refusal(usage("c", Some(&mount(mode, "")), DISK)).contains("one node"));
    }
    let alone = usage("c", Some(&mount(Mode::SingleNodeSingleWriter, "")), DISK).unwrap();
    assert!(alone.alone && alone.single_node && !alone.reader);
}

#[test]
fn what_a_driver_cannot_is_refused_by_name() {
    let block = VolumeCapability {
        access_type: Some(AccessType::Block(BlockVolume {})),
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
    };
    assert_eq!(usage("c", Some(&block), DISK).unwrap().form, Form::Block);
    assert!(refusal(usage("c", Some(&block), READ_ONLY)).contains("block"));
    let group = mount(Mode::SingleNodeWriter, "1000");
    let Form::Filesystem { group: Some(1000), .. } = usage("c", Some(&group), DISK).unwrap().form else {
        panic!("the group is passed on");
    };
    assert!(refusal(usage("c", Some(&group), READ_ONLY)).contains("volume_mount_group"));
    assert!(refusal(usage("c", Some(&mount(Mode::SingleNodeWriter, "wheel")), DISK)).contains("no group id"));
    assert!(refusal(usage("c", None, DISK)).contains("c: is missing"));
    let neither = VolumeCapability { access_type: None, ..mount(Mode::SingleNodeWriter, "") };
    assert!(refusal(usage("c", Some(&neither), DISK)).contains("neither"));
    assert!(refusal(usage("c", Some(&mount(Mode::Unknown, "")), DISK)).contains("access_mode"));
}
