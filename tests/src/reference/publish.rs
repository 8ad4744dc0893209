//! Volumes opened to the only node.

use async_trait::async_trait;
use volume::{Fault, FaultKind, OptionMap, Publish, Secrets};

use super::state::{Publication, State};
use super::{Inner, Reference, not_found};

/// What a node hears beside the volume's context: where the volume is attached.
pub(super) const ATTACHED: &str = "attached";

#[async_trait]
impl Publish for Reference {
    async fn publish(
        &self,
        id: &str,
        node: &str,
        read_only: bool,
        single_node: bool,
        secrets: &Secrets,
    ) -> Result<OptionMap, Fault> {
        let (id, node) = (id.to_owned(), node.to_owned());
        let wanted = Publication { read_only, single_node };
        let known = self.admit("publish", &id, secrets);
        let publish = move |inner: &Inner, state: &mut State| {
            let fault = |kind, detail: &str| Err(Fault::new(kind, "publish", &id, detail));
            let taken = state.volumes.values().filter(|one| one.published.contains_key(&node)).count();
            let volume = state.volume_mut("publish", &id)?;
            if node != inner.config.node {
                return Err(not_found("publish to", "node", &node));
            }
            known?;
            match volume.published.get(&node) {
                Some(there) if *there == wanted => {}
                Some(_) => return fault(FaultKind::AlreadyExists, "it is published there in another way"),
                None if taken >= inner.config.max_volumes => {
                    return fault(FaultKind::ResourceExhausted, "the node has as many volumes as it can");
                }
                None => {
                    volume.published.insert(node.clone(), wanted);
                }
            }
            Ok(OptionMap::from([(ATTACHED.to_owned(), node)]))
        };
        self.change(publish).await
    }

    async fn unpublish(&self, id: &str, node: Option<&str>, secrets: &Secrets) -> Result<(), Fault> {
        self.admit("unpublish", id, secrets)?;
        let (id, node) = (id.to_owned(), node.map(str::to_owned));
        self.change(move |_, state| {
            if let Some(volume) = state.volumes.get_mut(&id) {
                volume.published.retain(|published, _| node.as_ref().is_some_and(|node| node != published));
            }
            Ok(())
        })
        .await
    }
}
