//! A [`Fault`] as a gRPC status: one exhaustive match.
//!
//! What kubelet makes of the codes of NodeStageVolume and NodePublishVolume (measured at 1.36): after CANCELLED,
//! DEADLINE_EXCEEDED, UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED it takes the call for possibly still running and will
//! send the matching unpublish when the pod goes; after any other code it will not, so nothing may be left behind. The
//! registry leaves nothing behind after any error, so every kind may have the code that says best what happened.
//! The text is what a user of the cluster reads in `kubectl describe`.

use tonic::{Code, Status};
use volume::{Fault, FaultKind};

/// Longest text of a status. Faults are short; this bounds what a peer's long names can do to an event or a log.
const TEXT_LIMIT: usize = 2048;

/// The code of a kind, where the call has no rule of its own.
pub fn code(kind: FaultKind) -> Code {
    match kind {
        FaultKind::InvalidArgument => Code::InvalidArgument,
        FaultKind::OutOfRange => Code::OutOfRange,
        FaultKind::NotFound => Code::NotFound,
        FaultKind::AlreadyExists => Code::AlreadyExists,
        // "Operation pending for volume": the caller comes again.
        FaultKind::Busy => Code::Aborted,
        FaultKind::InUse => Code::FailedPrecondition,
        FaultKind::PermissionDenied => Code::PermissionDenied,
        // Data that failed its verification; a retry downloads it again.
        FaultKind::Untrusted => Code::DataLoss,
        FaultKind::Unavailable => Code::Unavailable,
        FaultKind::DeadlineExceeded => Code::DeadlineExceeded,
        FaultKind::ResourceExhausted => Code::ResourceExhausted,
        FaultKind::Unsupported => Code::FailedPrecondition,
        FaultKind::Cancelled => Code::Cancelled,
        FaultKind::Internal => Code::Internal,
    }
}

/// The status of a fault, where the call has no rule of its own.
pub fn of(fault: &Fault) -> Status {
    coded(code(fault.kind), fault)
}

/// The status of a fault with the code that the specification wants in this call.
pub fn coded(code: Code, fault: &Fault) -> Status {
    Status::new(code, bounded(fault.to_string()))
}

/// A field that is missing, too long or makes no sense. `field` is its name in `csi.proto`.
pub fn invalid(field: &str, detail: impl std::fmt::Display) -> Status {
    Status::invalid_argument(bounded(format!("{field}: {detail}")))
}

fn bounded(mut text: String) -> String {
    if text.len() > TEXT_LIMIT {
        let end = (0..=TEXT_LIMIT).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_happened_to_what() {
        let fault = Fault::new(FaultKind::Busy, "mount", "cms.cern.ch", "another request is under way");
        let status = of(&fault);
        assert_eq!(status.code(), Code::Aborted);
        assert_eq!(status.message(), "mount cms.cern.ch: another request is under way");
        assert_eq!(invalid("volume_id", "is missing").message(), "volume_id: is missing");
    }

    #[test]
    fn texts_are_bounded() {
        let fault = Fault::new(FaultKind::NotFound, "mount", "\u{e9}".repeat(5000), "x");
        assert!(of(&fault).message().len() < TEXT_LIMIT + 8);
    }
}
