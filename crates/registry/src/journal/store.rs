//! Changes as SQL.

use std::os::unix::ffi::OsStrExt;

use host::mount::place::Node;
use rusqlite::{Connection, ErrorCode, Transaction, params};
use volume::Sharing;

use super::JournalError;
use crate::table::Change;

/// All of them, or none.
pub(super) fn write<'a>(
    connection: &mut Connection,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<(), JournalError> {
    let run = || {
        let transaction = connection.transaction()?;
        for change in changes {
            write_one(&transaction, change)?;
        }
        transaction.commit()
    };
    run().map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full,
        _ => JournalError::Write(error.to_string()),
    })
}

fn json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn word_of_node(node: Node) -> &'static str {
    match node {
        Node::Directory => "directory",
        Node::File => "file",
    }
}

fn word_of_sharing(sharing: Sharing) -> &'static str {
    match sharing {
        Sharing::Staging => "staging",
        Sharing::Shared => "shared",
        Sharing::Single => "single",
    }
}

fn write_one(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql)?.execute(values).map(|_rows| ())
    };
    match change {
        Change::PutVolume(driver, name, row) => run(
            "INSERT INTO volume (driver, name, spec, options, created_at, last_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (driver, name) DO UPDATE SET spec = ?3, options = ?4, created_at = ?5, last_key = ?6",
            params![
                driver.as_str(),
                name.as_str(),
                json(&row.spec)?,
                json(&row.options)?,
                i64::try_from(row.created_at).unwrap_or(i64::MAX),
                row.last_key.as_ref().map(|key| key.as_str()),
            ],
        ),
        Change::DropVolume(driver, name) => {
            run("DELETE FROM volume WHERE driver = ?1 AND name = ?2", params![driver.as_str(), name.as_str()])
        }
        Change::PutMount(key, row) => run(
            "INSERT INTO mount (key, driver, resolved, state, mountpoint, device) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (key) DO UPDATE SET driver = ?2, resolved = ?3, state = ?4, mountpoint = ?5, device = ?6",
            params![
                key.as_str(),
                row.driver.as_str(),
                row.resolved.as_ref().map(json).transpose()?,
                row.state.as_str(),
                row.mountpoint.as_os_str().as_bytes(),
                row.device.map(|device| device.to_string()),
            ],
        ),
        Change::DropMount(key) => run("DELETE FROM mount WHERE key = ?1", params![key.as_str()]),
        Change::PutReference(id, row) => run(
            "INSERT INTO reference
                (frontend, scope, id, key, volume, settled, target, target_created, target_device,
                 target_beneath, target_node, target_read_only, target_sharing)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (frontend, scope, id) DO UPDATE SET
                key = ?4, volume = ?5, settled = ?6, target = ?7, target_created = ?8, target_device = ?9,
                target_beneath = ?10, target_node = ?11, target_read_only = ?12, target_sharing = ?13",
            params![
                id.frontend.as_str(),
                id.scope,
                id.id,
                row.key.as_str(),
                row.volume.as_ref().map(|name| name.as_str()),
                row.settled,
                row.bind.as_ref().map(|bind| bind.target.as_os_str().as_bytes()),
                row.bind.as_ref().is_some_and(|bind| bind.created),
                row.bind.as_ref().and_then(|bind| bind.device).map(|device| device.to_string()),
                row.bind.as_ref().and_then(|bind| Some(bind.beneath.as_ref()?.as_os_str().as_bytes())),
                row.bind.as_ref().map_or("directory", |bind| word_of_node(bind.node)),
                row.bind.as_ref().is_none_or(|bind| bind.read_only),
                row.bind.as_ref().map_or("shared", |bind| word_of_sharing(bind.sharing)),
            ],
        ),
        Change::DropReference(id) => run(
            "DELETE FROM reference WHERE frontend = ?1 AND scope = ?2 AND id = ?3",
            params![id.frontend.as_str(), id.scope, id.id],
        ),
        Change::PutProvisioned(driver, id, row) => run(
            "INSERT INTO provisioned (driver, id, name, size, context, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (driver, id) DO UPDATE SET name = ?3, size = ?4, context = ?5, created_at = ?6",
            params![
                driver.as_str(),
                id,
                row.name,
                i64::try_from(row.size).unwrap_or(i64::MAX),
                json(&row.context)?,
                i64::try_from(row.created_at).unwrap_or(i64::MAX),
            ],
        ),
        Change::DropProvisioned(driver, id) => {
            run("DELETE FROM provisioned WHERE driver = ?1 AND id = ?2", params![driver.as_str(), id])
        }
    }
}
