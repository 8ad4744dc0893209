//! How long a caller waits: the `grpc-timeout` header.

use std::time::Duration;

use tonic::codegen::http::HeaderMap;

/// The caller's own limit; `None` if it gave none, or nonsense (gRPC over HTTP/2, "Timeout": up to eight digits and a
/// unit).
pub(crate) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_known_and_nonsense_is_no_limit() {
        let with = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            of(&headers)
        };
        assert_eq!(with("2M"), Some(Duration::from_secs(120)));
        assert_eq!(with("119999998u"), None); // nine digits
        assert_eq!(with("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(with("15000m"), Some(Duration::from_secs(15)));
        for nonsense in ["", "S", "5", "-5S", "+5S", "5 S", "5s"] {
            assert_eq!(with(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }
}
