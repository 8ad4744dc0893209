use std::path::Path;

use host::mount::place::Node;
use volume::{
    CvmfsSpec, Driver, Frontend, MountKey, MountState, OptionMap, RefId, Resolved, Revision, Sharing,
    VolumeSpec,
};

use super::*;
use crate::table::{BindRow, MountRow, ProvisionedRow, ReferenceRow, VolumeRow};

fn every_change() -> Vec<Change> {
    let spec = VolumeSpec::Cvmfs(CvmfsSpec {
        repository: "cms.cern.ch".into(),
        revision: Revision::Tag("v1".into()),
        parameters: OptionMap::from([("CVMFS_X".into(), "1".into())]),
    });
    let key = MountKey::new("cms.cern.ch@v1").unwrap();
    let volume = VolumeRow {
        spec: spec.clone(),
        options: OptionMap::from([("tag".into(), "v1".into())]),
        created_at: 1_700_000_000,
        last_key: Some(key.clone()),
    };
    let mount = MountRow {
        driver: Driver::Cvmfs,
        resolved: Some(Resolved { key: key.clone(), spec, payload: serde_json::json!({"a": [1, 2]}) }),
        state: MountState::Live,
        mountpoint: "/run/v/mounts/cms.cern.ch@v1".into(),
        device: Some("0:77".parse().unwrap()),
    };
    let bind = BindRow {
        target: "/pods/a b".into(),
        beneath: Some("/pods".into()),
        node: Node::File,
        read_only: false,
        sharing: Sharing::Single,
        created: true,
        device: Some("0:77".parse().unwrap()),
    };
    let provisioned = ProvisionedRow {
        name: "pvc-1".into(),
        size: 1 << 40,
        context: OptionMap::from([("tag".into(), "v1".into())]),
        created_at: 1_700_000_001,
    };
    let reference = ReferenceRow { key: key.clone(), volume: None, bind: Some(bind), settled: true };
    let id = RefId { frontend: Frontend::Csi, scope: "/pods/%7c|x".into(), id: String::new() };
    vec![
        Change::PutVolume(Driver::Cvmfs, "v".parse().unwrap(), volume),
        Change::PutMount(key, mount),
        Change::PutReference(id, reference),
        Change::PutProvisioned(Driver::Cvmfs, "pvc-1".into(), provisioned),
    ]
}

/// What does not end with the boot.
fn of_no_boot() -> Vec<Change> {
    let lasts = |change: &Change| matches!(change, Change::PutVolume(..) | Change::PutProvisioned(..));
    every_change().into_iter().filter(lasts).collect()
}

fn write(journal: &Journal, changes: Vec<Change>) -> Result<(), JournalError> {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(journal.write(changes))
}

fn open_at(path: &Path, boot: &str) -> (Journal, Loaded) {
    Journal::open(path, boot).unwrap()
}

#[test]
fn what_was_written_is_read_again_and_mounts_end_with_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let (journal, loaded) = open_at(&path, "boot-1");
    assert!(loaded.changes.is_empty());
    write(&journal, every_change()).unwrap();
    // Once more: each change replaces what is there.
    write(&journal, every_change()).unwrap();
    drop(journal);
    let (journal, loaded) = open_at(&path, "boot-1");
    assert_eq!(loaded.changes, every_change());
    drop(journal);
    let (_journal, loaded) = open_at(&path, "boot-2");
    assert_eq!(loaded.of_another_boot, (1, 1));
    assert_eq!(loaded.changes, of_no_boot());
}

#[test]
fn dropping_removes_and_a_mount_with_references_cannot_be_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let (journal, _) = open_at(&path, "b");
    let changes = every_change();
    write(&journal, changes.clone()).unwrap();
    let [
        Change::PutVolume(driver, name, _),
        Change::PutMount(key, _),
        Change::PutReference(id, _),
        Change::PutProvisioned(_, provisioned, _),
    ] = changes.as_slice()
    else {
        unreachable!()
    };
    assert!(matches!(write(&journal, vec![Change::DropMount(key.clone())]), Err(JournalError::Write(_))));
    let drops = vec![
        Change::DropReference(id.clone()),
        Change::DropMount(key.clone()),
        Change::DropVolume(*driver, name.clone()),
        Change::DropProvisioned(*driver, provisioned.clone()),
    ];
    write(&journal, drops).unwrap();
    drop(journal);
    assert!(open_at(&path, "b").1.changes.is_empty());
}

