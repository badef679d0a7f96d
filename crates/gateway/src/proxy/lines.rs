//! Header lines of a response on its way to the client.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Header lines, in order. A response has few of them, and most go through unread: finding one by
/// looking at all costs less than hashing each.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<(HeaderName, HeaderValue)>);

impl Lines {
    /// No lines, with room for some.
    pub(crate) fn with_capacity(lines: usize) -> Lines {
        Lines(Vec::with_capacity(lines))
    }

    /// The first line of this name.
    pub(crate) fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
    }

    /// Adds a line.
    pub(crate) fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Makes this the only line of its name.
    pub(crate) fn set(&mut self, name: HeaderName, value: HeaderValue) {
        match self.0.iter().position(|(found, _)| *found == name) {
            None => self.0.push((name, value)),
            Some(first) => {
                self.0[first].1 = value;
                let mut at = 0;
                self.0.retain(|(found, _)| {
                    at += 1;
                    at <= first + 1 || *found != name
                });
            }
        }
    }

    /// Takes all lines of this name away.
    pub(crate) fn remove(&mut self, name: &HeaderName) {
        self.0.retain(|(found, _)| found != name);
    }

    /// The lines, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(HeaderName, HeaderValue)> {
        self.0.iter()
    }

    /// The same lines for whoever looks names up.
    pub(crate) fn into_map(self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.0.len());
        for (name, value) in self.0 {
            map.append(name, value);
        }
        map
    }

    /// The lines of a map.
    pub(crate) fn from_map(map: &HeaderMap) -> Lines {
        Lines(
            map.iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        )
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
        lines.set(a.clone(), value("5"));
        assert_eq!(shown(&lines), "a=5 b=2 b=4 ");
        lines.remove(&b);
        lines.set(b, value("6"));
        assert_eq!(shown(&lines), "a=5 b=6 ");
        assert_eq!(shown(&Lines::from_map(&lines.into_map())), "a=5 b=6 ");
    }
}
