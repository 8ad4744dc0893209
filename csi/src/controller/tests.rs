use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::csi::v1::controller_server::Controller as _;
use proto::csi::v1::controller_service_capability::Type as CapabilityType;
use proto::csi::v1::controller_service_capability::rpc::Type as Capability;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use tonic::Code;
use volume::fake::FakeService;
use volume::{
    Driver, Fault, Form, NewVolume, Page, PageRequest, Provision, RefId, Secrets, Severity, StoredVolume,
    Trouble,
};

use super::*;
use crate::CsiConfig;

/// Keeps what it is asked to make; ids are `v-` and the name.
#[derive(Default)]
struct Shelf(Mutex<Vec<(NewVolume, StoredVolume)>>);

fn fault(kind: FaultKind) -> Fault {
    Fault::new(kind, "look for", "it", "so the fake says")
}

#[async_trait]
impl Provision for Shelf {
    async fn create(&self, wanted: &NewVolume, _secrets: &Secrets) -> Result<StoredVolume, Fault> {
        let stored = StoredVolume {
            id: format!("v-{}", wanted.name),
            size: wanted.size.required.unwrap_or(7),
            context: wanted.parameters.clone(),
            source: wanted.source.clone(),
            places: wanted.places.clone(),
            nodes: Vec::new(),
            trouble: None,
        };
        self.0.lock().push((wanted.clone(), stored.clone()));
        Ok(stored)
    }

    async fn delete(&self, id: &str, _secrets: &Secrets) -> Result<(), Fault> {
        self.0.lock().retain(|(_, stored)| stored.id != id);
        Ok(())
    }

    async fn volume(&self, id: &str) -> Result<StoredVolume, Fault> {
        let shelf = self.0.lock();
        let found = shelf.iter().find(|(_, stored)| stored.id == id);
        found.map(|(_, stored)| stored.clone()).ok_or_else(|| fault(FaultKind::NotFound))
    }

    async fn volumes(&self, page: &PageRequest) -> Result<Page<StoredVolume>, Fault> {
        let start: usize = match page.start.as_deref().map(str::parse) {
            None => 0,
            Some(Ok(at)) => at,
            Some(Err(_)) => return Err(fault(FaultKind::InvalidArgument)),
        };
        let shelf = self.0.lock();
        let limit = if page.limit == 0 { usize::MAX } else { page.limit };
        let entries: Vec<_> =
            shelf.iter().skip(start).take(limit).map(|(_, stored)| stored.clone()).collect();
        let end = start + entries.len();
        Ok(Page { entries, next: (end < shelf.len()).then(|| end.to_string()) })
    }

    async fn check(&self, _id: &str, forms: &[Form], _parameters: &OptionMap) -> Result<(), Fault> {
        let xfs = |form: &Form| matches!(form, Form::Filesystem { fs_type: Some(fs), .. } if fs == "xfs");
        if forms.iter().any(xfs) { Err(fault(FaultKind::InvalidArgument)) } else { Ok(()) }
    }
}

struct Scene {
    shelf: Arc<Shelf>,
    volumes: Arc<FakeService>,
    controller: Controller,
}

fn scene() -> Scene {
    let shelf = Arc::new(Shelf::default());
    let volumes = Arc::new(FakeService::default());
    volumes.inner.lock().abilities = Some(Abilities {
        provision: shelf.clone(),
        clone: false,
        publish: None,
        capacity: None,
        grow: None,
        modify: None,
        snapshots: None,
        group_snapshots: None,
        extents: None,
    });
    let config = CsiConfig::new(Driver::Cvmfs, "node-1".parse().unwrap());
    let controller = Controller(Service { volumes: volumes.clone(), config: Arc::new(config) });
    Scene { shelf, volumes, controller }
}

