//! What every service checks of a request before it looks at what the request means: fields that must be there, and the size
//! limits of the specification ("Size Limits": 128 bytes a string, 4 KiB a map unless a field says otherwise).
//!
//! Each refusal is INVALID_ARGUMENT and names the field as `csi.proto` does.

use std::collections::HashMap;

use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessType, MountVolume};
use proto::csi::v1::{CapacityRange, VolumeCapability};
use tonic::Status;
use volume::{Form, NodeAbilities, OptionMap, Secret, Secrets, SizeRange};

use crate::status::invalid;

/// Bytes of a string.
pub(crate) const STRING_LIMIT: usize = 128;
/// Bytes of all keys and values of a map.
pub(crate) const MAP_LIMIT: usize = 4096;
/// Bytes of all secrets. A Kubernetes Secret (a keytab, a chain of certificates) may be larger than 4 KiB, and no sidecar
/// looks.
const SECRETS_LIMIT: usize = 64 << 10;
/// Entries of a list of capabilities, ids or places.
pub(crate) const LIST_LIMIT: usize = 256;

/// A text that must be there.
pub(crate) fn required<'a>(field: &str, value: &'a str) -> Result<&'a str, Status> {
    optional(field, value)?.ok_or_else(|| invalid(field, "is missing"))
}

/// A text that may be empty.
pub(crate) fn optional<'a>(field: &str, value: &'a str) -> Result<Option<&'a str>, Status> {
    bounded(field, value, STRING_LIMIT)
}

/// A text with a limit of its own. Control characters are refused: the text goes into logs and file names.
pub(crate) fn bounded<'a>(field: &str, value: &'a str, limit: usize) -> Result<Option<&'a str>, Status> {
    if value.len() > limit {
        return Err(invalid(field, format_args!("has {} bytes; {limit} is the limit", value.len())));
    }
    if value.chars().any(char::is_control) {
        return Err(invalid(field, "has control characters"));
    }
    Ok(Some(value).filter(|value| !value.is_empty()))
}

/// The name of something to be made. The specification allows any text but these control characters.
pub(crate) fn name(value: &str) -> Result<&str, Status> {
    if value.is_empty() {
        return Err(invalid("name", "is missing"));
    }
    if value.len() > STRING_LIMIT {
        return Err(invalid("name", format_args!("has {} bytes; {STRING_LIMIT} is the limit", value.len())));
    }
    if value.chars().any(|letter| letter.is_control() && !matches!(letter, '\t' | '\n' | '\r')) {
        return Err(invalid("name", "has control characters"));
    }
    Ok(value)
}

/// That a list is not endless.
pub(crate) fn count(field: &str, entries: usize) -> Result<(), Status> {
    if entries > LIST_LIMIT {
        return Err(invalid(field, format_args!("are {entries}; {LIST_LIMIT} is the limit")));
    }
    Ok(())
}

/// A map within the specification's limit.
pub(crate) fn map(field: &str, map: HashMap<String, String>) -> Result<OptionMap, Status> {
    map_within(field, map, MAP_LIMIT)
}

/// A map within a limit, in bytes of all keys and values.
pub(crate) fn map_within(
    field: &str,
    map: HashMap<String, String>,
    limit: usize,
) -> Result<OptionMap, Status> {
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > limit {
        return Err(invalid(field, format_args!("has {bytes} bytes; {limit} is the limit")));
    }
    Ok(map.into_iter().collect())
}

/// Secrets of a call. The refusal says nothing of their content.
pub(crate) fn secrets(secrets: HashMap<String, String>) -> Result<Secrets, Status> {
    let bytes: usize = secrets.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > SECRETS_LIMIT {
        return Err(invalid("secrets", format_args!("have {bytes} bytes; {SECRETS_LIMIT} is the limit")));
    }
    Ok(secrets.into_iter().map(|(key, value)| (key, Secret::new(value.into_bytes()))).collect())
}

