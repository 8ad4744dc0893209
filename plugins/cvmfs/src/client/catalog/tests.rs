//! Catalogs that a stranger wrote: odd, broken, hostile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::builder::{SCHEMA, TestRow, catalog, database};
use super::fixture_source::{self, FixtureSource};
use super::*;
use crate::client::hash::PathHash;

fn open(bytes: Vec<u8>) -> Result<Catalog, CatalogFileError> {
    Catalog::open(Arc::new(bytes))
}

fn names(rows: &[Row]) -> Vec<String> {
    let name = |row: &Row| match &row.entry {
        Ok(dirent) => String::from_utf8_lossy(&dirent.name).into_owned(),
        Err(bad) => format!("!{}", String::from_utf8_lossy(bad.name.as_deref().unwrap_or_default())),
    };
    rows.iter().map(name).collect()
}

#[test]
fn one_bad_row_disturbs_no_other() {
    let good = TestRow::file(b"/good", 1);
    let bad = [
        TestRow { size: -1, ..TestRow::file(b"/negative", 1) },
        TestRow { size: i64::MIN, ..TestRow::file(b"/huge", 1) },
        TestRow { hash: Some(vec![1; 19]), ..TestRow::file(b"/short", 1) },
        TestRow { hash: None, ..TestRow::file(b"/nohash", 1) },
        TestRow { flags: 4 | 5 << 8, ..TestRow::file(b"/algorithm", 1) },
        TestRow { flags: 4 | 3 << 11, ..TestRow::file(b"/compression", 1) },
        TestRow { flags: 1, ..TestRow::file(b"/dirfile", 1) },
        TestRow { mode: 0o120_777, ..TestRow::file(b"/linkfile", 1) },
        TestRow { mode: -1, ..TestRow::file(b"/mode", 1) },
        TestRow { mode: 0, ..TestRow::file(b"/typeless", 1) },
        TestRow { uid: -1, ..TestRow::file(b"/owner", 1) },
        TestRow { uid: 1 << 32, ..TestRow::file(b"/owner2", 1) },
        TestRow { nanos: Some(1_000_000_000), ..TestRow::file(b"/nanos", 1) },
        TestRow { size: 1 << 40, mode: 0o020_600, flags: 20, ..TestRow::file(b"/device", 1) },
        TestRow { flags: 1 | 2 | 32, ..TestRow::directory(b"/twice") },
        TestRow { xattr: Some(vec![1; 140_000]), ..TestRow::file(b"/xattr", 1) },
        TestRow::link(b"/target", &[b'x'; 5000]),
        TestRow::link(b"/nul", b"a\0b"),
    ];
    let mut rows = vec![TestRow::directory(b""), good];
    rows.extend(bad.clone());
    let catalog = open(catalog("", &rows, "")).unwrap();
    assert!(catalog.lookup(b"/good").unwrap().unwrap().is_ok());
    for row in &bad {
        let entry = catalog.lookup(&row.path).unwrap().unwrap();
        assert!(entry.is_err(), "{:?}", String::from_utf8_lossy(&row.path));
    }
    let listed = catalog.list(b"", 0, 1000).unwrap();
    // Bad ones are listed, so that a person sees them, and answer EIO.
    assert_eq!(listed.len(), 1 + bad.len());
    assert_eq!(listed.iter().filter(|row| row.entry.is_ok()).count(), 1);
}

#[test]
fn names_that_are_none_are_neither_listed_nor_found() {
    let named = |path: &[u8], name: &[u8]| TestRow { name: name.to_vec(), ..TestRow::file(path, 1) };
    let long = [b'n'; 256];
    let rows = [
        TestRow::directory(b""),
        named(b"/empty", b""),
        named(b"/dot", b"."),
        named(b"/dots", b".."),
        named(b"/slash", b"a/b"),
        named(b"/nul", b"a\0b"),
        named(b"/long", &long),
        named(b"/passwd", b"shadow"),
        TestRow::file(b"/latin\xff", 1),
    ];
    let catalog = open(catalog("", &rows, "")).unwrap();
    assert_eq!(names(&catalog.list(b"", 0, 100).unwrap()), ["latin\u{fffd}"]);
    assert!(catalog.lookup(b"/shadow").unwrap().is_none());
    assert!(catalog.lookup(b"/passwd").unwrap().unwrap().is_err());
    assert!(catalog.lookup(b"/latin\xff").unwrap().unwrap().is_ok());
}

