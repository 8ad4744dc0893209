//! The journal's tables and their migrations, by SQLite's `user_version`.
//!
//! ```text
//! meta       name -> value             boot_id: which life of the kernel mounts and references belong to
//! volume     (driver, name) -> spec (JSON), options (JSON), created_at (s since the epoch), last_key
//! mount      key -> driver, resolved (JSON or NULL), state, mountpoint (bytes), device ("major:minor" or NULL)
//! reference  (frontend, scope, id) -> key, volume, settled, and of a bind: target (bytes), created, device,
//!            beneath (bytes or NULL), node (directory or file), read_only, sharing
//! provisioned (driver, id) -> name, size (bytes), context (JSON), created_at
//! ```

/// `MIGRATIONS[n]` leads from version n to n + 1.
pub(crate) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE volume (
        driver TEXT NOT NULL, name TEXT NOT NULL,
        spec TEXT NOT NULL, options TEXT NOT NULL, created_at INTEGER NOT NULL, last_key TEXT,
        PRIMARY KEY (driver, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE mount (
        key TEXT PRIMARY KEY, driver TEXT NOT NULL,
        resolved TEXT, state TEXT NOT NULL, mountpoint BLOB NOT NULL, device TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE reference (
        frontend TEXT NOT NULL, scope TEXT NOT NULL, id TEXT NOT NULL,
        key TEXT NOT NULL REFERENCES mount (key),
        volume TEXT, settled INTEGER NOT NULL,
        target BLOB, target_created INTEGER NOT NULL, target_device TEXT,
        PRIMARY KEY (frontend, scope, id)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX reference_by_key ON reference (key);
",
    "
    ALTER TABLE reference ADD COLUMN target_beneath BLOB;
    ALTER TABLE reference ADD COLUMN target_node TEXT NOT NULL DEFAULT 'directory';
    ALTER TABLE reference ADD COLUMN target_read_only INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE reference ADD COLUMN target_sharing TEXT NOT NULL DEFAULT 'shared';
    CREATE TABLE provisioned (
        driver TEXT NOT NULL, id TEXT NOT NULL,
        name TEXT NOT NULL, size INTEGER NOT NULL, context TEXT NOT NULL, created_at INTEGER NOT NULL,
        PRIMARY KEY (driver, id)
    ) STRICT, WITHOUT ROWID;
",
];
