use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio_stream::StreamExt as _;
use volume::Extent;

use super::*;

fn part(extents: &[(u64, u64)]) -> Result<Extents, Fault> {
    let extents =
        extents.iter().map(|(offset, length)| Extent { offset: *offset, length: *length }).collect();
    Ok(Extents { size: 1 << 20, extents })
}

/// Runs a stream over scripted parts; answers where it read from, and what it sent.
async fn run(script: Vec<Result<Extents, Fault>>) -> (Vec<u64>, Vec<Result<usize, Status>>) {
    let script = Arc::new(Mutex::new(VecDeque::from(script)));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (parts, notes) = (script.clone(), asked.clone());
    let read = move |from| {
        notes.lock().push(from);
        let next = parts.lock().pop_front().expect("the stream asks no more than it must");
        async move { next }
    };
    let messages = stream(7, read, |part: Extents| part.extents.len()).await.unwrap();
    let sent = messages.collect().await;
    let asked = asked.lock().clone();
    (asked, sent)
}

#[tokio::test]
async fn each_part_begins_where_the_last_one_ended() {
    let (asked, sent) = run(vec![part(&[(0, 10), (20, 5)]), part(&[(30, 1)]), part(&[])]).await;
    assert_eq!(asked, [7, 25, 31]);
    assert_eq!(sent.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn an_empty_snapshot_is_one_message() {
    let (asked, sent) = run(vec![part(&[])]).await;
    assert_eq!((asked.len(), sent.len()), (1, 1));
}

#[tokio::test]
async fn a_backend_that_goes_back_or_fails_ends_the_stream_with_its_status() {
    let (_, sent) = run(vec![part(&[(10, 10)]), part(&[(0, 5)])]).await;
    assert_eq!(sent.last().unwrap().as_ref().unwrap_err().code(), tonic::Code::Internal);
    let gone = Fault::new(FaultKind::NotFound, "read", "s", "removed meanwhile");
    let (_, sent) = run(vec![part(&[(10, 10)]), Err(gone)]).await;
    assert_eq!(sent.last().unwrap().as_ref().unwrap_err().code(), tonic::Code::NotFound);
    let end = Fault::new(FaultKind::OutOfRange, "read", "s", "beyond the end");
    let (_, sent) = run(vec![part(&[(10, 10)]), Err(end)]).await;
    assert!(sent.iter().all(Result::is_ok));
}

#[tokio::test]
async fn bounds_are_checked() {
    assert_eq!(bounds(5, 0).unwrap(), (5, MESSAGE_EXTENTS));
    assert_eq!(bounds(0, 3).unwrap(), (0, 3));
    assert_eq!(bounds(0, i32::MAX).unwrap().1, MESSAGE_EXTENTS);
    assert!(bounds(-1, 0).is_err() && bounds(0, -1).is_err());
}
