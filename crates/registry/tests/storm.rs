//! Five hundred requests at once: ten targets each of fifty volumes, on the real kernel, as root. Each volume must be
//! mounted once, each target shows its volume, and after as many releases in another order nothing is left.
//!
//! The times are printed, not judged: `cargo test --release -p registry --test storm -- --nocapture`.

#![allow(clippy::unwrap_used)] // an integration test: all of it is test code

mod ground;

use std::sync::Arc;
use std::time::Instant;

use registry::Registry;
use tokio::task::JoinSet;
use volume::{BindTarget, Caller, Frontend, RefId, Target, VolumeService};

use self::ground::{LONG, Place, spec};

const VOLUMES: usize = 50;
const TARGETS: usize = 10;

fn uses(place: &Place) -> Vec<(String, RefId, Target)> {
    let pods = place.path("pods");
    (0..VOLUMES * TARGETS)
        .map(|number| {
            let volume = format!("repo-{}", number % VOLUMES);
            let path = pods.join(number.to_string());
            let id = RefId {
                frontend: Frontend::Csi,
                scope: format!("pv-{volume}"),
                id: path.display().to_string(),
            };
            let target = BindTarget { beneath: Some(pods.clone()), ..BindTarget::directory(path) };
            (volume, id, Target::Bind(target))
        })
        .collect()
}

async fn publish_all(registry: &Arc<Registry>, uses: &[(String, RefId, Target)]) {
    let mut running = JoinSet::new();
    for one in uses {
        let (registry, (volume, id, target)) = (registry.clone(), one.clone());
        running.spawn(async move {
            let caller = Caller::admin(Frontend::Csi);
            registry.acquire(&spec(&volume), &id, &target, &caller).await
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap().unwrap();
    }
}

async fn unpublish_all(registry: &Arc<Registry>, uses: &[(String, RefId, Target)]) {
    let mut running = JoinSet::new();
    // An order without any order: 7 and the number of uses have no common divisor.
    for number in 0..uses.len() {
        let (registry, id) = (registry.clone(), uses[number * 7 % uses.len()].1.clone());
        running.spawn(async move { registry.release(&id).await });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_publications_at_once_are_one_mount_per_volume() {
    let Some(place) = Place::new() else { return };
    std::fs::create_dir(place.path("pods")).unwrap();
    let registry = place.open().await;
    let uses = uses(&place);
    for round in ["new", "repeated", "mounted before"] {
        let begun = Instant::now();
        publish_all(&registry, &uses).await;
        eprintln!("{} publications, {round}: {:?}", uses.len(), begun.elapsed());
        // Each target once, and each volume once: nothing is stacked, nothing is missing.
        assert_eq!(place.mounts().len(), VOLUMES * TARGETS + VOLUMES);
        for (volume, id, _) in &uses {
            assert_eq!(std::fs::read_to_string(format!("{}/name", id.id)).unwrap(), *volume);
        }
        if round == "repeated" {
            let (most, kept): (Vec<_>, Vec<_>) =
                uses.iter().cloned().enumerate().partition(|(number, _)| *number >= VOLUMES);
            let most: Vec<_> = most.into_iter().map(|(_, one)| one).collect();
            let begun = Instant::now();
            unpublish_all(&registry, &most).await;
            eprintln!("{} releases, one use kept of each: {:?}", most.len(), begun.elapsed());
            assert_eq!(place.mounts().len(), 2 * kept.len());
        }
    }
    let begun = Instant::now();
    unpublish_all(&registry, &uses).await;
    eprintln!("{} releases: {:?}", uses.len(), begun.elapsed());
    // A process of another test that cloned our namespace meanwhile sees a mount too, until it ends.
    let end = Instant::now() + LONG;
    while !place.mounts().is_empty() {
        assert!(Instant::now() < end, "{} mounts stay", place.mounts().len());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(std::fs::read_dir(place.path("pods")).unwrap().count(), 0);
    assert!(registry.mounts().await.is_empty());
    registry.shutdown(LONG).await;
}
