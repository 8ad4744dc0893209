//! A reference model drives the registry through everything that engines, people, faults and crashes do, in any order.
//!
//! The model knows who holds what. Where an operation was cut off (the daemon died, the caller hung up) both outcomes
//! are allowed, and the registry says which it was. After every step: the references are the model's, no served mount
//! was taken down that is referred to or seen, no key is stuck. At the end all is given back and nothing may be left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use volume::{Driver, Fault, FaultKind, Frontend, MountKey, RefId, VolumeService};

use crate::Registry;
use crate::core::OPERATIONS;
use crate::fake::{World, key};

mod calls;
mod cases;
mod cut_off;
mod provisioned;
mod targets;

use self::calls::{Call, Step, step};

const DRIVER: Driver = Driver::Cvmfs;
/// Volumes and their repositories: two names for one of them.
const VOLUMES: [(&str, &str); 3] = [("v0", "r0"), ("v1", "r1"), ("v2", "r0")];
const TARGETS: [(&str, &str); 3] = [("/pods/0", "r0"), ("/pods/1", "r0"), ("/pods/2", "r1")];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("REGISTRY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_registry_is_what_the_model_says(steps in prop::collection::vec(step(), 1..40)) {
        play(&steps);
    }
}

/// Plays a story and checks every step of it.
fn play(steps: &[Step]) {
    let mut run = Run::new();
    for step in steps {
        run.step(step);
        run.check(step);
    }
    run.finish();
}

struct Run {
    dir: TempDir,
    world: Arc<World>,
    /// Before the runtime: its tasks hold the registry's inside.
    registry: Option<Arc<Registry>>,
    runtime: Option<Runtime>,
    boot: u32,
    volumes: BTreeSet<usize>,
    held: BTreeMap<RefId, MountKey>,
    provisioned: BTreeSet<usize>,
    /// Seconds that sweeps have gone ahead of the clock.
    ahead: u64,
}

