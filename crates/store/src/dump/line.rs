//! A row as a line of text, and back.

use serde_json::Value;

use super::{ColumnKind, DumpError};

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
}

pub(super) fn push_text(line: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(line, text).expect("a string is always JSON, and memory takes it");
}

pub(super) fn push_int(line: &mut Vec<u8>, number: i64) {
    line.extend_from_slice(number.to_string().as_bytes());
}

pub(super) fn push_bytes(line: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    line.push(b'"');
    for byte in bytes {
        line.push(DIGITS[usize::from(byte >> 4)]);
        line.push(DIGITS[usize::from(byte & 15)]);
    }
    line.push(b'"');
}

/// The values of a line, which must be one for each of `kinds`.
pub(super) fn cells(line: &[u8], kinds: &[ColumnKind]) -> Result<Vec<Cell>, DumpError> {
    let damaged = |what: String| DumpError::Damaged(format!("a row is damaged: {what}"));
    let values: Vec<Value> =
        serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
    if values.len() != kinds.len() {
        return Err(damaged(format!(
            "it has {} values, its table {} columns",
            values.len(),
            kinds.len()
        )));
    }
    let cell = |(value, kind): (Value, &ColumnKind)| match (value, kind) {
        (Value::Null, _) => Ok(Cell::Null),
        (Value::Number(number), ColumnKind::Int) => match number.as_i64() {
            Some(number) => Ok(Cell::Int(number)),
            None => Err(damaged(format!("{number} is not an integer of 64 bits"))),
        },
        // PostgreSQL has no NUL in a text, and the store never wrote one.
        (Value::String(text), ColumnKind::Text) if !text.contains('\0') => Ok(Cell::Text(text)),
        (Value::String(text), ColumnKind::Bytes) => match from_hex(text.as_bytes()) {
            Some(bytes) => Ok(Cell::Bytes(bytes)),
            None => Err(damaged("bytes are not hexadecimal digits".to_owned())),
        },
        (_, kind) => Err(damaged(format!("a value is no {kind:?}"))),
    };
    values.into_iter().zip(kinds).map(cell).collect()
}

fn from_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|it| u8::try_from(it).ok())
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
                text.map_or(Cell::Null, Cell::Text),
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
