//! The lines of `kong.conf`.

/// One `name = value` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Line number, from 1.
    pub(super) number: usize,
    pub(super) name: String,
    /// Without comment and surrounding blanks; may be empty.
    pub(super) value: String,
}

/// A line that is neither empty, nor a comment, nor `name = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Line number, from 1.
    pub(super) number: usize,
    /// The line as it stands.
    pub(super) text: String,
}

/// Reads the file: blank lines and comments are dropped, order is kept.
pub(super) fn lines(text: &str) -> (Vec<Line>, Vec<BadLine>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (raw, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
        // A value may hold `\#`, a name may not, so the comment can be cut first.
        let content = value(raw);
        if content.is_empty() {
            continue;
        }
        match content.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => good.push(Line {
                number,
                name: name.trim().to_owned(),
                value: value.trim().to_owned(),
            }),
            _ => bad.push(BadLine {
                number,
                text: raw.trim().to_owned(),
            }),
        }
    }
    (good, bad)
}

/// A value without its comment: everything from the first `#` on that has no `\` before it, with
/// `\#` turned into `#` and surrounding blanks removed.
pub(super) fn value(raw: &str) -> String {
    let mut kept = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('#') {
        match rest[..at].strip_suffix('\\') {
            Some(before) => {
                kept.push_str(before);
                kept.push('#');
                rest = &rest[at + 1..];
            }
            None => {
                rest = &rest[..at];
                break;
            }
        }
    }
    kept.push_str(rest);
    kept.trim().to_owned()
}