impl Run {
    fn new() -> Run {
        // In memory if there is such a place: the journal's fsyncs are not what is tested here.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let mut run = Run {
            dir,
            world: World::new(),
            registry: None,
            runtime: None,
            boot: 0,
            volumes: BTreeSet::new(),
            held: BTreeMap::new(),
            provisioned: BTreeSet::new(),
            ahead: 0,
        };
        run.start();
        run.together(&[Call::Define(0), Call::Define(1)]);
        run
    }

    /// Starts the daemon; `false` if it died on the way.
    fn start(&mut self) -> bool {
        self.kill();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let boot = self.boot.to_string();
        let (world, dir) = (self.world.clone(), self.dir.path().to_owned());
        let opened = runtime.block_on(async {
            let open = async {
                let registry = world.open_boot(&dir, &boot, |_| ()).await.unwrap();
                registry.ready().await;
                registry
            };
            tokio::select! {
                registry = open => Some(registry),
                () = death(&world) => None,
            }
        });
        (self.registry, self.runtime) = (opened, Some(runtime));
        self.registry.is_some()
    }

    fn kill(&mut self) {
        drop(self.registry.take());
        // Its tasks stop where they are; the journal writes what it was given, as the kernel would.
        drop(self.runtime.take());
    }

    fn block_on<T>(&self, work: impl AsyncFnOnce(Arc<Registry>) -> T) -> T {
        let registry = self.registry.clone().unwrap();
        self.runtime.as_ref().unwrap().block_on(work(registry))
    }

    /// The references that these calls may end.
    fn protect(&self, calls: &[Call], but: impl Fn(&RefId, &MountKey) -> bool) {
        let touched: BTreeSet<_> = calls.iter().filter_map(|call| Some(call.reference()?.0)).collect();
        let removed = |id: &RefId| {
            calls.iter().any(|call| matches!(call, Call::Remove(v) if VOLUMES[*v].0 == id.scope))
        };
        let kept =
            self.held.iter().filter(|(id, key)| !touched.contains(id) && !removed(id) && !but(id, key));
        self.world.facts.lock().referred = kept.map(|(_, key)| key.clone()).collect();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Call(call) => self.together(&[*call]),
            Step::Together(calls) => self.together(calls),
            Step::DiesDuring(call, at) => self.dies_during(*call, *at),
            Step::HangsUpDuring(call, at) => self.hangs_up_during(*call, *at),
            Step::DiesDuringStart(at) => {
                self.protect(&[], |_, _| false);
                self.world.facts.lock().dies_in = Some(*at);
                let lived = self.start();
                self.world.facts.lock().dies_in = None;
                if !lived {
                    assert!(self.start());
                }
            }
            Step::Restart => {
                self.protect(&[], |_, _| false);
                assert!(self.start());
            }
            Step::Reboot => {
                {
                    let mut facts = self.world.facts.lock();
                    facts.mounts.clear();
                    facts.served.clear();
                    facts.containers.clear();
                    facts.busy.clear();
                }
                self.boot += 1;
                self.held.clear();
                self.protect(&[], |_, _| false);
                assert!(self.start());
            }
            Step::LoseJournal => {
                self.kill();
                std::fs::remove_dir_all(self.dir.path().join("state")).unwrap();
                self.volumes.clear();
                self.held.clear();
                self.provisioned.clear();
                self.protect(&[], |_, _| false);
                assert!(self.start());
            }
            Step::Reconfigure => {
                let mut facts = self.world.facts.lock();
                facts.key_suffix = if facts.key_suffix.is_empty() { "+new".into() } else { String::new() };
            }
            Step::Run(number, v) => {
                self.world.start_container(*number, &self.resolved(&key(VOLUMES[*v].1)));
            }
            Step::Stop(number) => self.world.stop_container(*number),
            Step::KillWorker(v) => self.world.kill(&self.resolved(&key(VOLUMES[*v].1))),
            Step::AttachFails(yes) => {
                self.world.facts.lock().attach_fault = yes.then_some(FaultKind::Unavailable);
            }
            Step::DetachFails(yes) => {
                self.world.facts.lock().detach_fault = yes.then_some(FaultKind::Internal);
            }
            Step::BindFails(yes) => self.world.facts.lock().bind_fault = yes.then_some(FaultKind::Internal),
            Step::Open(v) => {
                let key = self.resolved(&key(VOLUMES[*v].1));
                let mut facts = self.world.facts.lock();
                let device = facts.served.get(&key).copied();
                facts.busy.extend(device);
            }
            Step::CloseAll => self.world.facts.lock().busy.clear(),
            Step::Sweep(seconds) => self.sweep(*seconds),
            Step::Look => self.block_on(async |registry| registry.core().look_at_all().await),
        }
    }

    fn together(&mut self, calls: &[Call]) {
        self.protect(calls, |_, _| false);
        let results = self.block_on(async |registry| {
            let mut waiting: Vec<_> = calls.iter().map(|call| Box::pin(call.perform(&registry))).collect();
            let mut results: Vec<_> = calls.iter().map(|_| None).collect();
            std::future::poll_fn(|context| {
                for (call, result) in waiting.iter_mut().zip(&mut results) {
                    if result.is_none()
                        && let std::task::Poll::Ready(answer) = call.as_mut().poll(context)
                    {
                        *result = Some(answer);
                    }
                }
                match results.iter().all(Option::is_some) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                }
            })
            .await;
            results
        });
        for (call, result) in calls.iter().zip(results) {
            self.account(*call, result.unwrap(), calls.len() == 1);
        }
    }

    /// What a finished call means; `alone` if the world was not changed since by others.
    fn account(&mut self, call: Call, result: Result<Option<PathBuf>, Fault>, alone: bool) {
        match (call, result) {
            (Call::Define(v), result) => {
                result.unwrap();
                self.volumes.insert(v);
            }
            (Call::Provision(_) | Call::Deprovision(_), result) => {
                self.account_provision(call, result.map(drop));
            }
            (Call::Remove(v), Ok(_)) => {
                self.volumes.remove(&v);
                self.held.retain(|id, _| id.scope != VOLUMES[v].0);
            }
            (Call::Remove(v), Err(fault)) => {
                assert_eq!(fault.kind == FaultKind::NotFound, !self.volumes.contains(&v), "{fault}");
                if fault.kind == FaultKind::InUse {
                    let facts = self.world.facts.lock();
                    let binds = facts.mounts.len() > facts.served.len();
                    assert!(!facts.containers.is_empty() || binds, "{fault}");
                }
            }
            (Call::Mount(..) | Call::Publish(..), Ok(path)) => {
                let (reference, key) = call.reference().unwrap();
                let key = self.acquired_key(call, &reference, self.resolved(&key));
                if alone {
                    let facts = self.world.facts.lock();
                    let shown = facts.mounts.get(&path.unwrap()).map(|mounted| mounted.device);
                    assert_eq!(shown, facts.served.get(&key).copied());
                    assert!(shown.is_some(), "{key} was acquired but is not there");
                }
                self.held.insert(reference, key);
            }
            (Call::Mount(v, ..), Err(fault)) => {
                assert_eq!(fault.kind == FaultKind::NotFound, !self.volumes.contains(&v), "{fault}");
                self.ask(&call.reference().unwrap());
            }
            // Busy, or a fault: what was held before may or may not be held.
            (Call::Publish(..) | Call::Unmount(..) | Call::Unpublish(..), Err(fault)) => {
                if alone {
                    self.check_refusal(call, &fault);
                }
                self.ask(&call.reference().unwrap());
            }
            (Call::Unmount(..) | Call::Unpublish(..), Ok(_)) => {
                self.held.remove(&call.reference().unwrap().0);
            }
        }
    }

    /// What was held may be lost, or be of another mount by now, but nothing is won.
    fn ask(&mut self, (reference, _): &(RefId, MountKey)) {
        if self.held.remove(reference).is_some() {
            let real = self.real().remove(reference);
            self.held.extend(real.map(|key| (reference.clone(), key)));
        }
    }

    fn real(&self) -> BTreeMap<RefId, MountKey> {
        let registry = self.registry.as_ref().unwrap();
        let tables = registry.core().tables.lock();
        let settled = tables.references().filter(|(id, _)| tables.reference(id).unwrap().row.settled);
        settled.map(|(id, key)| (id.clone(), key.clone())).collect()
    }

    /// After a start or a sweep without faults nothing is half done.
    fn assert_settled(&self) {
        let registry = self.registry.as_ref().unwrap();
        if self.world.facts.lock().bind_fault.is_none() {
            let all = registry.core().tables.lock().references().count();
            assert_eq!(all, self.real().len());
        }
    }

    fn sweep(&mut self, seconds: u64) {
        self.ahead += seconds;
        let seen: BTreeSet<MountKey> = {
            let facts = self.world.facts.lock();
            let seen = |device: &host::DeviceId| facts.containers.values().any(|seen| seen == device);
            facts.served.iter().filter(|(_, device)| seen(device)).map(|(key, _)| key.clone()).collect()
        };
        let forgettable = |id: &RefId, key: &MountKey| id.frontend == Frontend::Docker && !seen.contains(key);
        self.protect(&[], forgettable);
        let now = Instant::now() + Duration::from_secs(self.ahead);
        self.block_on(async |registry| registry.core().sweep(now).await);
        self.assert_settled();
        let real = self.real();
        self.held.retain(|id, key| real.contains_key(id) || !forgettable(id, key));
    }

    fn check(&self, step: &Step) {
        self.world.assert_clean();
        self.block_on(async |registry| quiet(&registry).await);
        assert_eq!(self.real(), self.held, "after {step:?}");
        self.check_targets();
        self.check_provisioned();
    }

    /// All is given back: nothing may be left, in the registry or in the world.
    fn finish(mut self) {
        {
            let mut facts = self.world.facts.lock();
            (facts.attach_fault, facts.detach_fault, facts.bind_fault) = (None, None, None);
            facts.containers.clear();
            facts.busy.clear();
            facts.referred.clear();
        }
        let mut held: Vec<RefId> = self.held.keys().cloned().collect();
        // Kubelet unpublishes every target that it finds, also when our journal was lost.
        held.extend((0..TARGETS.len()).filter_map(|t| Some(Call::Unpublish(t, false).reference()?.0)));
        self.block_on(async |registry| {
            for reference in &held {
                registry.release(reference).await.unwrap();
            }
        });
        self.held.clear();
        self.sweep(1_000_000);
        self.world.assert_clean();
        let left = self.block_on(async |registry| registry.mounts().await);
        assert_eq!(left, []);
        let facts = self.world.facts.lock();
        assert!(facts.mounts.is_empty(), "{:?}", facts.mounts);
        assert!(facts.served.is_empty(), "{:?}", facts.served);
    }
}

async fn death(world: &World) {
    loop {
        world.stopped.notified().await;
        if world.facts.lock().dies_in == Some(0) {
            return;
        }
    }
}

/// Waits until no operation is under way; a key that is stuck fails here.
async fn quiet(registry: &Registry) {
    let core = registry.core();
    let end = Instant::now() + Duration::from_secs(20);
    let busy = || {
        core.operations.available_permits() != OPERATIONS as usize || core.lanes.held() + core.keys.held() > 0
    };
    while busy() {
        assert!(Instant::now() < end, "an operation never ends");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
