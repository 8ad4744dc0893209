//! Rows: a header of serial types, then the values.

/// Most columns that a row may have to be read.
pub(crate) const MAX_COLUMNS: usize = 32;

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The number of an integer column; NULL is 0 as in SQLite's own interface, other types are none.
    pub(crate) fn integer(self) -> Option<i64> {
        match self {
            Value::Integer(number) => Some(number),
            Value::Null => Some(0),
            Value::Real(_) | Value::Text(_) | Value::Blob(_) => None,
        }
    }

    /// The bytes of a text or blob column; `Some(None)` is NULL, `None` another type.
    pub(crate) fn bytes(self) -> Option<Option<&'a [u8]>> {
        match self {
            Value::Text(bytes) | Value::Blob(bytes) => Some(Some(bytes)),
            Value::Null => Some(None),
            Value::Integer(_) | Value::Real(_) => None,
        }
    }
}

/// The values of a row, found where they lie in its payload.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    values: [Value<'a>; MAX_COLUMNS],
    count: usize,
}

impl<'a> Record<'a> {
    /// Decodes a payload; `None` when its lengths do not add up or it has too many columns.
    pub(crate) fn decode(payload: &'a [u8]) -> Option<Self> {
        let (header_length, mut at) = varint(payload)?;
        let header_length = usize::try_from(header_length).ok().filter(|length| *length <= payload.len())?;
        let mut body = header_length;
        let mut record = Record { values: [Value::Null; MAX_COLUMNS], count: 0 };
        while at < header_length {
            let (serial_type, length) = varint(&payload[at..header_length])?;
            at += length;
            let size = content_size(serial_type)?;
            let end = body.checked_add(size)?;
            let bytes = payload.get(body..end)?;
            *record.values.get_mut(record.count)? = value(serial_type, bytes)?;
            record.count += 1;
            body = end;
        }
        Some(record)
    }

    /// A value by position. Columns added to a table later are missing from older rows: they are NULL.
    pub(crate) fn get(&self, column: usize) -> Value<'a> {
        self.values[..self.count].get(column).copied().unwrap_or(Value::Null)
    }
}

fn content_size(serial_type: u64) -> Option<usize> {
    Some(match serial_type {
        0 | 8 | 9 => 0,
        1 => 1,
        2 => 2,
        3 => 3,
        4 => 4,
        5 => 6,
        6 | 7 => 8,
        10 | 11 => return None,
        n => usize::try_from((n - 12) / 2).ok()?,
    })
}

fn value(serial_type: u64, bytes: &[u8]) -> Option<Value<'_>> {
    Some(match serial_type {
        0 => Value::Null,
        1..=6 => Value::Integer(signed(bytes)),
        7 => Value::Real(f64::from_be_bytes(bytes.try_into().ok()?)),
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        n if n % 2 == 0 => Value::Blob(bytes),
        _ => Value::Text(bytes),
    })
}

/// A big-endian two's complement number of 1 to 8 bytes.
fn signed(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    bytes.iter().fold(if negative { -1 } else { 0 }, |number, byte| number << 8 | i64::from(*byte))
}

/// A number of 1 to 9 bytes, seven bits in each but the ninth, which has eight; and how many bytes it took.
pub(super) fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        if index == 8 {
            return Some((number << 8 | u64::from(*byte), 9));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_those_of_the_format() {
        assert_eq!(varint(&[0x7f]), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0x00]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0xff; 8]), None);
        assert_eq!(varint(&[]), None);
    }

    #[test]
    fn numbers_keep_their_sign() {
        assert_eq!(signed(&[0xff]), -1);
        assert_eq!(signed(&[0x00, 0xff, 0xff]), 65535);
        assert_eq!(signed(&[0x80, 0, 0, 0, 0, 0, 0, 0]), i64::MIN);
        assert_eq!(signed(&[0x80, 0, 0, 0, 0, 0]), -(1 << 47));
    }

    #[test]
    fn lengths_that_do_not_add_up_are_refused() {
        assert!(Record::decode(&[]).is_none());
        assert!(Record::decode(&[9, 1]).is_none());
        // A text of 100 bytes in a payload of 3.
        assert!(Record::decode(&[3, 0x81, 0x55, b'a']).is_none());
        assert!(Record::decode(&[2, 10]).is_none());
        // More columns than any table of a catalog has.
        let mut many = vec![101];
        many.extend([0; 100]);
        assert!(Record::decode(&many).is_none());
        let record = Record::decode(&[4, 1, 15, 0, 0xfe, b'a']).unwrap();
        assert_eq!(record.get(0), Value::Integer(-2));
        assert_eq!(record.get(1), Value::Text(b"a"));
        assert_eq!(record.get(2), Value::Null);
        assert_eq!(record.get(99), Value::Null);
    }
}