#[test]
fn a_name_is_listed_once() {
    // Two rows of one path are possible without the constraint that forbids them.
    let schema = SCHEMA.replace(
        ",\n        CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));",
        "); CREATE INDEX pk ON catalog (md5path_1, md5path_2);",
    );
    let bytes = database(1024, &schema, |connection| {
        for row in [TestRow::directory(b""), TestRow::file(b"/twice", 1), TestRow::file(b"/twice", 2)] {
            row.insert(connection);
        }
    });
    assert_eq!(names(&open(bytes).unwrap().list(b"", 0, 100).unwrap()), ["twice"]);
}

#[test]
fn chunks_must_cover_the_file() {
    let hash = PathHash::of(b"/f");
    let file = TestRow { flags: 68, hash: None, size: 30, ..TestRow::file(b"/f", 0) };
    let with = |rows: &[(i64, i64, usize)]| {
        let row = |(offset, size, length): &(i64, i64, usize)| {
            let blob = "ab".repeat(*length);
            format!("INSERT INTO chunks VALUES ({}, {}, {offset}, {size}, x'{blob}');", hash.high, hash.low)
        };
        let sql: String = rows.iter().map(row).collect();
        let catalog = open(catalog("", &[TestRow::directory(b""), file.clone()], &sql)).unwrap();
        let Ok(Dirent { kind: Kind::Regular(content), .. }) = catalog.lookup(b"/f").unwrap().unwrap() else {
            panic!()
        };
        catalog.chunks(b"/f", &content).unwrap()
    };
    assert_eq!(with(&[(0, 10, 20), (10, 20, 20)]).unwrap().len(), 2);
    for bad in [
        &[][..],
        &[(0, 10, 20)],
        &[(0, 10, 20), (11, 19, 20)],
        &[(0, 10, 20), (9, 21, 20)],
        &[(0, 10, 20), (10, 20, 19)],
        &[(0, 10, 20), (10, 21, 20)],
        &[(0, 10, 20), (10, -5, 20), (5, 25, 20)],
        &[(0, i64::MAX, 20), (i64::MAX, i64::MAX, 20)],
        &[(0, 0, 20), (0, 30, 20)],
    ] {
        let error = with(bad).unwrap_err();
        assert_eq!(error.name.as_deref(), Some(&b"f"[..]), "{bad:?}");
    }
}

#[test]
fn what_is_no_catalog_is_refused_with_the_reason() {
    let rows = [TestRow::directory(b"")];
    let whole = catalog("", &rows, "");
    let reason = |bytes: Vec<u8>| open(bytes).unwrap_err().to_string();
    assert_eq!(reason(b"<html>404</html>".repeat(99)), "it is no SQLite file");
    assert_eq!(reason(Vec::new()), "it is too short for an SQLite file");
    assert_eq!(reason(whole[..whole.len() / 2].to_vec()), "it is cut off");
    let other = |schema: &str| reason(database(1024, schema, |_| ()));
    assert_eq!(other("CREATE TABLE t (a)"), "it has no table of properties");
    let view = SCHEMA
        .replace("CREATE TABLE catalog (", "CREATE TABLE entries (")
        .replace("ON catalog (parent", "ON entries (parent")
        + "CREATE VIEW catalog AS SELECT * FROM entries;";
    assert_eq!(other(&view), "it has no table of entries");
    let keyless = SCHEMA.replace("CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);", "");
    assert_eq!(other(&keyless), "it has no index over directories");
    for version in ["2.6", "3.0", "2.0", "9e99", "nan", "x"] {
        let schema = SCHEMA.replace("('schema', '2.5')", &format!("('schema', '{version}')"));
        assert!(other(&schema).starts_with("its schema is"), "{version}");
    }
    for prefix in ["/a/../b", "a", "/", "/a//b"] {
        assert_eq!(reason(catalog(prefix, &[], "")), "its root prefix is no path");
    }
}

