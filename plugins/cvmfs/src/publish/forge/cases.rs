//! The insanities, one by one.

use std::path::Path;

use super::{ChunkRow, Forge, Image, NestedRow, Row, flags, nested, row};
use crate::client::hash::{Compression, Suffix};
use crate::publish::{PublishError, database};

/// One way to be insane.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is called in test output.
    pub name: &'static str,
    /// Whether a reader can mount it at all; if so, only the paths in question may fail, and `/good` reads `good`.
    pub mounts: bool,
    /// Signs it, on a repository fresh from [`Forge::create`].
    pub make: fn(&Forge) -> Result<(), PublishError>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Adds `/good`, then what `add` adds, to the root catalog and signs it.
fn with_good(
    forge: &Forge,
    add: impl FnOnce(&mut Image) -> Result<(), PublishError>,
) -> Result<(), PublishError> {
    let mut image = forge.root()?;
    image.rows.push(forge.file_row("/good", b"good")?);
    add(&mut image)?;
    forge.sign_image(&image).map(|_| ())
}

/// Adds one file row, changed by `change`.
fn with_file(forge: &Forge, path: &str, change: impl FnOnce(&mut Row)) -> Result<(), PublishError> {
    with_good(forge, |image| {
        let mut row = forge.file_row(path, b"content")?;
        change(&mut row);
        image.rows.push(row);
        Ok(())
    })
}

