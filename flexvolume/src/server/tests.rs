use volume::OptionMap;
use volume::fake::FakeService;

use super::*;

const TARGET: &str = "/var/lib/kubelet/pods/1/volumes/cern~cvmfs/sw";

fn server() -> (Arc<FakeService>, Server) {
    let service = Arc::new(FakeService::default());
    (service.clone(), Server::new(service, "/var/lib/kubelet".into()))
}

fn request(options: &[(&str, &str)]) -> MountRequest {
    let options: OptionMap = options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    MountRequest { driver: Driver::Cvmfs, target: TARGET.to_owned(), options: options.into() }
}

fn lhcb() -> MountRequest {
    request(&[
        ("repository", "lhcb.cern.ch"),
        ("kubernetes.io/readwrite", "rw"),
        ("kubernetes.io/fsType", ""),
    ])
}

fn held(service: &FakeService) -> Vec<String> {
    service.inner.lock().references.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_confirmed_mount_stays_and_an_unmount_ends_it() {
    let (service, server) = server();
    let pending = server.mount(&lhcb()).await.unwrap();
    pending.keep();
    assert_eq!(held(&service), [format!("flexvolume|{TARGET}|{TARGET}")]);
    let unmount = UnmountRequest { target: TARGET.to_owned() };
    server.unmount(&unmount).await.unwrap();
    assert!(held(&service).is_empty());
    server.unmount(&unmount).await.unwrap();
}

#[tokio::test]
async fn what_its_caller_never_knew_of_goes_again() {
    let (service, server) = server();
    server.mount(&lhcb()).await.unwrap().give_back().await;
    assert!(held(&service).is_empty());
}

#[tokio::test]
async fn a_repeated_call_that_dies_takes_nothing_away() {
    let (service, server) = server();
    server.mount(&lhcb()).await.unwrap().keep();
    server.mount(&lhcb()).await.unwrap().give_back().await;
    assert_eq!(held(&service).len(), 1);
}

#[tokio::test]
async fn of_two_calls_the_one_that_knows_wins() {
    let (service, server) = server();
    let first = server.mount(&lhcb()).await.unwrap();
    let second = server.mount(&lhcb()).await.unwrap();
    first.give_back().await;
    assert_eq!(held(&service).len(), 1, "the later call has taken it over");
    second.keep();
    let (first, second) = (server.mount(&lhcb()).await.unwrap(), server.mount(&lhcb()).await.unwrap());
    first.keep();
    second.give_back().await;
    assert_eq!(held(&service).len(), 1);
    assert!(server.unconfirmed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bad_options_and_faults_hold_nothing() {
    let (service, server) = server();
    let fault = server.mount(&request(&[("kubernetes.io/secret/k", "%")])).await.err().unwrap();
    assert_eq!(fault.kind, FaultKind::InvalidArgument);
    service.inner.lock().acquire_fault = Some(Fault::new(FaultKind::Unavailable, "mount", "x", "no server"));
    assert_eq!(server.mount(&lhcb()).await.err().unwrap().kind, FaultKind::Unavailable);
    assert!(held(&service).is_empty() && server.unconfirmed.lock().unwrap().is_empty());
}
