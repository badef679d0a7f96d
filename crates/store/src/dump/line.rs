//! A row as a line of text, and back.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::{ColumnKind, DumpError};

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell<'l> {
    Null,
    Int(i64),
    Text(Cow<'l, str>),
    Bytes(Vec<u8>),
}

/// A value as it stands in its line. Most texts are not copied.
enum Raw<'l> {
    Null,
    Int(i64),
    Text(Cow<'l, str>),
}

pub(super) fn push_text(line: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(line, text).expect("a string is always JSON, and memory takes it");
}

pub(super) fn push_int(line: &mut Vec<u8>, number: i64) {
    line.extend_from_slice(number.to_string().as_bytes());
}

pub(super) fn push_bytes(line: &mut Vec<u8>, bytes: &[u8]) {
    line.push(b'"');
    push_hex(line, bytes);
    line.push(b'"');
}

/// Two hexadecimal digits for each byte.
pub(super) fn push_hex(line: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        line.push(DIGITS[usize::from(byte >> 4)]);
        line.push(DIGITS[usize::from(byte & 15)]);
    }
}

impl<'l> Deserialize<'l> for Raw<'l> {
    fn deserialize<D: Deserializer<'l>>(from: D) -> Result<Raw<'l>, D::Error> {
        from.deserialize_any(AnyRaw)
    }
}

struct AnyRaw;

impl<'l> Visitor<'l> for AnyRaw {
    type Value = Raw<'l>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer, a string or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Raw<'l>, E> {
        Ok(Raw::Null)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Raw<'l>, E> {
        Ok(Raw::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Raw<'l>, E> {
        let fits = i64::try_from(number);
        let fits = fits.map_err(|_| E::custom(format!("{number} is not an integer of 64 bits")));
        fits.map(Raw::Int)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Raw<'l>, E> {
        Err(E::custom(format!("{number} is not an integer of 64 bits")))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'l str) -> Result<Raw<'l>, E> {
        Ok(Raw::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Raw<'l>, E> {
        Ok(Raw::Text(Cow::Owned(text.to_owned())))
    }
}

/// The values of a line, which must be one for each of `kinds`.
pub(super) fn cells<'l>(line: &'l [u8], kinds: &[ColumnKind]) -> Result<Vec<Cell<'l>>, DumpError> {
    let damaged = |what: String| DumpError::Damaged(format!("a row is damaged: {what}"));
    let values: Vec<Raw<'_>> =
        serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
    if values.len() != kinds.len() {
        return Err(damaged(format!(
            "it has {} values, its table {} columns",
            values.len(),
            kinds.len()
        )));
    }
    let cell = |(value, kind): (Raw<'l>, &ColumnKind)| match (value, kind) {
        (Raw::Null, _) => Ok(Cell::Null),
        (Raw::Int(number), ColumnKind::Int) => Ok(Cell::Int(number)),
        // PostgreSQL has no NUL in a text, and the store never wrote one.
        (Raw::Text(text), ColumnKind::Text) if !text.contains('\0') => Ok(Cell::Text(text)),
        (Raw::Text(text), ColumnKind::Bytes) => match from_hex(text.as_bytes()) {
            Some(bytes) => Ok(Cell::Bytes(bytes)),
            None => Err(damaged("bytes are not hexadecimal digits".to_owned())),
        },
        (_, kind) => Err(damaged(format!("a value is no {kind:?}"))),
    };
    values.into_iter().zip(kinds).map(cell).collect()
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [ColumnKind; 3] = [ColumnKind::Int, ColumnKind::Text, ColumnKind::Bytes];

    proptest! {
        #[test]
        fn what_is_written_is_read(
            number in any::<Option<i64>>(),
            text in any::<Option<String>>(),
            bytes in any::<Option<Vec<u8>>>(),
        ) {
            let text = text.map(|text| text.replace('\0', ""));
            let mut line = b"[".to_vec();
            match number {
                Some(number) => push_int(&mut line, number),
                None => line.extend_from_slice(b"null"),
            }
            line.push(b',');
            match &text {
                Some(text) => push_text(&mut line, text),
                None => line.extend_from_slice(b"null"),
            }
            line.push(b',');
            match &bytes {
                Some(bytes) => push_bytes(&mut line, bytes),
                None => line.extend_from_slice(b"null"),
            }
            line.push(b']');
            prop_assert!(!line.contains(&b'\n'));
            let expected = vec![
                number.map_or(Cell::Null, Cell::Int),
                text.map_or(Cell::Null, |text| Cell::Text(text.into())),
                bytes.map_or(Cell::Null, Cell::Bytes),
            ];
            prop_assert_eq!(cells(&line, &KINDS).unwrap(), expected);
        }

        #[test]
        fn hostile_lines_never_panic(line in any::<Vec<u8>>()) {
            _ = cells(&line, &KINDS);
        }
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let said = |line: &str| cells(line.as_bytes(), &KINDS).unwrap_err().to_string();
        assert!(said("[1,\"a\"]").contains("2 values, its table 3 columns"));
        assert!(said("[1.5,\"a\",\"\"]").contains("not an integer"));
        assert!(said("[1,2,\"\"]").contains("no Text"));
        assert!(said("[1,\"a\\u0000\",\"\"]").contains("no Text"));
        assert!(said("[1,\"a\",\"abc\"]").contains("hexadecimal"));
        assert!(said("[1,\"a\",\"zz\"]").contains("hexadecimal"));
    }
}
