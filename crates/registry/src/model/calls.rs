//! What can happen, and how often.

use std::path::PathBuf;

use proptest::prelude::*;
use volume::{
    BindTarget, Caller, Fault, Frontend, MountKey, OptionMap, RefId, Sharing, Target, VolumeName,
    VolumeService,
};

use super::{DRIVER, TARGETS, VOLUMES};
use crate::Registry;
use crate::fake::{key, spec};

/// A request of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Define(usize),
    Remove(usize),
    /// Volume, id, and whether it is Podman.
    Mount(usize, u8, bool),
    Unmount(usize, u8, bool),
    Publish(usize, Manner),
    /// With whether it is the other volume's.
    Unpublish(usize, bool),
    /// A named set of options.
    Provision(usize),
    Deprovision(usize),
}

/// How a target is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// As the only target of its volume.
    pub(super) single: bool,
    /// By another volume's reference.
    pub(super) other: bool,
}

/// One step of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Call(Call),
    /// All at once; they stand in line in this order.
    Together(Vec<Call>),
    /// The daemon dies at the so many-th step of the call, and starts again.
    DiesDuring(Call, usize),
    /// The caller hangs up at that step.
    HangsUpDuring(Call, usize),
    /// Ends, starts, and dies at that step of the start; then starts again.
    DiesDuringStart(usize),
    Restart,
    Reboot,
    /// The daemon ends, its state directory is gone, it starts.
    LoseJournal,
    /// The site's configuration changes: every spec resolves to another key from now on.
    Reconfigure,
    /// A container binds a volume's mount, if it is served.
    Run(u32, usize),
    Stop(u32),
    KillWorker(usize),
    AttachFails(bool),
    DetachFails(bool),
    BindFails(bool),
    /// A program of the host has a file open.
    Open(usize),
    CloseAll,
    /// Seconds later.
    Sweep(u64),
    Look,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => (0..3_usize).prop_map(Call::Define),
        1 => (0..3_usize).prop_map(Call::Remove),
        1 => (0..3_usize).prop_map(Call::Provision),
        1 => (0..3_usize).prop_map(Call::Deprovision),
        5 => (0..3_usize, 0..3_u8, prop::bool::weighted(0.2)).prop_map(|(v, id, p)| Call::Mount(v, id, p)),
        4 => (0..3_usize, 0..3_u8, prop::bool::weighted(0.2)).prop_map(|(v, id, p)| Call::Unmount(v, id, p)),
        4 => (0..3_usize, manner()).prop_map(|(t, manner)| Call::Publish(t, manner)),
        3 => (0..3_usize, prop::bool::weighted(0.2)).prop_map(|(t, other)| Call::Unpublish(t, other)),
    ]
}

fn manner() -> impl Strategy<Value = Manner> {
    let pair = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    pair.prop_map(|(single, other)| Manner { single, other })
}

fn use_call() -> impl Strategy<Value = Call> {
    call().prop_filter("uses only", |call| !matches!(call, Call::Define(_) | Call::Remove(_)))
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => call().prop_map(Step::Call),
        4 => prop::collection::vec(use_call(), 2..6).prop_map(Step::Together),
        5 => (call(), 1..12_usize).prop_map(|(call, at)| Step::DiesDuring(call, at)),
        4 => (call(), 1..12_usize).prop_map(|(call, at)| Step::HangsUpDuring(call, at)),
        2 => (1..8_usize).prop_map(Step::DiesDuringStart),
        2 => Just(Step::Restart),
        1 => Just(Step::Reboot),
        1 => Just(Step::LoseJournal),
        1 => Just(Step::Reconfigure),
        3 => (0..3_u32, 0..3_usize).prop_map(|(number, volume)| Step::Run(number, volume)),
        2 => (0..3_u32).prop_map(Step::Stop),
        2 => (0..3_usize).prop_map(Step::KillWorker),
        1 => any::<bool>().prop_map(Step::AttachFails),
        1 => any::<bool>().prop_map(Step::DetachFails),
        1 => any::<bool>().prop_map(Step::BindFails),
        1 => (0..3_usize).prop_map(Step::Open),
        1 => Just(Step::CloseAll),
        2 => prop_oneof![Just(0), Just(100), Just(2000)].prop_map(Step::Sweep),
        1 => Just(Step::Look),
    ]
}

impl Call {
    pub(super) fn reference(self) -> Option<(RefId, MountKey)> {
        let volume = |v: usize, id: u8, podman: bool| {
            let (name, repository) = VOLUMES[v];
            let frontend = if podman { Frontend::Podman } else { Frontend::Docker };
            let id = if podman { "constant".to_owned() } else { id.to_string() };
            (RefId { frontend, scope: name.into(), id }, key(repository))
        };
        match self {
            Call::Define(_) | Call::Remove(_) | Call::Provision(_) | Call::Deprovision(_) => None,
            Call::Mount(v, id, podman) | Call::Unmount(v, id, podman) => Some(volume(v, id, podman)),
            Call::Publish(t, Manner { other, .. }) | Call::Unpublish(t, other) => {
                let (target, repository) = TARGETS[t];
                let scope = if other { "other" } else { "volume" };
                Some((
                    RefId { frontend: Frontend::Csi, scope: scope.into(), id: target.into() },
                    key(repository),
                ))
            }
        }
    }

    pub(super) async fn perform(self, registry: &Registry) -> Result<Option<PathBuf>, Fault> {
        let name = |v: usize| VOLUMES[v].0.parse::<VolumeName>().unwrap();
        let docker = Caller::admin(Frontend::Docker);
        match self {
            Call::Define(v) => {
                let options = OptionMap::from([("repository".to_owned(), VOLUMES[v].1.to_owned())]);
                registry.define(DRIVER, &name(v), &options, &docker).await.map(|_| None)
            }
            Call::Provision(v) => {
                let wanted = volume::NewVolume {
                    name: VOLUMES[v].0.to_owned(),
                    size: volume::SizeRange::default(),
                    parameters: OptionMap::from([("repository".to_owned(), VOLUMES[v].1.to_owned())]),
                    mutable_parameters: OptionMap::new(),
                    source: None,
                    forms: vec![volume::Form::default()],
                    places: Vec::new(),
                };
                let provision = registry.abilities(DRIVER)?.provision;
                provision.create(&wanted, &volume::Secrets::new()).await.map(|_| None)
            }
            Call::Deprovision(v) => {
                let provision = registry.abilities(DRIVER)?.provision;
                provision.delete(VOLUMES[v].0, &volume::Secrets::new()).await.map(|()| None)
            }
            Call::Remove(v) => registry.remove(DRIVER, &name(v)).await.map(|()| None),
            Call::Mount(v, _, _) => {
                let (reference, _) = self.reference().unwrap();
                let acquired = registry.acquire_named(DRIVER, &name(v), &reference, &Target::Shared).await;
                acquired.map(|acquired| Some(acquired.path))
            }
            Call::Publish(t, manner) => {
                let (reference, _) = self.reference().unwrap();
                let (target, repository) = TARGETS[t];
                let caller = Caller::admin(Frontend::Csi);
                let sharing = if manner.single { Sharing::Single } else { Sharing::Shared };
                let at = Target::Bind(BindTarget { sharing, ..BindTarget::directory(target) });
                let acquired = registry.acquire(&spec(repository), &reference, &at, &caller).await;
                acquired.map(|acquired| Some(acquired.path))
            }
            Call::Unmount(..) | Call::Unpublish(..) => {
                registry.release(&self.reference().unwrap().0).await.map(|()| None)
            }
        }
    }
}
