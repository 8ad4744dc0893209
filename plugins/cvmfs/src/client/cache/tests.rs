//! The cache against disks that fail, processes that die, and each other.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::client::hash::{Algorithm, Suffix};

fn open(directory: &Path, quota: Option<u64>) -> Arc<Cache> {
    Cache::open(CacheConfig::new(directory, quota)).unwrap()
}

/// Content that its name is made of, so that any process can check it.
fn content(number: u64, length: usize) -> Vec<u8> {
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().bytes(length)
}

trait XofBytes {
    fn bytes(self, length: usize) -> Vec<u8>;
}

impl XofBytes for blake3::OutputReader {
    fn bytes(mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(&mut bytes);
        bytes
    }
}

fn id(content: &[u8]) -> ObjectId {
    Algorithm::Sha1.digest(content).with_suffix(Suffix::None)
}

fn store(cache: &Cache, content: &[u8]) -> Result<Object, StorageError> {
    let mut incoming = cache.incoming(id(content));
    for piece in content.chunks(10_000) {
        incoming.write(piece)?;
    }
    incoming.commit()
}

fn read(object: &Object) -> Vec<u8> {
    object.read_all(1 << 30).unwrap()
}

fn sample(cache: &Cache, name: &str) -> f64 {
    cache.samples().into_iter().find(|sample| sample.name == name).unwrap().value
}

/// Waits for a condition, at most ten seconds.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < limit, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// A file system of its own, unmounted lazily at the end.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` (with a message) without the right to mount.
    fn new(kind: &str, options: &str) -> Option<(tempfile::TempDir, Mounted)> {
        let directory = tempfile::tempdir().unwrap();
        let flags = nix::mount::MsFlags::empty();
        match nix::mount::mount(Some("volplane-test"), directory.path(), Some(kind), flags, Some(options)) {
            Ok(()) => {
                let mounted = Mounted(directory.path().to_owned());
                Some((directory, mounted))
            }
            Err(errno) => {
                println!("skipped: a {kind} cannot be mounted: {errno}");
                None
            }
        }
    }

    fn remount(&self, kind: &str, flags: nix::mount::MsFlags, options: &str) {
        let flags = flags | nix::mount::MsFlags::MS_REMOUNT;
        nix::mount::mount(Some("volplane-test"), &self.0, Some(kind), flags, Some(options)).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn what_is_stored_is_found_again_with_its_modes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    let cache = open(&path, None);
    let bytes = content(1, 30_000);
    assert!(cache.cached(&id(&bytes), None).is_none());
    let object = store(&cache, &bytes).unwrap();
    assert!(read(&object) == bytes);
    assert_eq!(cache.usage(), 32_768);
    drop(cache);
    let cache = open(&path, None);
    let object = cache.cached(&id(&bytes), Some(30_000)).unwrap();
    assert!(read(&object) == bytes);
    assert!(cache.cached(&id(&bytes), Some(29_999)).is_none());
    for (offset, count) in [(29_995, 5), (29_990, 10), (30_000, 0), (40_000, 0), (u64::MAX >> 1, 0)] {
        assert_eq!(object.read_at(&mut [0; 10], offset).unwrap(), count, "{offset}");
    }
    assert_eq!(cache.usage(), 32_768, "the ledger was kept");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let file = File::from(object.file().unwrap().try_clone_to_owned().unwrap());
    assert!(file.write_at(b"x", 0).is_err(), "the descriptor is read-only");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn nothing_is_left_of_what_is_not_committed() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path(), None);
    let bytes = content(1, 100_000);
    let mut incoming = cache.incoming(id(&bytes));
    incoming.write(&bytes).unwrap();
    drop(incoming);
    assert!(cache.load(&id(&bytes)).is_none());
    drop(cache);
    assert_eq!(files_below(&directory.path().join("objects")).len(), 0);
    assert_eq!(files_below(&directory.path().join("tmp")).len(), 0);
}

