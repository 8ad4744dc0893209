//! Calls by method and code, for the metrics endpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tonic::Code;
use volume::{Driver, Sample};

/// Methods are counted by name; a peer cannot make up more than so many.
const METHODS: usize = 64;

/// Counts and times of a driver's calls.
#[derive(Debug)]
pub struct CallStatistics {
    driver: Driver,
    calls: Mutex<BTreeMap<(String, &'static str), Tally>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    count: u64,
    time: Duration,
}

impl CallStatistics {
    pub(crate) fn new(driver: Driver) -> Self {
        CallStatistics { driver, calls: Mutex::default() }
    }

    pub(crate) fn note(&self, method: &str, code: Code, time: Duration) {
        let mut calls = self.calls.lock();
        let full = calls.len() >= METHODS;
        // Who calls what does not exist may call it anything.
        let method = if code == Code::Unimplemented { "other" } else { method };
        let key = (method.to_owned(), name(code));
        if full && !calls.contains_key(&key) {
            return;
        }
        let tally = calls.entry(key).or_default();
        tally.count += 1;
        tally.time += time;
    }

    /// The values, as the daemon's metrics table declares them: `csi_calls_total` and `csi_call_seconds_total` by
    /// driver, method and code.
    pub fn samples(&self) -> Vec<Sample> {
        let calls = self.calls.lock();
        let each = calls.iter().flat_map(|((method, code), tally)| {
            let labels = vec![
                ("driver".to_owned(), self.driver.to_string()),
                ("method".to_owned(), method.clone()),
                ("code".to_owned(), (*code).to_owned()),
            ];
            let sample = |name: &str, value| Sample { name: name.to_owned(), labels: labels.clone(), value };
            [
                sample("csi_calls_total", tally.count as f64),
                sample("csi_call_seconds_total", tally.time.as_secs_f64()),
            ]
        });
        each.collect()
    }
}

/// The code as gRPC's documents spell it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_methods_are_one() {
        let statistics = CallStatistics::new(Driver::Cvmfs);
        for made_up in 0..1000 {
            statistics.note(&format!("M{made_up}"), Code::Unimplemented, Duration::ZERO);
        }
        statistics.note("Probe", Code::Ok, Duration::from_millis(5));
        let samples = statistics.samples();
        assert_eq!(samples.len(), 4);
        let probe = samples.iter().find(|s| s.labels[1].1 == "Probe").unwrap();
        assert_eq!((probe.value, probe.labels[2].1.as_str()), (1.0, "OK"));
    }
}
