//! Extended attributes as catalogs hold them.
//!
//! Layout: a version byte (1), a count byte, then for each attribute a byte for the length of its name, a byte for the length
//! of its value, the name, the value; sorted by name. A blob of another version, or one that does not add up, is no
//! attributes at all, as in the C++ client (`xattr.cc`).

const VERSION: u8 = 1;

/// The attributes in `blob` in their order; empty when the blob is broken.
pub fn parse(blob: &[u8]) -> Vec<(&[u8], &[u8])> {
    attributes(blob).unwrap_or_default()
}

/// The value of the attribute `name`.
pub fn find<'a>(blob: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    attributes(blob)?.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn attributes(blob: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let (&[version, count], mut rest) = blob.split_first_chunk::<2>()?;
    if version != VERSION {
        return None;
    }
    let mut found = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (&[name_length, value_length], after) = rest.split_first_chunk::<2>()?;
        let (name, after) = after.split_at_checked(usize::from(name_length))?;
        let (value, after) = after.split_at_checked(usize::from(value_length))?;
        // The kernel could not tell two names apart by a NUL inside one.
        if name.is_empty() || name.contains(&0) {
            return None;
        }
        found.push((name, value));
        rest = after;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_in_order() {
        let blob = b"\x01\x02\x06\x03user.avalaa\x06\x00user.b";
        // A length that does not fit its text breaks the blob.
        assert!(parse(blob).is_empty());
        let blob = b"\x01\x02\x06\x03user.aval\x06\x00user.b";
        assert_eq!(parse(blob), vec![(&b"user.a"[..], &b"val"[..]), (b"user.b", b"")]);
        assert_eq!(find(blob, b"user.a"), Some(&b"val"[..]));
        assert_eq!(find(blob, b"user.c"), None);
    }

    #[test]
    fn broken_blobs_are_no_attributes() {
        for blob in [
            &b""[..],
            b"\x01",
            b"\x02\x01\x01\x01ab",
            b"\x01\x01",
            b"\x01\x01\x05\x05abc",
            b"\x01\x01\x00\x01a",
        ] {
            assert!(parse(blob).is_empty(), "{blob:?}");
        }
    }
}
