//! What a request asks for, taken apart once.

use hyper::body::Incoming;
use hyper::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use hyper::{HeaderMap, Method, Request, StatusCode};

/// A path, decoded, without a slash at its start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Asked {
    pub(super) path: Vec<u8>,
    pub(super) head: bool,
    pub(super) range: Option<Range>,
    /// Entity tags that the peer has.
    pub(super) known: Option<String>,
}

/// A range of bytes as asked for, before the length of the file is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Range {
    /// From the first to the second, both included.
    Between(u64, u64),
    /// From here to the end.
    From(u64),
    /// The last so many.
    Last(u64),
}

impl Asked {
    /// # Errors
    /// The status to refuse with.
    pub(super) fn parse(request: &Request<Incoming>) -> Result<Self, StatusCode> {
        let head = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Err(StatusCode::METHOD_NOT_ALLOWED),
        };
        let headers = request.headers();
        // A range that depends on a version is answered as a whole: always right.
        let range =
            if headers.contains_key(IF_RANGE) { None } else { text(headers, RANGE).and_then(Range::parse) };
        let known = text(headers, IF_NONE_MATCH).map(str::to_owned);
        Ok(Asked { path: decode(request.uri().path()).ok_or(StatusCode::BAD_REQUEST)?, head, range, known })
    }
}

fn text(headers: &HeaderMap, name: hyper::header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Undoes percent-encoding. `None` for what is no path: bad digits, a zero byte.
fn decode(path: &str) -> Option<Vec<u8>> {
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            u8::try_from(high << 4 | low).ok()?
        } else {
            byte
        };
        if byte == 0 {
            return None;
        }
        decoded.push(byte);
    }
    let start = decoded.iter().position(|byte| *byte != b'/').unwrap_or(decoded.len());
    Some(decoded.split_off(start))
}

impl Range {
    /// One range; several, or none that can be understood, are answered with the whole file, as RFC 9110 allows.
    fn parse(value: &str) -> Option<Self> {
        let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| -> Option<u64> {
            text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
        };
        match (first.trim(), last.trim()) {
            ("", last) => Some(Range::Last(number(last)?)),
            (first, "") => Some(Range::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Range::Between(first, last))
            }
        }
    }

    /// First byte and end (excluded) in a file of this length; `None` when the range is outside of it.
    pub(super) fn within(self, length: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Range::Between(first, last) => (first, last.saturating_add(1).min(length)),
            Range::From(first) => (first, length),
            Range::Last(count) => (length.saturating_sub(count), length),
        };
        (start < end).then_some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once() {
        assert_eq!(decode("/a/%2e%2E/b%20c").unwrap(), b"a/../b c");
        assert_eq!(decode("//etc").unwrap(), b"etc");
        assert_eq!(decode("/%252e").unwrap(), b"%2e");
        assert_eq!(decode("/%fc").unwrap(), b"\xfc");
        for bad in ["/%", "/%4", "/%zz", "/a%00b", "/%-1"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        for (header, length, expected) in [
            ("bytes=0-9", 100, Some((0, 10))),
            ("bytes=90-200", 100, Some((90, 100))),
            ("bytes=5-", 100, Some((5, 100))),
            ("bytes=-7", 100, Some((93, 100))),
            ("bytes=-700", 100, Some((0, 100))),
            ("bytes=100-", 100, None),
            ("bytes=-0", 100, None),
            ("bytes=0-18446744073709551615", 100, Some((0, 100))),
        ] {
            assert_eq!(Range::parse(header).unwrap().within(length), expected, "{header}");
        }
        for odd in [
            "bytes=9-0",
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=+1-2",
            "bytes=--1",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(Range::parse(odd), None, "{odd}");
        }
    }
}
