//! Calls that are cut off half-way: the daemon dies, or the caller hangs up.

use super::calls::Call;
use super::{DRIVER, Run, VOLUMES, death, quiet};

impl Run {
    pub(super) fn dies_during(&mut self, call: Call, at: usize) {
        self.protect(&[call], |_, _| false);
        self.world.facts.lock().dies_in = Some(at);
        let world = self.world.clone();
        let result = self.block_on(async |registry| {
            tokio::select! {
                result = call.perform(&registry) => Some(result),
                () = death(&world) => None,
            }
        });
        self.world.facts.lock().dies_in = None;
        match result {
            Some(result) => self.account(call, result, false),
            None => {
                assert!(self.start());
                self.assert_settled();
                self.cut_off(call);
            }
        }
    }

    /// The call was cut off: both outcomes are allowed.
    fn cut_off(&mut self, call: Call) {
        let real = self.real();
        match call {
            Call::Define(v) | Call::Remove(v) => {
                let registry = self.registry.as_ref().unwrap();
                let name = VOLUMES[v].0.parse().unwrap();
                match registry.core().get(DRIVER, &name) {
                    Ok(_) => self.volumes.insert(v),
                    Err(_) => self.volumes.remove(&v),
                };
                if matches!(call, Call::Remove(_)) {
                    self.held.retain(|id, _| id.scope != VOLUMES[v].0 || real.contains_key(id));
                }
            }
            Call::Provision(v) | Call::Deprovision(v) => self.ask_provision(v),
            Call::Mount(..) | Call::Unmount(..) | Call::Publish(..) | Call::Unpublish(..) => {
                let (reference, _) = call.reference().unwrap();
                match real.get(&reference) {
                    Some(key) => self.held.insert(reference, key.clone()),
                    None => self.held.remove(&reference),
                };
            }
        }
    }

    pub(super) fn hangs_up_during(&mut self, call: Call, at: usize) {
        self.protect(&[call], |_, _| false);
        self.world.facts.lock().tells_in = Some(at);
        let world = self.world.clone();
        let result = self.block_on(async |registry| {
            let result = tokio::select! {
                biased;
                () = world.told.notified() => None,
                result = call.perform(&registry) => Some(result),
            };
            quiet(&registry).await;
            result
        });
        self.world.facts.lock().tells_in = None;
        match (result, call) {
            (Some(result), _) => self.account(call, result, false),
            // An acquire that nobody heard of must not leave a new reference.
            (None, Call::Mount(..) | Call::Publish(..)) => self.ask(&call.reference().unwrap()),
            (None, _) => self.cut_off(call),
        }
    }
}
