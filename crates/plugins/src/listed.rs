//! Header lines and arguments as logs and answers tell them: a JSON object of texts and lists.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use crate::fields::Fields;

/// Most arguments of a query that are told. Source: Kong's `lua_max_uri_args`.
const ARGUMENTS_MAX: usize = 100;

/// A value, or all of several under one name.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Listed {
    /// An argument without `=`.
    Bare(bool),
    One(String),
    All(Vec<Listed>),
}

impl Listed {
    fn add(self, more: Listed) -> Listed {
        match self {
            Listed::All(mut all) => {
                all.push(more);
                Listed::All(all)
            }
            one => Listed::All(vec![one, more]),
        }
    }
}

/// What becomes of the values of `Authorization` and `Proxy-Authorization`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secrets {
    /// `REDACTED` takes their place.
    Redacted,
    /// They are told as they came.
    Told,
}

/// Header lines by their names in lower case; several lines of a name as a list.
pub(crate) fn headers(fields: &Fields, secrets: Secrets) -> BTreeMap<String, Listed> {
    let mut all = BTreeMap::new();
    for (name, value) in fields.iter() {
        let name = name.to_ascii_lowercase();
        let secret = name == AUTHORIZATION.as_str() || name == PROXY_AUTHORIZATION.as_str();
        let value = match secret && secrets == Secrets::Redacted {
            true => "REDACTED".to_owned(),
            false => String::from_utf8_lossy(value).into_owned(),
        };
        insert(&mut all, name, Listed::One(value));
    }
    all
}

/// The arguments of a query or a form, decoded; no more than 100 of them, as Kong has it.
pub(crate) fn arguments(query: &str) -> BTreeMap<String, Listed> {
    let decoded = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    let mut all = BTreeMap::new();
    let parts = query.split('&').filter(|part| !part.is_empty());
    for part in parts.take(ARGUMENTS_MAX) {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name, Listed::One(decoded(value))),
            None => (part, Listed::Bare(true)),
        };
        insert(&mut all, decoded(name), value);
    }
    all
}

fn insert(all: &mut BTreeMap<String, Listed>, name: String, value: Listed) {
    let value = match all.remove(&name) {
        Some(earlier) => earlier.add(value),
        None => value,
    };
    all.insert(name, value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_query_breaks_an_entry(query in ".{0,200}") {
            let count: usize = arguments(&query).values().map(|value| match value {
                Listed::All(all) => all.len(),
                _ => 1,
            }).sum();
            prop_assert!(count <= ARGUMENTS_MAX);
        }
    }
}
