//! Variables in symlink targets.
//!
//! `$(NAME)` and `$(NAME:-default)` stand for the value of a client parameter, else the default, else nothing. There is
//! no nesting: the first `)` ends a variable. Without it the text stays as it is, and `$NAME` is plain text. Format:
//! `SqlDirent::ExpandSymlink` of CernVM-FS.

use std::borrow::Cow;

/// The target with its variables replaced. `value` gives the value of a client parameter by name. `stat` shows the
/// length of this as the symlink's size.
pub fn expand<'a>(target: &'a [u8], mut value: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Cow<'a, [u8]> {
    let Some(first) = find_variable(target) else {
        return Cow::Borrowed(target);
    };
    let mut expanded = target[..first].to_vec();
    let mut rest = &target[first..];
    // `rest` begins with `$(`, or has none.
    while let Some(end) = rest.iter().position(|byte| *byte == b')').filter(|_| rest.starts_with(b"$(")) {
        let inside = &rest[2..end];
        let (name, default) = match inside.windows(2).position(|pair| pair == b":-") {
            Some(colon) => (&inside[..colon], &inside[colon + 2..]),
            None => (inside, &[][..]),
        };
        match value(name) {
            Some(text) => expanded.extend_from_slice(&text),
            None => expanded.extend_from_slice(default),
        }
        rest = &rest[end + 1..];
        let next = find_variable(rest).unwrap_or(rest.len());
        expanded.extend_from_slice(&rest[..next]);
        rest = &rest[next..];
    }
    expanded.extend_from_slice(rest);
    Cow::Owned(expanded)
}

/// Where the next `$(` is.
fn find_variable(text: &[u8]) -> Option<usize> {
    text.windows(2).position(|pair| pair == b"$(")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(target: &str) -> String {
        let value = |name: &[u8]| (name == b"CVMFS_TEST_VAR").then(|| b"testvalue".to_vec());
        String::from_utf8(expand(target.as_bytes(), value).into_owned()).unwrap()
    }

    #[test]
    fn variables_expand_as_the_real_client_was_seen_to_do() {
        for (target, want) in [
            ("$(CVMFS_TEST_VAR)/x", "testvalue/x"),
            ("$(UNSET)/x", "/x"),
            ("$(UNSET:-fallback/dir)/x", "fallback/dir/x"),
            ("$(CVMFS_TEST_VAR:-fallback)/x", "testvalue/x"),
            ("$(UNSET:-)/x", "/x"),
            ("$$(CVMFS_TEST_VAR)", "$testvalue"),
            ("$()", ""),
            ("$(UNTERMINATED", "$(UNTERMINATED"),
            ("a$", "a$"),
            ("$", "$"),
            ("$(", "$("),
            ("$CVMFS_TEST_VAR", "$CVMFS_TEST_VAR"),
            ("$(A:-$(CVMFS_TEST_VAR))", "$(CVMFS_TEST_VAR)"),
            ("$(CVMFS_TEST_VAR)$(CVMFS_TEST_VAR)", "testvaluetestvalue"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(expanded(target), want, "{target}");
        }
    }
}