#[test]
fn a_refused_change_leaves_its_neighbours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open_at(&dir.path().join("registry.db"), "b");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let [volume, mount, reference, _] = <[Change; 4]>::try_from(every_change()).unwrap();
    let (first, second, third) = runtime.block_on(async {
        tokio::join!(journal.write(vec![volume]), journal.write(vec![reference]), journal.write(vec![mount]))
    });
    assert!(first.is_ok() && third.is_ok());
    assert!(matches!(second, Err(JournalError::Write(_))));
}

#[test]
fn a_damaged_file_is_moved_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    for round in 1..=2 {
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        let (journal, loaded) = open_at(&path, "b");
        let aside = loaded.damaged.unwrap();
        assert!(aside.to_str().unwrap().ends_with(&format!("registry.db.damaged-{round}")));
        assert_eq!(std::fs::read(aside).unwrap(), vec![b'x'; 8192]);
        write(&journal, every_change()).unwrap();
    }
}

#[test]
fn a_torn_page_in_the_middle_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let (journal, _) = open_at(&path, "b");
    write(&journal, every_change()).unwrap();
    drop(journal);
    let mut bytes = std::fs::read(&path).unwrap();
    for byte in &mut bytes[4096..] {
        *byte = 0xa5;
    }
    std::fs::write(&path, bytes).unwrap();
    assert!(open_at(&path, "b").1.damaged.is_some());
}

#[test]
fn volumes_are_saved_out_of_a_file_whose_other_pages_are_torn() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let (journal, _) = open_at(&path, "b");
    write(&journal, every_change()).unwrap();
    drop(journal);
    let connection = Connection::open(&path).unwrap();
    let page: u64 = connection
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'reference'", [], |row| row.get(0))
        .map(|page: i64| u64::try_from(page).unwrap())
        .unwrap();
    drop(connection);
    let mut bytes = std::fs::read(&path).unwrap();
    let start = usize::try_from((page - 1) * 4096).unwrap();
    bytes[start..start + 4096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let (_journal, loaded) = open_at(&path, "b");
    assert!(loaded.damaged.is_some());
    assert_eq!(loaded.changes, of_no_boot());
}

#[test]
fn a_newer_layout_and_a_second_daemon_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let (journal, _) = open_at(&path, "b");
    assert!(matches!(Journal::open(&path, "b"), Err(JournalError::Locked(_))));
    drop(journal);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = Journal::open(&path, "b");
    assert!(matches!(refused, Err(JournalError::Newer { version: 99, .. })), "{refused:?}");
}

#[test]
fn a_journal_of_the_layout_before_opens_with_its_binds_read_only_and_shared() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(MIGRATIONS[0]).unwrap();
    let rows = "
        INSERT INTO meta VALUES ('boot_id', 'b');
        INSERT INTO mount VALUES ('cms.cern.ch', 'cvmfs', NULL, 'live', X'2F6D', '0:77');
        INSERT INTO reference VALUES ('csi', '/pods/a', '', 'cms.cern.ch', NULL, 1, X'2F702F61', 1, '0:77');
        INSERT INTO reference VALUES ('docker', 'v', '1', 'cms.cern.ch', 'v', 1, NULL, 0, NULL);
        PRAGMA user_version = 1;";
    connection.execute_batch(rows).unwrap();
    drop(connection);
    let (journal, loaded) = open_at(&path, "b");
    let bind = BindRow {
        target: "/p/a".into(),
        beneath: None,
        node: Node::Directory,
        read_only: true,
        sharing: Sharing::Shared,
        created: true,
        device: Some("0:77".parse().unwrap()),
    };
    let binds = loaded.changes.iter().filter_map(|change| match change {
        Change::PutReference(_, row) => Some(row.bind.clone()),
        _ => None,
    });
    assert_eq!(binds.collect::<Vec<_>>(), [Some(bind), None]);
    write(&journal, every_change()).unwrap();
}