#[test]
fn directories_of_others_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Cache::open(CacheConfig::new(&path, None)), Err(CacheError::Unsafe { .. })));
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(Cache::open(CacheConfig::new(&file, None)), Err(CacheError::Unsafe { .. })));
}

/// What may happen to a cached file while nobody looks.
#[derive(Debug, Clone)]
enum Damage {
    Flip {
        at: usize,
        bit: u8,
    },
    Truncate {
        to: usize,
    },
    Append,
    Empty,
    /// The content of another object under this name.
    Misplace,
    ZeroPage {
        at: usize,
    },
    LoseSeal,
    None,
}

fn damages() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        any::<usize>().prop_map(|to| Damage::Truncate { to }),
        Just(Damage::Append),
        Just(Damage::Empty),
        Just(Damage::Misplace),
        any::<usize>().prop_map(|at| Damage::ZeroPage { at }),
        Just(Damage::LoseSeal),
        Just(Damage::None),
    ]
}

fn damage(cache: &Store, id: &ObjectId, length: usize, other: &ObjectId, damage: &Damage) -> bool {
    let path = cache.path(id);
    let file = File::options().read(true).write(true).open(&path).unwrap();
    match damage {
        Damage::Flip { at, bit } => {
            let mut byte = [0];
            let at = (at % length) as u64;
            file.read_exact_at(&mut byte, at).unwrap();
            byte[0] ^= 1 << bit;
            file.write_all_at(&byte, at).unwrap();
        }
        Damage::Truncate { to } => file.set_len((to % length) as u64).unwrap(),
        Damage::Append => file.write_all_at(b"x", length as u64).unwrap(),
        Damage::Empty => file.set_len(0).unwrap(),
        Damage::Misplace => {
            fs::remove_file(&path).unwrap();
            fs::hard_link(cache.path(other), &path).unwrap();
        }
        Damage::ZeroPage { at } => {
            let at = at % length / 4096 * 4096;
            file.write_all_at(&vec![0; 4096.min(length - at)], at as u64).unwrap();
        }
        Damage::LoseSeal => rustix::fs::fremovexattr(&file, "user.volplane.blake3").unwrap(),
        Damage::None => return false,
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn damaged_objects_are_never_served(
        objects in proptest::collection::vec((1..300_000usize, damages()), 1..6),
        quick in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let cache = open(directory.path(), None);
        let other = content(999, 5000);
        store(&cache, &other).unwrap();
        let contents: Vec<Vec<u8>> =
            objects.iter().enumerate().map(|(number, (length, _))| content(number as u64, *length)).collect();
        for bytes in &contents {
            store(&cache, bytes).unwrap();
        }
        drop(cache);
        let cache = open(directory.path(), None);
        let mut damaged = 0;
        for (bytes, (length, how)) in contents.iter().zip(&objects) {
            let is_damaged = damage(&cache.store, &id(bytes), *length, &id(&other), how);
            damaged += u32::from(is_damaged);
            let found = if quick { cache.cached(&id(bytes), None) } else { None };
            match found.or_else(|| cache.load(&id(bytes))) {
                Some(object) => prop_assert!(read(&object) == *bytes, "{how:?}"),
                None => {
                    prop_assert!(is_damaged);
                    prop_assert!(!cache.store.path(&id(bytes)).exists());
                    // Fetched again, it is as good as new.
                    store(&cache, bytes).unwrap();
                    prop_assert!(read(&cache.cached(&id(bytes), None).unwrap()) == *bytes);
                }
            }
        }
        prop_assert!(sample(&cache, "cvmfs_cache_corrupt_total") <= f64::from(damaged));
    }
}

#[test]
fn a_file_is_read_once_in_a_life_and_again_when_it_changed() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (content(1, 1000), content(2, 1000));
    let cache = open(directory.path(), None);
    store(&cache, &first).unwrap();
    store(&cache, &second).unwrap();
    drop(cache);
    let mut config = CacheConfig::new(directory.path(), None);
    config.open_objects = 0;
    let cache = Cache::open(config).unwrap();
    let path = cache.store.path(&id(&first));
    assert!(cache.cached(&id(&first), None).is_some());
    cache.store.recent.remove(&id(&first));
    let mut changed = first.clone();
    changed[5] ^= 1;
    fs::write(&path, &changed).unwrap();
    let later = SystemTime::now() + Duration::from_secs(2);
    File::open(&path).unwrap().set_modified(later).unwrap();
    assert!(cache.cached(&id(&first), None).is_none());
}

