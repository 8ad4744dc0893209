//! What happens over time: sweeps, restarts, a lost journal, a reboot.

use super::*;

#[tokio::test]
async fn references_that_docker_forgot_go_after_the_grace_time() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.world.start_container(1, &key("a"));
    story.sweep(LATER).await;
    assert_eq!(story.shown("a").await.unwrap().1.len(), 1);
    // The container dies while the engine is down: no Unmount ever comes.
    story.world.stop_container(1);
    story.sweep(LATER + Duration::from_secs(300)).await;
    assert_eq!(story.shown("a").await.unwrap().1.len(), 1, "seen 300 s ago");
    story.sweep(LATER + LATER).await;
    assert_eq!(story.shown("a").await, None);
    assert!(!story.is_mounted("a"));
    story.world.assert_clean();
}

#[tokio::test]
async fn podmans_references_stay_until_the_next_boot_and_its_dead_mounts_come_back() {
    let story = Story::with_volume("a").await;
    story.mount(&podman("a")).await.unwrap();
    story.sweep(LATER + LATER).await;
    assert!(story.is_mounted("a"));
    story.world.kill(&key("a"));
    let story = story.restart().await;
    assert_eq!(story.shown("a").await, Some((MountState::Absent, vec!["podman|a|2f73".into()])));
    story.sweep(Duration::ZERO).await;
    assert_eq!(story.shown("a").await.unwrap().0, MountState::Live);
    {
        let mut facts = story.world.facts.lock();
        facts.mounts.clear();
        facts.served.clear();
    }
    let story = story.restart_in_boot("another").await;
    assert_eq!(story.shown("a").await, None);
    story.sweep(Duration::ZERO).await;
    assert!(!story.is_mounted("a"));
}

#[tokio::test]
async fn after_a_restart_everything_is_as_before() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    let before = story.shown("a").await;
    let story = story.restart().await;
    assert_eq!(story.shown("a").await, before);
    assert_eq!(story.world.facts.lock().attaches, 1);
    story.unmount(&docker("a", "1")).await;
    assert!(!story.is_mounted("a"));
    story.world.assert_clean();
}

#[tokio::test]
async fn a_lost_journal_keeps_what_a_container_sees_and_stops_the_rest() {
    let story = Story::with_volume("a").await;
    story.define("b", &[]).await.unwrap();
    story.mount(&docker("a", "1")).await.unwrap();
    story.mount(&docker("b", "1")).await.unwrap();
    story.world.start_container(1, &key("a"));
    let Story { dir, world, registry } = story;
    registry.shutdown(Duration::from_secs(10)).await;
    drop(registry);
    std::fs::write(dir.path().join("state/registry.db"), [7; 5000]).unwrap();
    let registry = world.open(dir.path()).await;
    registry.ready().await;
    let story = Story { dir, world, registry };
    assert_eq!(story.shown("a").await, Some((MountState::Live, vec![])));
    assert!(!story.is_mounted("b"));
    // Its container goes on; a new request finds it.
    story.define("a", &[]).await.unwrap();
    story.mount(&docker("a", "2")).await.unwrap();
    assert_eq!(story.world.facts.lock().attaches, 2);
    story.world.assert_clean();
}

#[tokio::test]
async fn a_mount_that_died_with_the_daemon_is_cleaned_away_and_made_anew() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.world.kill(&key("a"));
    let story = story.restart().await;
    assert!(story.world.facts.lock().mounts.is_empty());
    assert_eq!(story.shown("a").await, Some((MountState::Absent, vec!["docker|a|1".into()])));
    story.mount(&docker("a", "1")).await.unwrap();
    assert_eq!(story.shown("a").await.unwrap().0, MountState::Live);
}

#[tokio::test]
async fn an_open_file_keeps_the_mount_and_it_goes_later() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    let device = story.world.facts.lock().served[&key("a")];
    story.world.facts.lock().busy.insert(device);
    story.unmount(&docker("a", "1")).await;
    assert_eq!(story.shown("a").await, Some((MountState::Live, vec![])));
    story.world.facts.lock().busy.clear();
    story.sweep(Duration::ZERO).await;
    assert!(!story.is_mounted("a"));
}

#[tokio::test]
async fn nothing_is_taken_down_while_nobody_can_say_who_sees_it() {
    let story = Story::with_volume("a").await;
    story.mount(&docker("a", "1")).await.unwrap();
    story.world.facts.lock().seen_fault = Some(FaultKind::DeadlineExceeded);
    story.unmount(&docker("a", "1")).await;
    story.sweep(LATER).await;
    assert!(story.is_mounted("a"));
    assert!(story.registry.remove(DRIVER, &name("a")).await.is_err());
    story.world.facts.lock().seen_fault = None;
    story.sweep(Duration::ZERO).await;
    assert!(!story.is_mounted("a"));
}