#[test]
fn old_schemas_are_read() {
    let columns = "mtimens INTEGER, ";
    let schema = "CREATE TABLE properties (key TEXT, value TEXT, CONSTRAINT pk PRIMARY KEY (key));
        CREATE TABLE catalog (md5path_1 INTEGER, md5path_2 INTEGER, parent_1 INTEGER, parent_2 INTEGER,
          inode INTEGER, hash BLOB, size INTEGER, mode INTEGER, mtime INTEGER, flags INTEGER, name TEXT,
          symlink TEXT, CONSTRAINT pk_catalog PRIMARY KEY (md5path_1, md5path_2));
        CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2);
        CREATE TABLE nested_catalogs (path TEXT, sha1 TEXT, CONSTRAINT pk PRIMARY KEY (path));
        INSERT INTO properties VALUES ('schema', '1.1');";
    assert!(SCHEMA.contains(columns));
    let bytes = database(4096, schema, |connection| {
        let (path, root) = (PathHash::of(b"/f"), PathHash::of(b""));
        let sql = "INSERT INTO catalog VALUES (?1,?2,?3,?4,77,?5,5,33188,100,4,'f','')";
        let hash = [7_u8; 20];
        connection.execute(sql, rusqlite::params![path.high, path.low, root.high, root.low, hash]).unwrap();
        let nested = "INSERT INTO nested_catalogs VALUES ('/n', ?1)";
        connection.execute(nested, ["0".repeat(40)]).unwrap();
    });
    let catalog = open(bytes).unwrap();
    let file = catalog.lookup(b"/f").unwrap().unwrap().unwrap();
    assert_eq!((file.links, file.link_group, file.uid, file.mtime.nanos), (1, 0, 0, 0));
    assert_eq!(catalog.nested()[0].size, None);
}

#[tokio::test]
async fn nesting_that_goes_wrong_is_refused() {
    let nested =
        |path: &str, digest: &str| format!("INSERT INTO nested_catalogs VALUES ('{path}', '{digest}', 1);");
    let mount = |path: &[u8]| TestRow { flags: 3, ..TestRow::directory(path) };
    let refused = async |source: &Arc<FixtureSource>, root, path: &[u8]| {
        let snapshot = fixture_source::at(source, root);
        match snapshot.lookup(path).await.unwrap_err() {
            CatalogError::Nesting { reason, .. } => reason,
            other => panic!("{other}"),
        }
    };

    // A catalog that has itself as a child; its digest cannot be forged in earnest, but who knows.
    let source = Arc::new(FixtureSource::default());
    let digest = "1".repeat(40);
    let rows = [TestRow::directory(b""), mount(b"/a")];
    source.offer_as(digest.parse().unwrap(), catalog("", &rows, &nested("/a", &digest)));
    assert_eq!(refused(&source, digest.parse().unwrap(), b"/a/x").await, "it is nested in itself");

    // One that was made for another place, and one without a hash.
    let elsewhere = source.offer(catalog("/b", &[], ""));
    let sql = nested("/a", &elsewhere.to_string()) + &nested("/c", "not a hash");
    let root = source.offer(catalog("", &rows, &sql));
    assert_eq!(refused(&source, root, b"/a/x").await, "it says that it belongs elsewhere");
    assert_eq!(refused(&source, root, b"/c/x").await, "its parent catalog has no hash for it");

    // Mount points outside of the parent cannot be reached at all.
    let sql: String =
        ["/../etc", "/a/../../b", "b", "", "/"].iter().map(|path| nested(path, &digest)).collect();
    assert_eq!(open(catalog("", &rows, &sql)).unwrap().nested(), []);
    let sql = nested("/b/c", &digest)
        + &nested("/ab", &digest)
        + &nested("/a", &digest)
        + &nested("/a/ok", &digest);
    let inside = open(catalog("/a", &[mount(b"/a")], &sql)).unwrap();
    assert_eq!(inside.nested().iter().map(|nested| &nested.path[..]).collect::<Vec<_>>(), [b"/a/ok"]);

    // A chain of a hundred.
    let path = |depth: usize| "/d".repeat(depth);
    let mut child = source.offer(catalog(&path(100), &[], ""));
    for depth in (0..100).rev() {
        let sql = nested(&path(depth + 1), &child.to_string());
        child = source.offer(catalog(&path(depth), &[TestRow::directory(path(depth).as_bytes())], &sql));
    }
    assert_eq!(refused(&source, child, (path(100) + "/x").as_bytes()).await, "it is nested too deep");
}