fn mount(mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

/// A healthy mount of the CSI volume `scope`.
fn mount_of(scope: &str) -> volume::MountStatus {
    volume::MountStatus {
        key: volume::MountKey::try_from("cms.cern.ch".to_owned()).unwrap(),
        backend: Driver::Cvmfs,
        state: volume::MountState::Live,
        mountpoint: "/m".into(),
        worker_pid: None,
        references: vec![RefId { frontend: volume::Frontend::Csi, scope: scope.into(), id: "/t".into() }],
        in_use_without_reference: false,
        last_error: None,
        revision: None,
        health: "healthy".into(),
        restarts: 0,
        details: Default::default(),
    }
}

fn create(name: &str) -> csi::CreateVolumeRequest {
    let parameters = [("repository", "cms.cern.ch"), ("csi.storage.k8s.io/pvc/name", "claim")];
    csi::CreateVolumeRequest {
        name: name.to_owned(),
        volume_capabilities: vec![mount(Mode::SingleNodeWriter)],
        parameters: parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Default::default()
    }
}

async fn refused<T: std::fmt::Debug>(answer: impl Future<Output = Answer<T>>) -> (Code, String) {
    let status = answer.await.expect_err("is refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test]
async fn what_sidecars_add_to_parameters_is_no_option() {
    let scene = scene();
    let answer = scene.controller.create_volume(Request::new(create("a"))).await.unwrap().into_inner();
    let volume = answer.volume.unwrap();
    assert_eq!(volume.volume_context, HashMap::from([("repository".into(), "cms.cern.ch".into())]));
    assert_eq!(scene.shelf.0.lock()[0].0.parameters.len(), 1);
}

#[tokio::test]
async fn preferred_places_come_first_and_once() {
    let scene = scene();
    let place = |zone: &str| csi::Topology { segments: HashMap::from([("zone".into(), zone.into())]) };
    let mut asked = create("a");
    asked.accessibility_requirements = Some(csi::TopologyRequirement {
        requisite: vec![place("a"), place("b"), place("c")],
        preferred: vec![place("b"), place("a")],
    });
    scene.controller.create_volume(Request::new(asked)).await.unwrap();
    let places: Vec<_> = scene.shelf.0.lock()[0].0.places.iter().map(|p| p["zone"].clone()).collect();
    assert_eq!(places, ["b", "a", "c"]);
}

#[tokio::test]
async fn every_missing_field_is_named() {
    let controller = scene().controller;
    let without = |change: fn(&mut csi::CreateVolumeRequest)| {
        let mut asked = create("a");
        change(&mut asked);
        refused(controller.create_volume(Request::new(asked)))
    };
    let (code, text) = without(|asked| asked.name.clear()).await;
    assert_eq!((code, text.as_str()), (Code::InvalidArgument, "name: is missing"));
    let (_, text) = without(|asked| asked.volume_capabilities.clear()).await;
    assert_eq!(text, "volume_capabilities: are missing");
    let (_, text) = without(|asked| asked.volume_content_source = Some(Default::default())).await;
    assert!(text.starts_with("volume_content_source: "), "{text}");
    let (code, text) = without(|asked| {
        asked.mutable_parameters.insert("iops".into(), "5".into());
    })
    .await;
    assert_eq!(
        (code, text.as_str()),
        (Code::InvalidArgument, "mutable_parameters: this driver's volumes have none")
    );
    let nothing = Request::new(csi::DeleteVolumeRequest::default());
    assert_eq!(refused(controller.delete_volume(nothing)).await.1, "volume_id: is missing");
}

#[tokio::test]
async fn what_the_backend_cannot_is_unimplemented_and_not_offered() {
    let scene = scene();
    let expand = Request::new(csi::ControllerExpandVolumeRequest::default());
    assert_eq!(refused(scene.controller.controller_expand_volume(expand)).await.0, Code::Unimplemented);
    let snapshot = Request::new(csi::CreateSnapshotRequest::default());
    assert_eq!(refused(scene.controller.create_snapshot(snapshot)).await.0, Code::Unimplemented);
    let capabilities = async || {
        let answer =
            scene.controller.controller_get_capabilities(Request::new(Default::default())).await.unwrap();
        let each = answer.into_inner().capabilities.into_iter().map(|one| match one.r#type {
            Some(CapabilityType::Rpc(rpc)) => rpc.r#type(),
            None => Capability::Unknown,
        });
        each.collect::<Vec<_>>()
    };
    let offered = capabilities().await;
    assert!(
        offered.contains(&Capability::CreateDeleteVolume) && offered.contains(&Capability::ListVolumeHealth)
    );
    assert!(!offered.contains(&Capability::ExpandVolume) && !offered.contains(&Capability::Unknown));
    scene.volumes.inner.lock().abilities = None;
    assert_eq!(capabilities().await, []);
    let create = scene.controller.create_volume(Request::new(create("a")));
    assert_eq!(refused(create).await.0, Code::Unimplemented);
}

#[tokio::test]
async fn lists_come_in_parts_and_an_unknown_token_is_aborted() {
    let controller = scene().controller;
    for name in ["a", "b", "c"] {
        controller.create_volume(Request::new(create(name))).await.unwrap();
    }
    let list = |max_entries, token: &str| {
        let starting_token = token.to_owned();
        controller.list_volumes(Request::new(csi::ListVolumesRequest { max_entries, starting_token }))
    };
    let first = list(2, "").await.unwrap().into_inner();
    assert_eq!(first.entries.len(), 2);
    let rest = list(0, &first.next_token).await.unwrap().into_inner();
    assert_eq!((rest.entries.len(), rest.next_token.as_str()), (1, ""));
    assert_eq!(refused(list(0, "nonsense")).await.0, Code::Aborted);
    assert_eq!(refused(list(-1, "")).await.0, Code::InvalidArgument);
}

#[tokio::test]
async fn validation_says_no_without_an_error() {
    let controller = scene().controller;
    controller.create_volume(Request::new(create("a"))).await.unwrap();
    let ask = async |id: &str, mode, fs_type: &str, repository: &str| {
        let mut capability = mount(mode);
        if let Some(AccessType::Mount(mount)) = &mut capability.access_type {
            mount.fs_type = fs_type.to_owned();
        }
        let asked = csi::ValidateVolumeCapabilitiesRequest {
            volume_id: id.to_owned(),
            volume_capabilities: vec![capability],
            volume_context: HashMap::from([
                ("repository".to_owned(), repository.to_owned()),
                ("storage.kubernetes.io/csiProvisionerIdentity".to_owned(), "x".to_owned()),
            ]),
            ..Default::default()
        };
        let answer = controller.validate_volume_capabilities(Request::new(asked)).await?.into_inner();
        assert_eq!(answer.confirmed.is_none(), !answer.message.is_empty());
        Ok::<_, Status>(answer.message)
    };
    assert_eq!(ask("v-a", Mode::SingleNodeWriter, "", "cms.cern.ch").await.unwrap(), "");
    let multi = ask("v-a", Mode::MultiNodeMultiWriter, "", "cms.cern.ch").await.unwrap();
    assert!(multi.contains("read-only"), "{multi}");
    assert!(!ask("v-a", Mode::SingleNodeWriter, "xfs", "cms.cern.ch").await.unwrap().is_empty());
    assert!(ask("v-a", Mode::SingleNodeWriter, "", "lhcb.cern.ch").await.unwrap().contains("volume_context"));
    assert_eq!(ask("v-b", Mode::SingleNodeWriter, "", "").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn trouble_of_a_volume_is_its_health() {
    let scene = scene();
    scene.controller.create_volume(Request::new(create("a"))).await.unwrap();
    let health = async || {
        let asked = csi::ControllerGetVolumeHealthRequest { volume_id: "v-a".into(), ..Default::default() };
        let answer = scene.controller.controller_get_volume_health(Request::new(asked)).await.unwrap();
        answer.into_inner().volume_health.unwrap().health_statuses
    };
    assert_eq!(health().await, []);
    let trouble = Trouble { severity: Severity::DataLoss, detail: "two disks died".into() };
    scene.shelf.0.lock()[0].1.trouble = Some(trouble);
    let statuses = health().await;
    assert_eq!(statuses[0].status(), csi::VolumeHealthErrorType::DataLoss);
    assert_eq!(statuses[0].message, "two disks died");
    let all = scene
        .controller
        .controller_list_volume_health(Request::new(Default::default()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(all.entries[0].health_statuses, statuses);
}

#[tokio::test]
async fn a_mounted_volume_is_published_on_this_node() {
    let scene = scene();
    scene.controller.create_volume(Request::new(create("a"))).await.unwrap();
    let nodes = async || {
        let asked = csi::ControllerGetVolumeRequest { volume_id: "v-a".into() };
        let answer = scene.controller.controller_get_volume(Request::new(asked)).await.unwrap();
        answer.into_inner().status.unwrap().published_node_ids
    };
    assert_eq!(nodes().await, Vec::<String>::new());
    scene.volumes.inner.lock().mounts = vec![mount_of("v-b")];
    assert_eq!(nodes().await, Vec::<String>::new());
    scene.volumes.inner.lock().mounts = vec![mount_of("v-b"), mount_of("v-a")];
    assert_eq!(nodes().await, ["node-1"]);
}