/// What every reader must survive: no panic, no hang, no unbounded memory, no wrong byte.
pub const CASES: &[Case] = &[
    Case {
        name: "empty root catalog",
        mounts: false,
        make: |forge| forge.sign_catalog_bytes(b"").map(|_| ()),
    },
    Case {
        name: "root catalog that is no database",
        mounts: false,
        make: |forge| forge.sign_catalog_bytes(&[b'x'; 5000]).map(|_| ()),
    },
    Case {
        name: "root catalog without tables",
        mounts: false,
        make: |forge| {
            let bytes = database::build(&forge.publisher.store, |connection| {
                connection.execute_batch("CREATE TABLE other (x)")
            })?;
            forge.sign_catalog_bytes(&bytes).map(|_| ())
        },
    },
    Case {
        name: "root catalog cut short",
        mounts: false,
        make: |forge| {
            let bytes = database::write(&forge.publisher.store, &forge.root()?)?;
            forge.sign_catalog_bytes(&bytes[..bytes.len() / 2]).map(|_| ())
        },
    },
    Case {
        name: "root catalog of a future schema",
        mounts: false,
        make: |forge| {
            let mut image = forge.root()?;
            image.properties.retain(|(key, _)| key != "schema");
            image.properties.push(("schema".to_owned(), b"9.0".to_vec()));
            forge.sign_image(&image).map(|_| ())
        },
    },
    Case {
        name: "root catalog without a root directory",
        mounts: false,
        make: |forge| {
            let mut image = forge.root()?;
            image.rows.clear();
            forge.sign_image(&image).map(|_| ())
        },
    },
    Case {
        name: "root catalog with a hostile schema",
        mounts: false,
        make: |forge| {
            let bytes = database::build(&forge.publisher.store, |connection| {
                connection.execute_batch(
                    "CREATE TABLE properties (key TEXT, value TEXT);
                     INSERT INTO properties VALUES ('schema', '2.5'), ('schema_revision', '7');
                     CREATE VIEW catalog AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT
                       x AS md5path_1, x AS md5path_2, x AS parent_1, x AS parent_2, x AS hardlinks, x AS hash,
                       x AS size, x AS mode, x AS mtime, x AS mtimens, x AS flags, x AS name, x AS symlink, x AS uid,
                       x AS gid, x AS xattr FROM n;
                     CREATE TABLE chunks (md5path_1, md5path_2, offset, size, hash);
                     CREATE TABLE nested_catalogs (path, sha1, size);
                     CREATE TABLE statistics (counter, value);",
                )
            })?;
            forge.sign_catalog_bytes(&bytes).map(|_| ())
        },
    },
    Case {
        name: "file of 2^63 bytes",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.size = i64::MIN),
    },
    Case {
        name: "file of 2^63 - 1 bytes",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.size = i64::MAX),
    },
    Case {
        name: "file of -1 bytes",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.size = -1),
    },
    Case {
        name: "file longer than its object",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.size += 1),
    },
    Case {
        name: "file shorter than its object",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.size -= 1),
    },
    Case {
        name: "file without an object",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.hash = Some(vec![0xee; 20])),
    },
    Case {
        name: "file without a hash",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.hash = None),
    },
    Case {
        name: "file with a short hash",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.hash = Some(vec![1; 3])),
    },
    Case {
        name: "file of an unknown algorithm",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.flags |= 7 << flags::ALGORITHM_SHIFT),
    },
    Case {
        name: "file of an unknown compression",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.flags |= 7 << flags::COMPRESSION_SHIFT),
    },
    Case {
        name: "file of all flags",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.flags = -1),
    },
    Case {
        name: "file of no kind",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.flags = 0),
    },
    Case {
        name: "file of mode -1",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.mode = -1),
    },
    Case {
        name: "file of the end of time",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.mtime = i64::MAX),
    },
    Case {
        name: "file of owner -1 and nanosecond 2^40",
        mounts: true,
        make: |forge| {
            with_file(forge, "/bad", |row| {
                row.uid = -1;
                row.gid = i64::MAX;
                row.mtime_ns = Some(1 << 40);
            })
        },
    },
    Case {
        name: "file of 2^31 links",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.hardlinks = -1),
    },
    Case {
        name: "name with a slash",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.name = b"../../etc/passwd".to_vec()),
    },
    Case {
        name: "name of a dot",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.name = b".".to_vec()),
    },
    Case {
        name: "name of two dots",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.name = b"..".to_vec()),
    },
    Case {
        name: "empty name",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.name = Vec::new()),
    },
    Case {
        name: "name with a zero byte",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.name = b"a\0b".to_vec()),
    },
    Case {
        name: "name of 300 bytes",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.name = vec![b'n'; 300]),
    },
    Case {
        name: "name of a megabyte",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.name = vec![b'n'; 1 << 20]),
    },
    Case {
        name: "symbolic link of a megabyte",
        mounts: true,
        make: |forge| {
            with_file(forge, "/bad", |row| {
                row.flags = flags::FILE | flags::SYMLINK;
                row.mode = 0o120_777;
                row.symlink = vec![b'l'; 1 << 20];
            })
        },
    },
    Case {
        name: "attributes that lie about their length",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.xattr = Some(vec![1, 255, 200, 200, b'u'])),
    },
    Case {
        name: "chunks with gaps, overlaps and of 2^62 bytes",
        mounts: true,
        make: |forge| {
            with_good(forge, |image| {
                let mut file = forge.file_row("/bad", b"0123456789")?;
                file.flags |= flags::CHUNKED;
                let hash = forge.put(b"01234", Compression::Zlib, Suffix::Partial)?.bytes.to_vec();
                for (offset, size) in
                    [(-5, 5), (0, 5), (3, 5), (7, 1 << 62), (1 << 62, 1 << 62), (9, 0), (8, -3)]
                {
                    image.chunks.push(ChunkRow { path: file.path, offset, size, hash: hash.clone() });
                }
                image.rows.push(file);
                Ok(())
            })
        },
    },
    Case {
        name: "chunked file without chunks",
        mounts: true,
        make: |forge| with_file(forge, "/bad", |row| row.flags |= flags::CHUNKED),
    },
    Case {
        name: "object that inflates to 256 megabytes",
        mounts: true,
        make: |forge| {
            with_good(forge, |image| {
                let source = std::io::Read::take(std::io::repeat(0), 256 << 20);
                let algorithm = forge.manifest()?.root.algorithm;
                let stored = forge
                    .publisher
                    .store
                    .put(source, u64::MAX, algorithm, Compression::Zlib, Suffix::None)
                    .map_err(|error| error.at(Path::new("zeros"), forge.publisher.store.root()))?;
                let mut bomb = row(b"/bad", flags::FILE, 0o100_644);
                bomb.flags |= i64::from(algorithm.catalog_bits()) << flags::ALGORITHM_SHIFT;
                bomb.hash = Some(stored.digest.bytes.to_vec());
                bomb.size = 10;
                image.rows.push(bomb);
                Ok(())
            })
        },
    },
    Case {
        name: "nested catalog that nests itself",
        mounts: true,
        make: |forge| {
            // A hash cannot contain itself, so the loop is of paths: below /bad comes /bad again.
            with_good(forge, |image| {
                let mut inner = nested("/bad");
                let innermost = nested("/bad");
                let (digest, size) = forge.put_catalog(&innermost)?;
                inner.nested.push(NestedRow {
                    path: b"/bad".to_vec(),
                    digest: digest.to_string(),
                    size: size as i64,
                });
                forge.nest(image, "/bad", &inner).map(|_| ())
            })
        },
    },
    Case {
        name: "nested catalog that is the root catalog of before",
        mounts: true,
        make: |forge| {
            with_good(forge, |image| {
                let root = forge.manifest()?;
                image.rows.push(row(b"/bad", flags::DIRECTORY | flags::MOUNTPOINT, 0o040_755));
                image.nested.push(NestedRow {
                    path: b"/bad".to_vec(),
                    digest: root.root.to_string(),
                    size: root.root_size as i64,
                });
                Ok(())
            })
        },
    },
    Case {
        name: "nested catalog that is missing",
        mounts: true,
        make: |forge| {
            with_good(forge, |image| {
                let missing = forge.nest(image, "/bad", &nested("/bad"))?;
                forge.remove(&missing.with_suffix(Suffix::Catalog))
            })
        },
    },
    Case {
        name: "mountpoint without a nested catalog",
        mounts: true,
        make: |forge| {
            with_good(forge, |image| {
                image.rows.push(row(b"/bad", flags::DIRECTORY | flags::MOUNTPOINT, 0o040_755));
                Ok(())
            })
        },
    },
    Case {
        name: "nested catalogs two hundred deep",
        mounts: true,
        make: |forge| {
            with_good(forge, |image| {
                let path = |depth: usize| format!("/bad{}", "/d".repeat(depth));
                let mut child = nested(&path(200));
                child.rows.push(forge.file_row(&format!("{}/leaf", path(200)), b"leaf")?);
                for depth in (0..200).rev() {
                    let mut parent = nested(&path(depth));
                    forge.nest(&mut parent, &path(depth + 1), &child)?;
                    child = parent;
                }
                forge.nest(image, "/bad", &child).map(|_| ())
            })
        },
    },
    Case {
        name: "directory that is its own child",
        mounts: true,
        make: |forge| {
            with_good(forge, |image| {
                let mut own = row(b"/bad", flags::DIRECTORY, 0o040_755);
                own.parent = own.path;
                image.rows.push(own);
                Ok(())
            })
        },
    },
    Case {
        name: "two files of one name",
        mounts: true,
        make: |forge| {
            with_file(forge, "/bad", |_| {})?;
            let mut image = forge.root()?;
            let mut twin = forge.file_row("/other", b"twin")?;
            twin.name = b"bad".to_vec();
            image.rows.push(twin);
            forge.sign_image(&image).map(|_| ())
        },
    },
];