#[tokio::test]
async fn a_catalog_that_is_none_breaks_only_what_is_in_it() {
    let source = Arc::new(FixtureSource::default());
    let garbage = source.offer(vec![0; 9999]);
    let sql = format!("INSERT INTO nested_catalogs VALUES ('/a', '{garbage}', 1);");
    let rows =
        [TestRow::directory(b""), TestRow { flags: 3, ..TestRow::directory(b"/a") }, TestRow::file(b"/f", 1)];
    let snapshot = fixture_source::at(&source, source.offer(catalog("", &rows, &sql)));
    assert!(snapshot.lookup(b"/f").await.unwrap().is_some());
    assert!(snapshot.lookup(b"/a").await.unwrap().is_some());
    assert!(matches!(snapshot.lookup(b"/a/x").await, Err(CatalogError::Malformed { .. })));
    assert!(matches!(snapshot.directory(b"/a").await, Err(CatalogError::Malformed { .. })));
}

#[tokio::test]
async fn only_so_many_catalogs_are_open_at_once() {
    let source = Arc::new(FixtureSource::default());
    let mut rows = vec![TestRow::directory(b"")];
    let mut sql = String::new();
    for number in 0..100 {
        let path = format!("/n{number}");
        rows.push(TestRow { flags: 3, ..TestRow::directory(path.as_bytes()) });
        let file = TestRow::file(format!("{path}/f").as_bytes(), 1);
        let child = source.offer(catalog(&path, &[TestRow::directory(path.as_bytes()), file], ""));
        sql += &format!("INSERT INTO nested_catalogs VALUES ('{path}', '{child}', 1);");
    }
    let snapshot = fixture_source::at(&source, source.offer(catalog("", &rows, &sql)));
    for _ in 0..2 {
        for number in 0..100 {
            assert!(snapshot.lookup(format!("/n{number}/f").as_bytes()).await.unwrap().is_some());
        }
    }
    assert_eq!(snapshot.mounted_count(), 101);
    assert_eq!(snapshot.catalogs().open_count(), 64);
}

/// Everything that can be asked of a catalog.
fn ask_everything(bytes: Vec<u8>, paths: &[&[u8]]) {
    let begin = Instant::now();
    let Ok(catalog) = open(bytes) else {
        return;
    };
    for path in paths {
        if let Ok(Some(Ok(Dirent { kind: Kind::Regular(content), .. }))) = catalog.lookup(path) {
            let _ = catalog.chunks(path, &content);
        }
        let mut cookie = 0;
        while let Ok(rows) = catalog.list(path, cookie, 10) {
            match rows.last() {
                Some(row) => {
                    assert!(row.cookie > cookie);
                    cookie = row.cookie;
                }
                None => break,
            }
        }
        catalog.nested_towards(path);
    }
    let mut scan = catalog.scan();
    while let Ok(Some(row)) = scan.next() {
        let _ = catalog.name_and_parent(row.parent);
    }
    let _ = catalog.counters();
    assert!(begin.elapsed() < Duration::from_secs(5), "a hostile catalog of a few pages kept us busy");
}

const PATHS: [&[u8]; 6] = [b"", b"/d", b"/d/f1", b"/d/f77", b"/l", b"/chunked"];

fn seed() -> Vec<u8> {
    let mut rows =
        vec![TestRow::directory(b""), TestRow::directory(b"/d"), TestRow::link(b"/l", &[b't'; 3000])];
    rows.extend((0..150).map(|number| TestRow::file(format!("/d/f{number}").as_bytes(), 1)));
    let hash = PathHash::of(b"/chunked");
    let mut sql = String::from(
        "INSERT INTO nested_catalogs VALUES ('/n', '0123456789012345678901234567890123456789', 5);",
    );
    for number in 0..60 {
        sql += &format!(
            "INSERT INTO chunks VALUES ({}, {}, {}, 10, x'{}');",
            hash.high,
            hash.low,
            number * 10,
            "ab".repeat(20)
        );
    }
    rows.push(TestRow { flags: 68, hash: None, size: 600, ..TestRow::file(b"/chunked", 0) });
    catalog("", &rows, &sql)
}