#[test]
fn file_systems_without_attributes_have_seals_beside_the_objects() {
    let Some((directory, _mounted)) = Mounted::new("ramfs", "mode=0700") else { return };
    let bytes = content(1, 70_000);
    let cache = open(directory.path(), Some(1 << 20));
    store(&cache, &bytes).unwrap();
    let beside = seal::beside(&cache.store.path(&id(&bytes)));
    assert!(beside.exists());
    drop(cache);
    let cache = open(directory.path(), Some(1 << 20));
    assert!(read(&cache.cached(&id(&bytes), None).unwrap()) == bytes);
    for number in 2..30 {
        store(&cache, &content(number, 70_000)).unwrap();
    }
    wait_for("eviction", || cache.usage() <= 1 << 20);
    drop(cache);
    let left = files_below(&directory.path().join("objects"));
    let seals = left.iter().filter(|path| path.extension().is_some()).count();
    assert_eq!(seals * 2, left.len(), "seals go with their objects");
    fs::write(&beside, [0; 40]).unwrap();
    fs::write(beside.with_extension(""), &bytes).unwrap();
    let cache = open(directory.path(), Some(1 << 20));
    assert!(cache.cached(&id(&bytes), None).is_none());
}

#[test]
fn the_least_recently_used_go_first_and_stay_readable() {
    let directory = tempfile::tempdir().unwrap();
    let quota = 1 << 20;
    let cache = open(directory.path(), Some(quota));
    let objects: Vec<Vec<u8>> = (0..12).map(|number| content(number, 64 << 10)).collect();
    let mut held = Vec::new();
    for (number, bytes) in objects.iter().enumerate() {
        let object = store(&cache, bytes).unwrap();
        // The first is the oldest by an hour for each.
        let used = SystemTime::now() - Duration::from_secs(3600 * (objects.len() - number) as u64);
        let file = File::open(cache.store.path(&id(bytes))).unwrap();
        file.set_times(fs::FileTimes::new().set_accessed(used)).unwrap();
        held.push(object);
    }
    for number in 100..104 {
        store(&cache, &content(number, 64 << 10)).unwrap();
    }
    wait_for("eviction", || {
        sample(&cache, "cvmfs_cache_evicted_total") > 0.0 && cache.usage() <= quota * 3 / 4
    });
    let left: Vec<bool> = objects.iter().map(|bytes| cache.store.path(&id(bytes)).exists()).collect();
    let gone = left.iter().filter(|left| !**left).count();
    assert!((3..=8).contains(&gone), "{left:?}");
    assert!(left[gone..].iter().all(|left| *left), "the oldest went: {left:?}");
    for (bytes, object) in objects.iter().zip(&held) {
        assert!(read(object) == *bytes, "held objects are still whole");
    }
    wait_for("evicted files are closed", || cache.store.recent.len() <= left.len() + 4 - gone);
}

#[test]
fn an_object_larger_than_the_quota_is_served_uncached() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path(), Some(100_000));
    let bytes = content(1, 150_000);
    let object = store(&cache, &bytes).unwrap();
    assert!(read(&object) == bytes);
    assert!(object.file().is_some());
    assert_eq!(files_below(&directory.path().join("objects")).len(), 0);
}

const CHILD_DIRECTORY: &str = "VOLPLANE_TEST_CACHE";
const QUOTA: u64 = 2 << 20;

