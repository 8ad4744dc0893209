//! Provisioned volumes: they outlive everything but the journal, and no other list shows them.

use std::collections::BTreeSet;

use volume::{Fault, FaultKind, PageRequest, VolumeService};

use super::calls::Call;
use super::{DRIVER, Run, VOLUMES};

impl Run {
    /// What a finished call means.
    pub(super) fn account_provision(&mut self, call: Call, result: Result<(), Fault>) {
        match (call, result) {
            (Call::Provision(v), Ok(())) => drop(self.provisioned.insert(v)),
            (Call::Deprovision(v), Ok(())) => drop(self.provisioned.remove(&v)),
            (_, Ok(())) => {}
            (_, Err(fault)) => assert_eq!(fault.kind, FaultKind::Busy, "{fault}"),
        }
    }

    /// A call about it was cut off: both outcomes are allowed.
    pub(super) fn ask_provision(&mut self, v: usize) {
        match self.listed().contains(VOLUMES[v].0) {
            true => self.provisioned.insert(v),
            false => self.provisioned.remove(&v),
        };
    }

    fn listed(&self) -> BTreeSet<String> {
        let provision = self.registry.as_ref().unwrap().abilities(DRIVER).unwrap().provision;
        let page = self.block_on(async |_| provision.volumes(&PageRequest::default()).await.unwrap());
        assert_eq!(page.next, None);
        page.entries.into_iter().map(|volume| volume.id).collect()
    }

    pub(super) fn check_provisioned(&self) {
        let wanted: BTreeSet<_> = self.provisioned.iter().map(|v| VOLUMES[*v].0.to_owned()).collect();
        assert_eq!(self.listed(), wanted);
    }
}