/// A wanted size; 0 is "not said".
pub(crate) fn size(range: Option<CapacityRange>) -> Result<SizeRange, Status> {
    let Some(range) = range else { return Ok(SizeRange::default()) };
    let bytes = |field: &str, value: i64| match u64::try_from(value) {
        Ok(0) => Ok(None),
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => Err(invalid(field, "is negative")),
    };
    let size = SizeRange {
        required: bytes("capacity_range.required_bytes", range.required_bytes)?,
        limit: bytes("capacity_range.limit_bytes", range.limit_bytes)?,
    };
    match (size.required, size.limit) {
        (Some(required), Some(limit)) if required > limit => {
            let detail = format!("{limit} is less than required_bytes {required}");
            Err(invalid("capacity_range.limit_bytes", detail))
        }
        _ => Ok(size),
    }
}

/// How a volume is used, of a driver that can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Files or device.
    pub(crate) form: Form,
    /// Only for reading.
    pub(crate) reader: bool,
    /// On one node only.
    pub(crate) single_node: bool,
    /// By one workload only.
    pub(crate) alone: bool,
}

/// A capability that must be there and that a driver with `abilities` can satisfy.
pub(crate) fn usage(
    field: &str,
    capability: Option<&VolumeCapability>,
    abilities: NodeAbilities,
) -> Result<Usage, Status> {
    let capability = capability.ok_or_else(|| invalid(field, "is missing"))?;
    let form = match &capability.access_type {
        None => return Err(invalid(field, "has neither block nor mount")),
        Some(AccessType::Block(_)) if abilities.block => Form::Block,
        Some(AccessType::Block(_)) => {
            return Err(invalid(field, "block: this driver's volumes are file systems, not devices"));
        }
        Some(AccessType::Mount(mount)) => filesystem(field, mount, abilities)?,
    };
    let mode = capability.access_mode.as_ref().map_or(Mode::Unknown, |mode| mode.mode());
    let usage = |reader, single_node, alone| Usage { form: form.clone(), reader, single_node, alone };
    match mode {
        Mode::Unknown => Err(invalid(field, "access_mode is missing or not one that this driver knows")),
        Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter => Ok(usage(false, true, false)),
        Mode::SingleNodeSingleWriter => Ok(usage(false, true, true)),
        Mode::SingleNodeReaderOnly => Ok(usage(true, true, false)),
        Mode::MultiNodeReaderOnly => Ok(usage(true, false, false)),
        Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter => {
            let name = mode.as_str_name();
            if abilities.many_writers {
                Ok(usage(false, false, false))
            } else if abilities.writable {
                Err(invalid(field, format_args!("{name}: volumes can be written from one node only")))
            } else {
                let text =
                    "volumes of this driver are read-only; ask for MULTI_NODE_READER_ONLY (ReadOnlyMany)";
                Err(invalid(field, format_args!("{name}: {text}")))
            }
        }
    }
}

fn filesystem(field: &str, mount: &MountVolume, abilities: NodeAbilities) -> Result<Form, Status> {
    let fs_type = optional(&format!("{field}.mount.fs_type"), &mount.fs_type)?;
    // What they are is not repeated: mount flags may hold passwords.
    let flags: usize = mount.mount_flags.iter().map(String::len).sum();
    if flags > MAP_LIMIT || mount.mount_flags.len() > LIST_LIMIT {
        return Err(invalid(&format!("{field}.mount.mount_flags"), "are more than 4096 bytes"));
    }
    if mount.mount_flags.iter().flat_map(|flag| flag.chars()).any(char::is_control) {
        return Err(invalid(&format!("{field}.mount.mount_flags"), "have control characters"));
    }
    let group_field = format!("{field}.mount.volume_mount_group");
    let group = match optional(&group_field, &mount.volume_mount_group)? {
        None => None,
        Some(_) if !abilities.group => {
            return Err(invalid(&group_field, "this driver cannot give files to a group"));
        }
        Some(text) => Some(text.parse().map_err(|_| invalid(&group_field, "is no group id (a number)"))?),
    };
    Ok(Form::Filesystem {
        fs_type: fs_type.map(str::to_owned),
        mount_flags: mount.mount_flags.clone(),
        group,
    })
}

#[cfg(test)]
mod tests;
