//! Our `csi.proto` against the official one: the same descriptor, whatever the order and the comments.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by panicking

use std::path::Path;

use protox::prost_reflect::{DynamicMessage, Value};
use system_tests::{checks, process};

/// The compiled file without comments and positions, as sorted text: one line for each leaf.
fn canonical(directory: &Path) -> Vec<String> {
    let mut compiler = protox::Compiler::new([directory]).unwrap();
    compiler.include_imports(true).include_source_info(false).open_file("csi.proto").unwrap();
    let pool = compiler.descriptor_pool();
    let file = pool.get_file_by_name("csi.proto").unwrap();
    let shape = pool.get_message_by_name("google.protobuf.FileDescriptorProto").unwrap();
    // Decoded with the pool that knows the extensions, so that options such as csi_secret are seen.
    let message = DynamicMessage::decode(shape, file.encode_to_vec().as_slice()).unwrap();
    assert_eq!(message.unknown_fields().count(), 0);
    let mut lines = Vec::new();
    leaves(&Value::Message(message), "", &mut lines);
    lines.sort();
    lines
}

/// Appends `path = value` for every leaf. Entries of a list are called by their name, or else by their text: their order
/// means nothing, except in `oneof_index`, where no message of ours has more than one.
fn leaves(value: &Value, path: &str, lines: &mut Vec<String>) {
    match value {
        Value::Message(message) => {
            for (field, value) in message.fields().filter(|(field, _)| field.name() != "source_code_info") {
                leaves(value, &format!("{path}.{}", field.name()), lines);
            }
            for (extension, value) in message.extensions() {
                leaves(value, &format!("{path}.[{}]", extension.full_name()), lines);
            }
        }
        Value::List(entries) => {
            for entry in entries {
                let name = entry.as_message().and_then(|message| message.get_field_by_name("name"));
                let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or("");
                leaves(entry, &format!("{path}[{name}]"), lines);
            }
        }
        leaf => lines.push(format!("{path} = {leaf:?}")),
    }
}

#[test]
fn descriptor_is_that_of_the_official_file() {
    let official = match checks::programs() {
        Ok(directory) => directory,
        Err(reason) => return process::skip("csi_proto", &reason),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (ours, theirs) = (canonical(&root.join("../proto")), canonical(&official));
    let missing: Vec<_> = theirs.iter().filter(|line| !ours.contains(line)).collect();
    let surplus: Vec<_> = ours.iter().filter(|line| !theirs.contains(line)).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing: {missing:#?}\nsurplus: {surplus:#?}");
    assert_eq!(ours, theirs, "the same leaves, but not equally often");
    assert!(ours.len() > 1000, "only {} leaves: the comparison sees too little", ours.len());
    let option =
        ours.iter().find(|line| line.contains("[CreateVolumeRequest]") && line.contains("csi_secret"));
    assert!(option.is_some(), "options are not compared");
}
