//! The SnapshotMetadata service: which blocks a snapshot holds, as streams of bounded messages.
//!
//! A stream asks the backend for one message's worth at a time and never holds more, however large the volume is; a client that
//! reads slowly slows it down, one that goes away ends it.

use std::future::Future;
use std::sync::Arc;

use proto::csi::v1 as csi;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use volume::{Extents, Fault, FaultKind, SnapshotExtents};

use crate::controller::{abilities, signed, unimplemented};
use crate::status::invalid;
use crate::{Service, request, status};

/// Extents in one message unless the caller wants fewer: well below gRPC's usual limit of 4 MiB.
const MESSAGE_EXTENTS: usize = 4096;

/// Messages that wait for a slow client.
const WAITING_MESSAGES: usize = 2;

/// The service of one driver.
#[derive(Clone)]
pub(crate) struct SnapshotMetadata(pub(crate) Service);

impl SnapshotMetadata {
    fn ability(&self) -> Result<Arc<dyn SnapshotExtents>, Status> {
        let ability = abilities(&self.0)?.extents;
        ability.ok_or_else(|| unimplemented(&self.0, "metadata of snapshots"))
    }
}

type Messages<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl csi::snapshot_metadata_server::SnapshotMetadata for SnapshotMetadata {
    type GetMetadataAllocatedStream = Messages<csi::GetMetadataAllocatedResponse>;
    type GetMetadataDeltaStream = Messages<csi::GetMetadataDeltaResponse>;

    async fn get_metadata_allocated(
        &self,
        request: Request<csi::GetMetadataAllocatedRequest>,
    ) -> Result<Response<Self::GetMetadataAllocatedStream>, Status> {
        let asked = request.into_inner();
        let ability = self.ability()?;
        let snapshot = request::required("snapshot_id", &asked.snapshot_id)?.to_owned();
        let secrets = Arc::new(request::secrets(asked.secrets)?);
        let (from, limit) = bounds(asked.starting_offset, asked.max_results)?;
        let read = move |from| {
            let (ability, snapshot, secrets) = (ability.clone(), snapshot.clone(), secrets.clone());
            async move { ability.allocated(&snapshot, from, limit, &secrets).await }
        };
        let message = |part: Extents| csi::GetMetadataAllocatedResponse {
            block_metadata_type: csi::BlockMetadataType::VariableLength.into(),
            volume_capacity_bytes: signed(part.size),
            block_metadata: blocks(&part),
        };
        stream(from, read, message).await.map(Response::new)
    }

    async fn get_metadata_delta(
        &self,
        request: Request<csi::GetMetadataDeltaRequest>,
    ) -> Result<Response<Self::GetMetadataDeltaStream>, Status> {
        let asked = request.into_inner();
        let ability = self.ability()?;
        let base = request::required("base_snapshot_id", &asked.base_snapshot_id)?.to_owned();
        let target = request::required("target_snapshot_id", &asked.target_snapshot_id)?.to_owned();
        let secrets = Arc::new(request::secrets(asked.secrets)?);
        let (from, limit) = bounds(asked.starting_offset, asked.max_results)?;
        let read = move |from| {
            let (ability, secrets) = (ability.clone(), secrets.clone());
            let (base, target) = (base.clone(), target.clone());
            async move { ability.changed(&base, &target, from, limit, &secrets).await }
        };
        let message = |part: Extents| csi::GetMetadataDeltaResponse {
            block_metadata_type: csi::BlockMetadataType::VariableLength.into(),
            volume_capacity_bytes: signed(part.size),
            block_metadata: blocks(&part),
        };
        stream(from, read, message).await.map(Response::new)
    }
}

/// Where to begin, and how many extents one message may have.
fn bounds(starting_offset: i64, max_results: i32) -> Result<(u64, usize), Status> {
    let from = u64::try_from(starting_offset).map_err(|_| invalid("starting_offset", "is negative"))?;
    match usize::try_from(max_results) {
        Err(_) => Err(invalid("max_results", "is negative")),
        Ok(0) => Ok((from, MESSAGE_EXTENTS)),
        Ok(limit) => Ok((from, limit.min(MESSAGE_EXTENTS))),
    }
}

fn blocks(part: &Extents) -> Vec<csi::BlockMetadata> {
    let block = |extent: &volume::Extent| csi::BlockMetadata {
        byte_offset: signed(extent.offset),
        size_bytes: signed(extent.length),
    };
    part.extents.iter().map(block).collect()
}

/// Reads part after part until one is empty. The first one is read before the answer begins, so that a snapshot that is not
/// there is the call's own status; it is sent even if it is empty, because it tells the volume's size.
async fn stream<M, R, F>(
    from: u64,
    read: R,
    message: impl Fn(Extents) -> M + Send + 'static,
) -> Result<Messages<M>, Status>
where
    M: Send + 'static,
    R: Fn(u64) -> F + Send + 'static,
    F: Future<Output = Result<Extents, Fault>> + Send,
{
    let first = read(from).await.map_err(|fault| status::of(&fault))?;
    let (sender, receiver) = mpsc::channel(WAITING_MESSAGES);
    tokio::spawn(async move {
        let mut part = first;
        let mut at = from;
        loop {
            let end = part.extents.last().map(|last| last.offset.saturating_add(last.length));
            if sender.send(Ok(message(part))).await.is_err() {
                return;
            }
            let Some(end) = end else { return };
            if end <= at {
                let detail = format!("the backend went back from {at} to {end}");
                let fault = Fault::new(FaultKind::Internal, "read the extents of", "a snapshot", detail);
                let _ = sender.send(Err(status::of(&fault))).await;
                return;
            }
            at = end;
            let next = tokio::select! {
                next = read(at) => next,
                () = sender.closed() => return,
            };
            match next {
                // The last part ended at the end of the volume.
                Err(fault) if fault.kind == FaultKind::OutOfRange => return,
                Err(fault) => {
                    let _ = sender.send(Err(status::of(&fault))).await;
                    return;
                }
                Ok(next) if next.extents.is_empty() => return,
                Ok(next) => part = next,
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

#[cfg(test)]
mod tests;
