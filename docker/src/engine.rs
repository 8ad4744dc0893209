//! Which engine is asking.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::HOST;
use volume::Frontend;

/// Podman gives every call 5 s and sends no Unmount after a time-out; answering sooner lets it hear why.
const PODMAN_MOUNT_LIMIT: Duration = Duration::from_millis(4500);
/// Docker gives Mount and Create 120 s.
const DOCKER_MOUNT_LIMIT: Duration = Duration::from_secs(115);

/// Tells the engines apart by the `Host` header: Podman sends `plugin`, Docker 20.10 an empty one, Docker 28 and newer
/// `plugin.moby.localhost`. The difference matters because Podman keeps a count of its own over restarts.
pub(crate) fn frontend(headers: &HeaderMap) -> Frontend {
    match headers.get(HOST).map(|host| host.as_bytes()) {
        Some(b"plugin") => Frontend::Podman,
        _ => Frontend::Docker,
    }
}

/// How long the engine waits for the answer to Mount, less a margin to be heard in.
pub(crate) fn mount_limit(frontend: Frontend) -> Duration {
    match frontend {
        Frontend::Podman => PODMAN_MOUNT_LIMIT,
        Frontend::Docker | Frontend::Flexvolume | Frontend::Csi | Frontend::Cli => DOCKER_MOUNT_LIMIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_told_apart_by_their_host_header() {
        let with = |host: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            frontend(&headers)
        };
        assert_eq!(with("plugin"), Frontend::Podman);
        assert_eq!(with(""), Frontend::Docker);
        assert_eq!(with("plugin.moby.localhost"), Frontend::Docker);
        assert_eq!(frontend(&HeaderMap::new()), Frontend::Docker);
    }
}
