//! Header lines of a response on its way to the client.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Header lines, in order. A response has few of them, and most go through unread: finding one by
/// looking at all costs less than hashing each.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    all: Vec<(HeaderName, HeaderValue)>,
    /// A bit for each [`kind`] of name that may be there.
    kinds: u64,
}

/// One of 64 kinds of name; equal names are of one kind.
fn kind(name: &HeaderName) -> u64 {
    let name = name.as_str().as_bytes();
    let letter = name.get(name.len() / 2).copied().unwrap_or_default();
    1 << ((name.len() as u64 * 5 + u64::from(letter)) & 63)
}

impl Lines {
    /// No lines, with room for some.
    pub(crate) fn with_capacity(lines: usize) -> Lines {
        Lines {
            all: Vec::with_capacity(lines),
            kinds: 0,
        }
    }

    /// The first line of this name.
    pub(crate) fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        if self.kinds & kind(name) == 0 {
            return None;
        }
        self.all
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
    }

    /// Adds a line.
    pub(crate) fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.kinds |= kind(&name);
        self.all.push((name, value));
    }

    /// Makes this the only line of its name.
    pub(crate) fn set(&mut self, name: HeaderName, value: HeaderValue) {
        if self.kinds & kind(&name) != 0 {
            self.remove(&name);
        }
        self.append(name, value);
    }

    /// Takes all lines of this name away.
    pub(crate) fn remove(&mut self, name: &HeaderName) {
        self.all.retain(|(found, _)| found != name);
    }

    /// The lines, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.all.iter()
    }

    /// The same lines for whoever looks names up.
    pub(crate) fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.all.len());
        for (name, value) in self.all {
            map.append(name, value);
        }
        map
    }

    /// The lines of a map.
    pub(crate) fn from_map(map: &HeaderMap) -> Lines {
        let mut lines = Lines::with_capacity(map.len());
        for (name, value) in map {
            lines.append(name.clone(), value.clone());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &Lines) -> String {
        let line = |(name, value): &(HeaderName, HeaderValue)| {
            format!("{name}={} ", value.to_str().unwrap())
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_set_line_is_the_only_one_of_its_name() {
        let (a, b) = (HeaderName::from_static("a"), HeaderName::from_static("b"));
        let value = HeaderValue::from_static;
        let mut lines = Lines::with_capacity(4);
        for (name, text) in [(&a, "1"), (&b, "2"), (&a, "3"), (&b, "4")] {
            lines.append(name.clone(), value(text));
        }
        assert_eq!(shown(&lines), "a=1 b=2 a=3 b=4 ");
        lines.set(a, value("5"));
        assert_eq!(shown(&lines), "b=2 b=4 a=5 ");
        lines.remove(&b);
        lines.set(b, value("6"));
        assert_eq!(shown(&lines), "a=5 b=6 ");
        assert_eq!(shown(&Lines::from_map(&lines.into_map())), "a=5 b=6 ");
    }
}
