//! The journal as it is read at start.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use host::mount::place::Node;
use rusqlite::{Connection, OpenFlags, Row, params};
use volume::{Driver, Frontend, MountKey, MountState, RefId, Sharing, VolumeName};

use crate::table::{BindRow, Change, MountRow, ProvisionedRow, ReferenceRow, VolumeRow};

/// What the journal held.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Everything, as changes of an empty table: volumes, then mounts, then references.
    pub(crate) changes: Vec<Change>,
    /// How many mounts and references were dropped because they were of another boot of the machine.
    pub(crate) of_another_boot: (usize, usize),
    /// The journal was damaged and lies here now.
    pub(crate) damaged: Option<PathBuf>,
}

/// The volumes that can still be read from a damaged file: an engine defines a volume again that it does not find, but
/// without its options, and Kubernetes never makes a provisioned one again.
pub(super) fn salvage(path: &Path) -> Vec<Change> {
    let mut volumes = Vec::new();
    let mut read = || -> rusqlite::Result<()> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mut read_all = |sql: &str, change: fn(&Row<'_>) -> rusqlite::Result<Option<Change>>| {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                volumes.extend(change(row)?);
            }
            Ok(())
        };
        // Each of the two tables may be the torn one.
        let first = read_all(VOLUMES, volume);
        read_all(PROVISIONED, provisioned).and(first)
    };
    if let Err(error) = read() {
        tracing::warn!(%error, "not all volumes of the damaged journal could be read");
    }
    volumes
}

const PROVISIONED: &str = "SELECT driver, id, name, size, context, created_at FROM provisioned";
const VOLUMES: &str = "SELECT driver, name, spec, options, created_at, last_key FROM volume";

pub(super) fn load(connection: &Connection, boot_id: &str) -> rusqlite::Result<Loaded> {
    let mut loaded = Loaded::default();
    let known: Option<String> = {
        let mut statement = connection.prepare("SELECT value FROM meta WHERE name = 'boot_id'")?;
        let mut rows = statement.query([])?;
        rows.next()?.map(|row| row.get(0)).transpose()?
    };
    if known.as_deref() != Some(boot_id) {
        let references = connection.execute("DELETE FROM reference", [])?;
        let mounts = connection.execute("DELETE FROM mount", [])?;
        loaded.of_another_boot = (mounts, references);
        connection
            .execute("INSERT OR REPLACE INTO meta (name, value) VALUES ('boot_id', ?1)", params![boot_id])?;
    }
    let mut read =
        |sql: &str, change: fn(&Row<'_>) -> rusqlite::Result<Option<Change>>| -> rusqlite::Result<()> {
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                match change(row)? {
                    Some(change) => loaded.changes.push(change),
                    None => {
                        tracing::warn!(
                            query = sql,
                            ?row,
                            "a row of the journal is not understood and is ignored"
                        );
                    }
                }
            }
            Ok(())
        };
    read(VOLUMES, volume)?;
    read("SELECT driver, key, resolved, state, mountpoint, device FROM mount", mount)?;
    read(
        "SELECT frontend, scope, id, key, volume, settled, target, target_created, target_device,
            target_beneath, target_node, target_read_only, target_sharing FROM reference",
        reference,
    )?;
    read(PROVISIONED, provisioned)?;
    Ok(loaded)
}

/// A text column in a form of ours; `None` if it has not that form.
fn parsed<T: std::str::FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    Ok(row.get::<_, Option<String>>(column)?.and_then(|text| text.parse().ok()))
}

fn path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<MountKey>> {
    Ok(row.get::<_, Option<String>>(column)?.and_then(MountKey::new))
}

fn volume(row: &Row<'_>) -> rusqlite::Result<Option<Change>> {
    let (driver, name) = (parsed(row, 0)?, parsed(row, 1)?);
    let spec = serde_json::from_str(&row.get::<_, String>(2)?).ok();
    let options = serde_json::from_str(&row.get::<_, String>(3)?).ok();
    let created_at = u64::try_from(row.get::<_, i64>(4)?).unwrap_or_default();
    let last_key = key(row, 5)?;
    Ok((|| {
        let row = VolumeRow { spec: spec?, options: options?, created_at, last_key };
        Some(Change::PutVolume(driver?, name?, row))
    })())
}

fn mount(row: &Row<'_>) -> rusqlite::Result<Option<Change>> {
    let (driver, key) = (parsed(row, 0)?, key(row, 1)?);
    let resolved = row.get::<_, Option<String>>(2)?.and_then(|json| serde_json::from_str(&json).ok());
    let state = match row.get::<_, String>(3)?.as_str() {
        "absent" => MountState::Absent,
        "attaching" => MountState::Attaching,
        "live" => MountState::Live,
        "detaching" => MountState::Detaching,
        // "stale", or a word of another version: what is there is looked at and taken away.
        _ => MountState::Stale,
    };
    let (mountpoint, device) = (path(row.get(4)?), parsed(row, 5)?);
    Ok((|| Some(Change::PutMount(key?, MountRow { driver: driver?, resolved, state, mountpoint, device })))())
}

fn reference(row: &Row<'_>) -> rusqlite::Result<Option<Change>> {
    let frontend = match row.get::<_, String>(0)?.as_str() {
        "docker" => Some(Frontend::Docker),
        "podman" => Some(Frontend::Podman),
        "flexvolume" => Some(Frontend::Flexvolume),
        "csi" => Some(Frontend::Csi),
        "cli" => Some(Frontend::Cli),
        _ => None,
    };
    let (scope, id, key) = (row.get(1)?, row.get(2)?, key(row, 3)?);
    let (volume, settled) = (parsed::<VolumeName>(row, 4)?, row.get(5)?);
    let (created, device) = (row.get(7)?, parsed(row, 8)?);
    let beneath = row.get::<_, Option<Vec<u8>>>(9)?.map(path);
    let node = match row.get::<_, String>(10)?.as_str() {
        "file" => Node::File,
        _ => Node::Directory,
    };
    let read_only = row.get(11)?;
    let sharing = match row.get::<_, String>(12)?.as_str() {
        "staging" => Sharing::Staging,
        "single" => Sharing::Single,
        _ => Sharing::Shared,
    };
    let bind = row.get::<_, Option<Vec<u8>>>(6)?.map(|target| BindRow {
        target: path(target),
        beneath,
        node,
        read_only,
        sharing,
        created,
        device,
    });
    Ok((|| {
        let id = RefId { frontend: frontend?, scope, id };
        Some(Change::PutReference(id, ReferenceRow { key: key?, volume, bind, settled }))
    })())
}

fn provisioned(row: &Row<'_>) -> rusqlite::Result<Option<Change>> {
    let (driver, id) = (parsed::<Driver>(row, 0)?, row.get(1)?);
    let context = serde_json::from_str(&row.get::<_, String>(4)?).ok();
    let size = u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default();
    let (name, created_at) = (row.get(2)?, u64::try_from(row.get::<_, i64>(5)?).unwrap_or_default());
    Ok((|| {
        Some(Change::PutProvisioned(
            driver?,
            id,
            ProvisionedRow { name, size, context: context?, created_at },
        ))
    })())
}