#[test]
#[ignore = "is the child process of the next test"]
fn child_process() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let cache = open(Path::new(&directory), Some(QUOTA));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..400u64 {
                    // 200 objects of 40 KiB: four times the quota.
                    let number = (round * 7 + thread * 13 + u64::from(std::process::id())) % 200;
                    let bytes = content(number, 40 << 10);
                    let found = cache.cached(&id(&bytes), Some(40 << 10)).or_else(|| cache.load(&id(&bytes)));
                    let object = found.unwrap_or_else(|| store(cache, &bytes).unwrap());
                    assert!(read(&object) == bytes, "object {number}");
                }
            });
        }
    });
    assert_eq!(sample(&cache, "cvmfs_cache_corrupt_total"), 0.0);
}

#[test]
fn processes_share_a_cache_with_a_tiny_quota_also_when_killed() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "client::cache::tests::child_process", "--ignored"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..3).map(|_| start()).collect();
    for moment in [30, 60, 90, 120, 150] {
        let mut victim = start();
        std::thread::sleep(Duration::from_millis(moment));
        victim.kill().unwrap();
        victim.wait().unwrap();
    }
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // Counting again tells the truth, whatever the killed took with them.
    let walked = || -> u64 {
        let sizes = files_below(&directory.path().join("objects")).into_iter();
        sizes.filter_map(|path| fs::metadata(path).ok()).map(|file| file.len().div_ceil(4096) * 4096).sum()
    };
    let cache = open(directory.path(), Some(QUOTA));
    cache.store.bell.want_count();
    wait_for("the count", || {
        let counted = cache.usage();
        counted == walked() && counted <= QUOTA
    });
}

#[test]
fn leftovers_of_dead_processes_go_and_those_of_living_ones_stay() {
    let directory = tempfile::tempdir().unwrap();
    let living = open(directory.path(), None);
    let mut incoming = living.incoming(id(b"x"));
    incoming.write(b"x").unwrap();
    let dead = directory.path().join("tmp/1-77");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    fs::write(dead.join("5"), "half of something").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(1000);
    for entry in fs::read_dir(directory.path().join("tmp")).unwrap() {
        File::open(entry.unwrap().path()).unwrap().set_modified(long_ago).unwrap();
    }
    let _cache = open(directory.path(), None);
    wait_for("cleaning", || !dead.exists());
    let object = incoming.commit().unwrap();
    assert_eq!(read(&object), b"x");
    assert!(living.store.path(&id(b"x")).exists());
}

#[test]
fn a_full_disk_costs_the_caching_and_gets_well_by_itself() {
    let Some((directory, mounted)) = Mounted::new("tmpfs", "size=1m,mode=0700") else { return };
    let mut config = CacheConfig::new(directory.path(), None);
    config.memory_limit = 1 << 20;
    let cache = Cache::open(config).unwrap();
    let filler = directory.path().join("filler");
    fs::write(&filler, vec![1; 900 << 10]).unwrap();
    // Begins on disk, goes on in memory.
    let bytes = content(1, 400_000);
    let object = store(&cache, &bytes).unwrap();
    assert!(read(&object) == bytes);
    assert!(object.file().is_none());
    assert!(cache.trouble().unwrap().contains("No space left"), "{:?}", cache.trouble());
    // The budget holds, and comes back when objects are dropped.
    let second = store(&cache, &content(2, 600_000)).unwrap();
    assert!(matches!(
        store(&cache, &content(3, 200_000)),
        Err(StorageError::Exhausted { limit: 1_048_576, .. })
    ));
    drop((object, second));
    assert!(read(&store(&cache, &content(3, 200_000)).unwrap()) == content(3, 200_000));
    assert_eq!(cache.store.memory.used(), 0);
    fs::remove_file(&filler).unwrap();
    wait_for("recovery", || store(&cache, &bytes).unwrap().file().is_some());
    assert_eq!(cache.trouble(), None);
    // Read-only: what is there is served, what is new is not kept.
    drop(cache);
    mounted.remount("tmpfs", nix::mount::MsFlags::MS_RDONLY, "size=1m");
    let cache = open(directory.path(), None);
    assert!(read(&cache.load(&id(&bytes)).unwrap()) == bytes);
    assert!(read(&store(&cache, &content(5, 1000)).unwrap()) == content(5, 1000));
    assert!(cache.trouble().is_some());
    mounted.remount("tmpfs", nix::mount::MsFlags::empty(), "size=1m");
    wait_for("recovery", || store(&cache, &content(6, 1000)).unwrap().file().is_some());
}

