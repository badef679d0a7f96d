//! Header fields of a message on its way through the gateway.

use std::fmt;
use std::ops::Range;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Header lines, in order, as text in one piece.
///
/// A message has few lines, and most go through unread. So they are kept as they came, names are
/// compared without case, and lines that follow each other are written out in one copy. Finding
/// one by looking at those of its kind costs less than hashing each.
#[derive(Clone, Default)]
pub struct Fields {
    /// What came, and behind it what was added, each line as `name: value\r\n`. What was removed
    /// stays as a gap.
    text: Vec<u8>,
    lines: Vec<Line>,
    /// A bit for each [`kind`] of name that may be there.
    kinds: u64,
}

/// Where a line stands in the text.
#[derive(Clone, Copy)]
struct Line {
    start: u32,
    value: u32,
    end: u32,
    name_length: u16,
    kind: u8,
    /// Whether the text from `start` to two bytes behind `end` is exactly `name: value\r\n`.
    whole: bool,
}

/// One of 64 kinds of name; names that differ only in case are of one kind.
fn kind(name: &[u8]) -> u8 {
    // names of one family begin alike, so the middle and the end tell more
    let letter = |at: usize| name.get(at).copied().unwrap_or_default() | 0x20;
    let end = letter(name.len().wrapping_sub(2)).wrapping_mul(3);
    let middle = letter(name.len() / 2);
    (name.len() as u8)
        .wrapping_mul(5)
        .wrapping_add(middle)
        .wrapping_add(end)
        & 63
}

impl Fields {
    /// No lines.
    pub fn new() -> Fields {
        Fields::default()
    }

    /// No lines yet of a head in wire form, with room for `more` lines beyond the head's own
    /// `count`. [`note`](Fields::note) says where its lines are.
    pub fn of_head(head: &[u8], count: usize, more: usize) -> Fields {
        let mut text = Vec::with_capacity(head.len() + more * 32);
        text.extend_from_slice(head);
        Fields {
            text,
            lines: Vec::with_capacity(count + more),
            kinds: 0,
        }
    }

    /// Makes a part of the head a line. Its name must be a token and its value free of control
    /// bytes, as a parser has checked (RFC 9110 section 5).
    ///
    /// # Panics
    /// If a range lies outside of the head, which is at most 4 GiB long.
    pub fn note(&mut self, name: Range<usize>, value: Range<usize>) {
        let text = &self.text;
        let whole = value.start == name.end + 2
            && text[name.end..value.start] == *b": "
            && text.get(value.end..value.end + 2) == Some(b"\r\n");
        let kind = kind(&text[name.clone()]);
        self.kinds |= 1 << kind;
        self.lines.push(Line {
            start: name.start as u32,
            value: value.start as u32,
            end: value.end as u32,
            name_length: name.len() as u16,
            kind,
            whole,
        });
    }

    /// The same in no more memory than it needs, for what is kept.
    #[must_use]
    pub fn shrunk(mut self) -> Fields {
        self.text.shrink_to_fit();
        self.lines.shrink_to_fit();
        self
    }

