//! What engines send, for fuzzing: bytes in, nothing out, no panic, no matter what.

use crate::request::{Body, Call};

/// The body of a call, and (its first line) the path of one.
pub fn request(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = Call::of_path(text.lines().next().unwrap_or_default());
    if let Ok(body) = Body::parse(bytes) {
        let _ = body.name();
        body.options();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn mutated_requests_are_parsed_or_refused() {
        fixtures::hammer(
            super::request,
            &[
                br#"{"Name":"cms.cern.ch@v1","Opts":{"proxy":"http://p:3128","tag":"v1"},"ID":"2f73"}"#
                    .to_vec(),
                br#"{"Name":"v","Opts":null}"#.to_vec(),
                b"/VolumeDriver.Mount".to_vec(),
            ],
        );
    }
}
