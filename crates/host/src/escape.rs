//! The octal escapes of mount tables: space, tab, newline and backslash are written as `\040`, `\011`, `\012`, `\134`
//! (kernel: `fs/proc_namespace.c`, `mangle`). Other bytes, also those that are not UTF-8, stand for themselves.

/// Undoes the escapes. What only looks like one (`\9`, a trailing backslash) stays as it is.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match octal(rest) {
            Some(byte) => {
                out.push(byte);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

fn octal(text: &[u8]) -> Option<u8> {
    let [b'\\', digits @ ..] = text else { return None };
    let value = digits.get(..3)?.iter().try_fold(0_u16, |sum, digit| match digit {
        b'0'..=b'7' => Some(sum * 8 + u16::from(digit - b'0')),
        _ => None,
    })?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_kernel_are_undone() {
        assert_eq!(unescape(br"/a\040b\011c\012d\134e"), b"/a b\tc\nd\\e");
    }

    #[test]
    fn what_is_no_escape_stays() {
        for text in [&br"\9"[..], br"a\", br"\04", br"\777", b"\xff\\x"] {
            assert_eq!(unescape(text), text);
        }
    }
}
