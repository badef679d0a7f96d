//! Arguments as queries and forms carry them: `a=1&b&c=%20`.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stays as it is; like nginx's `ngx.encode_args`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Arguments in order, decoded. A name may come several times, and without a value. What is not
/// edited is written as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<Param>);

#[derive(Clone, Debug)]
struct Param {
    name: String,
    value: Option<String>,
    /// As it came, until it is edited.
    raw: Option<String>,
}

impl Params {
    /// Reads a query or a form.
    pub(crate) fn parse(text: &str) -> Params {
        let argument = |raw: &str| {
            let (name, value) = match raw.split_once('=') {
                Some((name, value)) => (decode(name), Some(decode(value))),
                None => (decode(raw), None),
            };
            Param {
                name,
                value,
                raw: Some(raw.to_owned()),
            }
        };
        let arguments = text.split('&').filter(|argument| !argument.is_empty());
        Params(
            arguments
                .map(argument)
                .filter(|argument| !argument.name.is_empty())
                .collect(),
        )
    }

    /// The arguments as text again, percent-encoded.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        for Param { name, value, raw } in &self.0 {
            if !text.is_empty() {
                text.push('&');
            }
            if let Some(raw) = raw {
                text.push_str(raw);
                continue;
            }
            text.extend(utf8_percent_encode(name, ESCAPED));
            if let Some(value) = value {
                text.push('=');
                text.extend(utf8_percent_encode(value, ESCAPED));
            }
        }
        text
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| known.name == name)
    }

    /// The first value of this name: `true` where it has none, as Kong's templates show it.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|param| param.name == name).count()
    }

    /// The value of the first argument of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|known| known.name == name)?;
        Some(found.value.as_deref().unwrap_or("true"))
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|known| known.name != name);
    }

    /// Gives all arguments of one name another, whose own are dropped.
    pub(crate) fn rename(&mut self, old: &str, new: &str) {
        if old == new || !self.contains(old) {
            return;
        }
        self.remove(new);
        for known in self.0.iter_mut().filter(|known| known.name == old) {
            new.clone_into(&mut known.name);
            known.raw = None;
        }
    }

    /// Makes this the only argument of its name, in the place of the first, if there is one.
    pub(crate) fn replace(&mut self, name: &str, value: String) {
        let Some(at) = self.0.iter().position(|known| known.name == name) else {
            return;
        };
        self.0[at].value = Some(value);
        self.0[at].raw = None;
        let mut first = true;
        self.0
            .retain(|known| known.name != name || std::mem::take(&mut first));
    }

    pub(crate) fn append(&mut self, name: &str, value: String) {
        self.0.push(Param {
            name: name.to_owned(),
            value: Some(value),
            raw: None,
        });
    }

    /// Adds the arguments of another list behind its own.
    pub(crate) fn extend(&mut self, other: Params) {
        self.0.extend(other.0);
    }
}

fn decode(text: &str) -> String {
    let text: Cow<'_, str> = match text.contains('+') {
        true => text.replace('+', " ").into(),
        false => text.into(),
    };
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arguments_are_read_and_written() {
        let params = Params::parse("a=1&b&&c=%20x+y&a=2&=no&d=");
        assert_eq!(params.encode(), "a=1&b&c=%20x+y&a=2&d=");
        assert_eq!(params.get("b"), Some("true"));
        assert_eq!(params.get("c"), Some(" x y"));
        assert_eq!(params.get("e"), None);
    }

    #[test]
    fn edits_keep_the_order_of_the_rest() {
        let mut params = Params::parse("a=1&b=2&a=3&c=4");
        params.replace("a", "x".to_owned());
        params.replace("missing", "x".to_owned());
        assert_eq!(params.encode(), "a=x&b=2&c=4");
        params.rename("b", "c");
        assert_eq!(params.encode(), "a=x&c=2");
        params.remove("a");
        params.append("c", "5 &".to_owned());
        assert_eq!(params.encode(), "c=2&c=5%20%26");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(
            arguments in proptest::collection::vec(("\\PC{1,5}", "\\PC{0,5}"), 0..6),
        ) {
            let mut params = Params::default();
            for (name, value) in &arguments {
                params.append(name, value.clone());
            }
            let read = Params::parse(&params.encode());
            let read: Vec<_> = read.0.into_iter().map(|param| (param.name, param.value.unwrap())).collect();
            prop_assert_eq!(read, arguments);
        }

        #[test]
        fn anything_is_readable(text in "\\PC{0,40}") {
            let once = Params::parse(&text).encode();
            prop_assert_eq!(Params::parse(&once).encode(), once);
        }
    }
}
