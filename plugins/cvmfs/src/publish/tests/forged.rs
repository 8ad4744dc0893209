//! The client among insane repositories: what is refused, what is served, and never a panic.

use crate::client::catalog::Kind;
use crate::client::snapshot::Snapshot;
use crate::publish::forge::{CASES, Forge};

/// Whether there is a root directory.
async fn mounts(snapshot: &Snapshot) -> bool {
    match snapshot.directory(b"").await {
        Ok(Some(root)) => matches!(root.dirent.kind, Kind::Directory { .. }),
        Ok(None) | Err(_) => false,
    }
}

/// Looks at everything near the root, as a curious user would. Returns how many entries were listed.
async fn poke(snapshot: &Snapshot, directory: &[u8], depth: usize) -> usize {
    let Ok(Some(located)) = snapshot.directory(directory).await else { return 0 };
    let (mut after, mut seen) = (0, 0);
    while seen < 10_000 {
        let Ok(rows) = snapshot.catalogs().list(&located.catalog, directory, after, 100).await else { break };
        for row in &rows {
            assert!(row.cookie > after, "a listing must come to its end");
            after = row.cookie;
            seen += 1;
            let Ok(dirent) = &row.entry else { continue };
            assert!(!dirent.name.is_empty() && dirent.name.len() <= 255, "{dirent:?}");
            assert!(!dirent.name.contains(&b'/') && !dirent.name.contains(&0), "{dirent:?}");
            assert!(dirent.name != b"." && dirent.name != b"..", "{dirent:?}");
            let path = [directory, b"/", &dirent.name].concat();
            let Ok(Some(found)) = snapshot.lookup(&path).await else { continue };
            if let Kind::Regular(content) = &found.dirent.kind {
                assert!(i64::try_from(content.size).is_ok());
                let _ = snapshot.catalogs().chunks(&found.catalog, &path, content).await;
            }
            if depth > 0 && matches!(found.dirent.kind, Kind::Directory { .. }) {
                seen += Box::pin(poke(snapshot, &path, depth - 1)).await;
            }
        }
        if rows.len() < 100 {
            break;
        }
    }
    seen
}

#[test]
fn only_what_is_insane_fails() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for case in CASES {
        let directory = tempfile::tempdir().unwrap();
        let forge = Forge::create(directory.path(), "bad.example.org").unwrap();
        (case.make)(&forge).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        let manifest = forge.publisher().manifest().unwrap();
        let snapshot = super::client::snapshot(directory.path(), &manifest);
        runtime.block_on(async {
            assert_eq!(mounts(&snapshot).await, case.mounts, "{case:?}");
            poke(&snapshot, b"", 70).await;
            if case.mounts {
                let root = snapshot.directory(b"").await.unwrap().unwrap();
                let rows = snapshot.catalogs().list(&root.catalog, b"", 0, 100).await;
                let rows = rows.unwrap_or_else(|error| panic!("{case:?}: {error}"));
                let names = rows.iter().filter_map(|row| row.entry.as_ref().ok());
                assert!(names.into_iter().any(|dirent| dirent.name == b"good"), "{case:?}");
                let good = snapshot.lookup(b"/good").await;
                let good = good.unwrap_or_else(|error| panic!("{case:?}: {error}"));
                assert!(
                    matches!(good.unwrap().dirent.kind, Kind::Regular(content) if content.size == 4),
                    "{case:?}"
                );
            }
        });
    }
}
