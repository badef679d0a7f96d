//! A look at the text before the parser: its bounds, and where its words stand.

use super::{DEPTH_MAX, ExpressionError, OPERATORS_MAX, TEXT_BYTES_MAX};

/// The words of an expression that stand outside of literals, with their offsets.
pub(super) struct Scan<'a> {
    text: &'a str,
    words: Vec<(usize, &'a str)>,
}

impl<'a> Scan<'a> {
    /// Reads the text.
    ///
    /// # Errors
    /// One of the bounds is passed.
    pub(super) fn new(text: &'a str) -> Result<Scan<'a>, ExpressionError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(ExpressionError {
                at: None,
                message: format!(
                    "{} bytes are too long for an expression; at most {TEXT_BYTES_MAX} are read",
                    text.len()
                ),
            });
        }
        let mut scan = Scan {
            text,
            words: Vec::new(),
        };
        let (mut at, mut depth, mut operators) = (0, 0_usize, 0);
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let step = literal(rest).unwrap_or_else(|| word(rest));
            let first = rest.as_bytes()[0];
            if step > 0 && (first.is_ascii_alphabetic() && !rest.starts_with("r#\"")) {
                scan.words.push((at, &rest[..step]));
            }
            match first {
                b'(' => depth += 1,
                b')' => depth = depth.saturating_sub(1),
                _ if rest.starts_with("&&") || rest.starts_with("||") => operators += 1,
                _ => {}
            }
            if depth > DEPTH_MAX {
                return Err(scan.error_at(
                    at,
                    format!("parentheses nest deeper than {DEPTH_MAX} levels"),
                ));
            }
            if operators > OPERATORS_MAX {
                return Err(scan.error_at(
                    at,
                    format!("more than {OPERATORS_MAX} '&&' and '||' in one expression"),
                ));
            }
            at += step.max(1);
            while !text.is_char_boundary(at) {
                at += 1;
            }
        }
        Ok(scan)
    }

    /// An error about the first word `name` at or after the word number `from`, and the number
    /// of the word behind it.
    pub(super) fn find(&self, name: &str, from: usize) -> (usize, usize) {
        let found = (from..self.words.len()).find(|&number| self.words[number].1 == name);
        match found {
            Some(number) => (self.words[number].0, number + 1),
            None => (0, from),
        }
    }

    /// An error at an offset.
    pub(super) fn error_at(&self, offset: usize, message: impl Into<String>) -> ExpressionError {
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        ExpressionError {
            at: Some((
                before.matches('\n').count() + 1,
                before[line_start..].chars().count() + 1,
            )),
            message: message.into(),
        }
    }
}

/// Bytes of the string literal that `rest` starts with; an open one goes to the end.
fn literal(rest: &str) -> Option<usize> {
    if let Some(inner) = rest.strip_prefix("r#\"") {
        return Some(inner.find("\"#").map_or(rest.len(), |end| end + 5));
    }
    let inner = rest.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    Some(end.map_or(rest.len(), |end| end + 2))
}

/// Bytes of the word that `rest` starts with; 0 if it does not start with one.
fn word(rest: &str) -> usize {
    if !rest.as_bytes()[0].is_ascii_alphabetic() {
        return usize::from(rest.starts_with("&&") || rest.starts_with("||")) * 2;
    }
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
    rest.bytes()
        .position(|byte| !inside(byte))
        .unwrap_or(rest.len())
}