#[test]
fn one_object_does_not_fill_the_disk() {
    let Some((directory, _mounted)) = Mounted::new("tmpfs", "size=150m,mode=0700") else { return };
    let cache = open(directory.path(), None);
    let mut incoming = cache.incoming(id(b"huge"));
    let piece = vec![7; 1 << 20];
    let end = (0..200).find_map(|_| incoming.write(&piece).err());
    assert!(matches!(end, Some(StorageError::Exhausted { .. })), "{end:?}");
    drop(incoming);
    assert!(files_below(&directory.path().join("tmp")).iter().all(|path| path.ends_with("lock")));
}

#[test]
fn a_disk_full_of_objects_is_squeezed() {
    let Some((directory, _mounted)) = Mounted::new("tmpfs", "size=2m,mode=0700") else { return };
    let cache = open(directory.path(), Some(100 << 20));
    for number in 0..100 {
        let bytes = content(number, 100_000);
        assert!(read(&store(&cache, &bytes).unwrap()) == bytes);
    }
    wait_for("room", || store(&cache, &content(1000, 100_000)).unwrap().file().is_some());
    assert!(sample(&cache, "cvmfs_cache_evicted_total") > 0.0);
}

#[test]
fn a_cache_without_a_place_still_serves() {
    let cache = open(Path::new("/proc/no-such-place/cache"), None);
    let bytes = content(1, 5000);
    assert!(read(&store(&cache, &bytes).unwrap()) == bytes);
    assert!(cache.trouble().is_some());
    assert!(cache.load_verified("a.example.org").is_none());
}

#[test]
fn records_are_whole_or_absent_and_never_go_back() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path(), None);
    let record = |revision: u64, text: &'static str| VerifiedRecord {
        manifest: Bytes::from_static(text.as_bytes()),
        whitelist: Bytes::from_static(b"white\0list"),
        certificate: Bytes::new(),
        revision,
    };
    let fqrn = "test.example.org";
    assert_eq!(cache.load_verified(fqrn), None);
    cache.save_verified(fqrn, &record(5, "five")).unwrap();
    cache.save_verified(fqrn, &record(4, "four")).unwrap();
    assert_eq!(cache.load_verified(fqrn), Some(record(5, "five")));
    cache.save_verified(fqrn, &record(5, "five again")).unwrap();
    assert_eq!(cache.load_verified(fqrn), Some(record(5, "five again")));
    for bad in ["", "..", "../x", ".lock", "a/b", "a\0b"] {
        assert!(matches!(cache.save_verified(bad, &record(1, "")), Err(RecordError::Name(_))), "{bad:?}");
        assert_eq!(cache.load_verified(bad), None);
    }
    let path = directory.path().join("records").join(fqrn);
    let good = fs::read(&path).unwrap();
    let mut seen = HashMap::new();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        *seen.entry(cache.load_verified(fqrn).is_some()).or_insert(0) += 1;
        fs::write(&path, &good[..at]).unwrap();
        assert_eq!(cache.load_verified(fqrn), None);
    }
    assert_eq!(seen.get(&true), None);
}

#[test]
#[ignore = "makes a million files; a minute"]
fn a_cache_of_a_million_objects_opens_at_once() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), None));
    for shard in 0..256 {
        let shard = directory.path().join(format!("objects/{shard:02x}"));
        fs::create_dir(&shard).unwrap();
        for number in 0..4000 {
            File::create(shard.join(format!("{number:038}"))).unwrap();
        }
    }
    let began = Instant::now();
    let cache = open(directory.path(), Some(1 << 30));
    assert!(cache.cached(&id(b"x"), None).is_none());
    store(&cache, b"x").unwrap();
    println!("opened and used after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
}
