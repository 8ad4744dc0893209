//! Provisioned volumes of a driver whose storage has none.

use std::collections::BTreeSet;

use volume::{Form, NewVolume, PageRequest, Provision, Secrets, SizeRange, Source, StoredVolume};

use super::*;

fn wanted(name: &str) -> NewVolume {
    NewVolume {
        name: name.into(),
        size: SizeRange::default(),
        parameters: OptionMap::from([("repository".into(), "cms.cern.ch".into())]),
        mutable_parameters: OptionMap::new(),
        source: None,
        forms: vec![Form::default()],
        places: Vec::new(),
    }
}

fn provision(story: &Story) -> Arc<dyn Provision> {
    story.registry.abilities(DRIVER).unwrap().provision
}

async fn create(story: &Story, wanted: &NewVolume) -> Result<StoredVolume, FaultKind> {
    provision(story).create(wanted, &Secrets::new()).await.map_err(|fault| fault.kind)
}

#[tokio::test]
async fn a_provisioned_volume_is_kept_over_restarts_and_reboots_and_deleted() {
    let story = Story::new().await;
    let volume = create(&story, &wanted("pvc-1")).await.unwrap();
    assert_eq!((volume.id.as_str(), volume.size), ("pvc-1", 0));
    assert_eq!(volume.context, wanted("pvc-1").parameters);
    let story = story.restart_in_boot("another").await;
    assert_eq!(create(&story, &wanted("pvc-1")).await.unwrap(), volume);
    assert_eq!(provision(&story).volume("pvc-1").await.unwrap(), volume);
    assert!(story.registry.list(DRIVER).await.unwrap().is_empty(), "Docker's list is another");
    for _ in 0..2 {
        provision(&story).delete("pvc-1", &Secrets::new()).await.unwrap();
    }
    assert_eq!(provision(&story).volume("pvc-1").await.unwrap_err().kind, FaultKind::NotFound);
    let check = provision(&story).check("pvc-1", &[Form::default()], &OptionMap::new()).await;
    assert_eq!(check.unwrap_err().kind, FaultKind::NotFound);
}

#[tokio::test]
async fn the_same_name_is_the_same_volume_or_a_conflict() {
    let story = Story::new().await;
    let sized = |required, limit| NewVolume { size: SizeRange { required, limit }, ..wanted("a") };
    assert_eq!(create(&story, &sized(Some(10), Some(20))).await.unwrap().size, 10);
    create(&story, &sized(Some(5), Some(10))).await.unwrap();
    create(&story, &sized(None, None)).await.unwrap();
    assert_eq!(create(&story, &sized(Some(11), None)).await, Err(FaultKind::AlreadyExists));
    assert_eq!(create(&story, &sized(None, Some(9))).await, Err(FaultKind::AlreadyExists));
    let parameters = OptionMap::from([("repository".into(), "lhcb.cern.ch".into())]);
    let other = NewVolume { parameters, ..wanted("a") };
    assert_eq!(create(&story, &other).await, Err(FaultKind::AlreadyExists));
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let story = Story::new().await;
    let options = |key: &str, value: String| OptionMap::from([(key.to_owned(), value)]);
    let bad = [
        NewVolume { name: String::new(), ..wanted("") },
        NewVolume { name: "x".repeat(129), ..wanted("") },
        wanted("a\0b"),
        NewVolume { size: SizeRange { required: Some(2), limit: Some(1) }, ..wanted("a") },
        NewVolume { size: SizeRange { required: Some(u64::MAX), limit: None }, ..wanted("a") },
        NewVolume { parameters: options("colour", "red".into()), ..wanted("a") },
        NewVolume { parameters: options("repository", "x".repeat(5000)), ..wanted("a") },
        NewVolume { mutable_parameters: options("iops", "1".into()), ..wanted("a") },
        NewVolume { source: Some(Source::Volume("b".into())), ..wanted("a") },
        NewVolume { forms: vec![Form::Block], ..wanted("a") },
    ];
    for bad in bad {
        assert_eq!(create(&story, &bad).await, Err(FaultKind::InvalidArgument), "{bad:?}");
    }
    create(&story, &wanted("a")).await.unwrap();
    let check = async |forms: &[Form], parameters: OptionMap| {
        provision(&story).check("a", forms, &parameters).await.map_err(|fault| fault.kind)
    };
    check(&[Form::default()], wanted("a").parameters).await.unwrap();
    assert_eq!(check(&[Form::Block], OptionMap::new()).await, Err(FaultKind::InvalidArgument));
    assert_eq!(check(&[], options("repository", "x".into())).await, Err(FaultKind::InvalidArgument));
}

#[tokio::test]
async fn pages_go_on_where_they_ended_whatever_happens_between() {
    let story = Story::new().await;
    for number in 0..10 {
        create(&story, &wanted(&format!("v{number}"))).await.unwrap();
    }
    let page = async |start: Option<String>, limit| {
        provision(&story).volumes(&PageRequest { start, limit }).await.map_err(|fault| fault.kind)
    };
    let (mut seen, mut start) = (BTreeSet::new(), None);
    loop {
        let part = page(start, 3).await.unwrap();
        assert!(part.entries.len() <= 3);
        let last = part.entries.last().unwrap().id.clone();
        seen.extend(part.entries.into_iter().map(|volume| volume.id));
        start = part.next;
        if start.is_none() {
            break;
        }
        // The next page does not need the last entry of this one.
        provision(&story).delete(&last, &Secrets::new()).await.unwrap();
    }
    assert_eq!(seen.len(), 10);
    assert_eq!(page(None, 0).await.unwrap().next, None);
    assert_eq!(page(Some("invalid-token".into()), 0).await.unwrap_err(), FaultKind::InvalidArgument);
}