/// Found by the test below: with an index entry of four numbers the last was taken for the row id, and a listing did not end.
#[test]
fn an_index_with_more_columns_than_its_schema_says_is_malformed() {
    let rows = [TestRow::directory(b""), TestRow::file(b"/a", 1), TestRow::file(b"/b", 1)];
    let bytes = database(1024, SCHEMA, |connection| {
        for row in &rows {
            row.insert(connection);
        }
        let sql = "DROP INDEX idx_catalog_parent; PRAGMA writable_schema=ON; \
                   CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2, size); \
                   UPDATE sqlite_schema SET sql='CREATE INDEX idx_catalog_parent ON catalog (parent_1, parent_2)' \
                   WHERE name='idx_catalog_parent'; PRAGMA writable_schema=OFF;";
        connection.execute_batch(sql).unwrap();
    });
    assert!(matches!(open(bytes).unwrap().list(b"", 0, 10), Err(CatalogFileError::Malformed(_))));
}

/// Fuzzing of catalog rows: flipped, overwritten and moved bytes never panic or hang.
#[test]
fn mutated_catalogs_never_panic_or_hang() {
    let seed = seed();
    ask_everything(seed.clone(), &PATHS);
    let mutation = (any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>(), 0..4_u8);
    let strategy = prop::collection::vec(mutation, 1..40);
    let cases = if cfg!(debug_assertions) { 300 } else { 20_000 };
    proptest!(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }, |(mutations in strategy)| {
        let mut bytes = seed.clone();
        for (at, value, from, how) in mutations {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = value,
                // Page and cell headers are where it hurts.
                1 => bytes[at / 1024 * 1024 + usize::from(value % 16)] = value,
                2 => bytes[at] ^= 1 << (value % 8),
                _ => {
                    let (from, to) = (from.index(bytes.len() / 1024) * 1024, at / 1024 * 1024);
                    bytes.copy_within(from..from + 1024, to);
                }
            }
        }
        ask_everything(bytes, &PATHS);
    });
}

#[test]
fn every_page_size_reads_as_sqlite_reads_it() {
    for page_size in [512, 1024, 4096, 65536] {
        let bytes = database(page_size, SCHEMA, |connection| {
            TestRow::directory(b"").insert(connection);
            for number in 0..4000_u32 {
                let path = format!("/file {number} {}", "x".repeat(number as usize % 200));
                let xattr = vec![b'v'; (number as usize * 37) % 5000];
                TestRow { xattr: Some(xattr), ..TestRow::file(path.as_bytes(), number as u8) }
                    .insert(connection);
            }
            // Holes, and pages on the free list.
            connection
                .execute_batch("DELETE FROM catalog WHERE rowid % 7 = 3 OR rowid BETWEEN 900 AND 1500")
                .unwrap();
        });
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("db"), &bytes).unwrap();
        let connection = rusqlite::Connection::open(directory.path().join("db")).unwrap();
        let root = PathHash::of(b"");
        let mut statement = connection
            .prepare("SELECT rowid, name, size, xattr FROM catalog WHERE parent_1 = ?1 AND parent_2 = ?2 ORDER BY rowid")
            .unwrap();
        let want: Vec<(i64, String, i64, Vec<u8>)> = statement
            .query_map([root.high, root.low], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let catalog = open(bytes).unwrap();
        let rows = catalog.list(b"", 0, usize::MAX).unwrap();
        assert_eq!(rows.len(), want.len());
        for (row, (id, name, size, xattr)) in rows.iter().zip(&want) {
            let dirent = row.entry.as_ref().unwrap();
            let Kind::Regular(content) = &dirent.kind else { panic!() };
            assert_eq!((row.cookie, &dirent.name[..], content.size), (*id, name.as_bytes(), *size as u64));
            assert_eq!(dirent.xattrs.as_deref().unwrap_or_default(), xattr);
            assert_eq!(catalog.lookup(format!("/{name}").as_bytes()).unwrap().unwrap().as_ref(), Ok(dirent));
        }
        let mut scan = catalog.scan();
        let mut count = 0;
        while scan.next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, want.len() + 1);
    }
}