    /// Whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Bytes of the head that the lines were [taken from](Fields::of_head), and of what was added
    /// to it.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    fn name_of(&self, line: &Line) -> &[u8] {
        let start = line.start as usize;
        &self.text[start..start + usize::from(line.name_length)]
    }

    fn value_of(&self, line: &Line) -> &[u8] {
        &self.text[line.value as usize..line.end as usize]
    }

    fn is(&self, line: &Line, kind: u8, name: &[u8]) -> bool {
        line.kind == kind && self.name_of(line).eq_ignore_ascii_case(name)
    }

    /// Value of the first line of this name.
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// Value of the first line of this name, if it is UTF-8.
    pub fn get_str(&self, name: &HeaderName) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Values of all lines of this name, in order.
    pub fn get_all<'a, 'n>(
        &'a self,
        name: &'n HeaderName,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        let name = name.as_str().as_bytes();
        let kind = kind(name);
        let lines = match self.kinds & (1 << kind) {
            0 => &[],
            _ => &self.lines[..],
        };
        lines
            .iter()
            .filter(move |line| self.is(line, kind, name))
            .map(|line| self.value_of(line))
    }

    /// Whether there is a line of this name.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// Adds a line.
    pub fn append(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.push(name.as_str().as_bytes(), value.as_bytes());
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let kind = kind(name);
        self.kinds |= 1 << kind;
        let text = &mut self.text;
        if text.capacity() == 0 {
            self.lines.reserve(8);
            text.reserve(8 * 32);
        }
        text.reserve(name.len() + value.len() + 4);
        let start = text.len();
        text.extend_from_slice(name);
        text.extend_from_slice(b": ");
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
        self.lines.push(Line {
            start: start as u32,
            value: (start + name.len() + 2) as u32,
            end: (text.len() - 2) as u32,
            name_length: name.len() as u16,
            kind,
            whole: true,
        });
    }

    /// Makes this the only line of its name.
    pub fn set(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.remove(name);
        self.append(name, value);
    }

    /// Makes a decimal number the only line of its name.
    pub fn set_number(&mut self, name: &HeaderName, number: u64) {
        self.remove(name);
        let mut digits = [0; 20];
        self.push(name.as_str().as_bytes(), decimal(number, &mut digits));
    }

    /// Puts these lines in the place of all that have their names.
    pub fn set_all(&mut self, others: &Fields) {
        if others.lines.is_empty() {
            return;
        }
        for line in &others.lines {
            self.remove_named(line.kind, others.name_of(line));
        }
        let offset = self.text.len() as u32;
        self.text.extend_from_slice(&others.text);
        self.kinds |= others.kinds;
        self.lines.extend(others.lines.iter().map(|line| Line {
            start: line.start + offset,
            value: line.value + offset,
            end: line.end + offset,
            ..*line
        }));
    }

    /// Takes all lines of this name away.
    pub fn remove(&mut self, name: &HeaderName) {
        let name = name.as_str().as_bytes();
        self.remove_named(kind(name), name);
    }

    fn remove_named(&mut self, kind: u8, name: &[u8]) {
        if self.kinds & (1 << kind) == 0 {
            return;
        }
        // names that share a kind are more frequent than lines to remove
        let Some(first) = self.lines.iter().position(|line| self.is(line, kind, name)) else {
            return;
        };
        self.lines.remove(first);
        let text = &self.text;
        self.lines.retain(|line| {
            let start = line.start as usize;
            let found = &text[start..start + usize::from(line.name_length)];
            line.kind != kind || !found.eq_ignore_ascii_case(name)
        });
    }

    /// The lines, in order: names as they came, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.lines.iter().map(|line| {
            let name = std::str::from_utf8(self.name_of(line)).unwrap_or_default();
            (name, self.value_of(line))
        })
    }

    /// Writes the lines that `keep` says yes to; it is given name and value.
    pub fn write(&self, out: &mut BytesMut, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        out.reserve(self.text.len());
        let mut run = 0..0;
        for line in &self.lines {
            if !keep(self.name_of(line), self.value_of(line)) {
                continue;
            }
            let start = line.start as usize;
            if !line.whole {
                out.extend_from_slice(&self.text[run]);
                run = 0..0;
                out.extend_from_slice(self.name_of(line));
                out.extend_from_slice(b": ");
                out.extend_from_slice(self.value_of(line));
                out.extend_from_slice(b"\r\n");
                continue;
            }
            if run.end != start {
                out.extend_from_slice(&self.text[run]);
                run = start..start;
            }
            run.end = line.end as usize + 2;
        }
        out.extend_from_slice(&self.text[run]);
    }

    /// The same lines for whoever needs a map, such as HTTP/2.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len());
        for line in &self.lines {
            let name = HeaderName::from_bytes(self.name_of(line));
            let value = HeaderValue::from_bytes(self.value_of(line));
            if let (Ok(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        map
    }
}

/// A number as text.
pub fn decimal(number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            return &digits[at..];
        }
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Fields {
        map.iter().collect()
    }
}

impl<'a> FromIterator<(&'a HeaderName, &'a HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>>(lines: I) -> Fields {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append(name, value);
        }
        fields
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.iter();
        f.debug_list()
            .entries(lines.map(|(name, value)| (name, String::from_utf8_lossy(value))))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(fields: &Fields) -> String {
        let mut out = BytesMut::new();
        fields.write(&mut out, |_, _| true);
        String::from_utf8(out.to_vec()).unwrap()
    }

    fn name(name: &str) -> HeaderName {
        name.parse().unwrap()
    }

    fn value(value: &str) -> HeaderValue {
        value.parse().unwrap()
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 7, 10, u64::MAX] {
            let mut fields = Fields::new();
            fields.set_number(&name("n"), number);
            assert_eq!(fields.get_str(&name("n")), Some(&*number.to_string()));
        }
    }

    #[test]
    fn lines_of_a_head_are_written_as_they_came() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\nAccept:1\r\nB: 2\r\nC: 3 \r\n\r\n";
        let mut fields = Fields::of_head(head, 4, 0);
        for (name, value) in [(16..20, 22..23), (25..31, 32..33), (35..36, 38..39)] {
            fields.note(name, value);
        }
        fields.note(41..42, 44..45);
        fields.set(&name("new"), &value("4"));
        assert_eq!(
            shown(&fields),
            "Host: x\r\nAccept: 1\r\nB: 2\r\nC: 3\r\nnew: 4\r\n"
        );
        assert_eq!(fields.get_str(&name("ACCEPT")), Some("1"));
        let mut out = BytesMut::new();
        fields.write(&mut out, |name, _| name != b"B");
        assert_eq!(&out[..], b"Host: x\r\nAccept: 1\r\nC: 3\r\nnew: 4\r\n");
    }

    proptest! {
        /// Beside a map, which does the same with hashes.
        #[test]
        fn edits_do_what_they_do_to_a_map(
            edits in proptest::collection::vec((0_u8..5, "[a-cA-C]{1,2}", "[a-z]{0,3}"), 0..24),
        ) {
            let (mut fields, mut map) = (Fields::new(), HeaderMap::new());
            for (edit, name, value) in &edits {
                let name: HeaderName = name.parse().unwrap();
                let value: HeaderValue = value.parse().unwrap();
                match edit {
                    0 | 1 => {
                        fields.append(&name, &value);
                        map.append(name, value);
                    }
                    2 => {
                        fields.set(&name, &value);
                        map.insert(name, value);
                    }
                    3 => {
                        fields.set_all(&[(&name, &value)].into_iter().collect());
                        map.insert(name, value);
                    }
                    _ => {
                        fields.remove(&name);
                        map.remove(&name);
                    }
                }
            }
            prop_assert_eq!(fields.len(), map.len());
            prop_assert_eq!(fields.to_map(), map.clone());
            for name in map.keys() {
                let found: Vec<_> = fields.get_all(name).collect();
                let expected: Vec<_> = map.get_all(name).iter().map(HeaderValue::as_bytes).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
