//! What makes a request the same as another: the key of a stored response.
//!
//! The bytes are Kong's, so `X-Cache-Key` is the same. Source: data-plane reference 7.17.

use std::collections::BTreeMap;

use http::{HeaderName, Uri, Version};
use percent_encoding::percent_decode;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::memory::Key;
use crate::fields::Fields;

/// The parts of a request that a key is made of.
pub(super) struct Keyed<'a> {
    pub(super) consumer: Option<Uuid>,
    pub(super) route: Option<Uuid>,
    pub(super) method: &'a str,
    pub(super) version: Version,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a Fields,
    /// Whether the case of the path makes no difference.
    pub(super) ignore_case: bool,
    /// The arguments that count; all if there are none.
    pub(super) vary_query_params: &'a [String],
    /// The headers that count.
    pub(super) vary_headers: &'a [(String, HeaderName)],
}

impl Keyed<'_> {
    /// The key of the request.
    pub(super) fn key(&self) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.text());
        hash.finalize().into()
    }

    fn text(&self) -> Vec<u8> {
        let prefix = match (self.consumer, self.route) {
            (Some(consumer), Some(route)) => format!("{consumer}:{route}"),
            (None, Some(route)) => route.to_string(),
            (_, None) => "default".to_owned(),
        };
        // the request line up to the query, so the version is in it where there is no query
        let mut line = format!("{} {}", self.method, self.uri.path());
        if self.uri.query().is_none() {
            line.push_str(match self.version {
                Version::HTTP_2 => " HTTP/2.0",
                Version::HTTP_10 => " HTTP/1.0",
                _ => " HTTP/1.1",
            });
        }
        if self.ignore_case {
            line.make_ascii_lowercase();
        }
        let mut text = format!("{prefix}|{}|{line}|", self.method).into_bytes();
        self.params(&mut text);
        text.push(b'|');
        let values = |(name, header): &(String, HeaderName)| {
            let values: Vec<Vec<u8>> = self.headers.get_all(header).map(<[u8]>::to_vec).collect();
            (!values.is_empty()).then(|| (name.clone().into_bytes(), values))
        };
        join(&mut text, self.vary_headers.iter().filter_map(values));
        text
    }

    fn params(&self, text: &mut Vec<u8>) {
        let mut params: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        let query = self.uri.query().unwrap_or_default();
        for argument in query.split('&').filter(|argument| !argument.is_empty()) {
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) => (decode(name), Some(decode(value))),
                None => (decode(argument), None),
            };
            let values = params.entry(name).or_default();
            // an argument without a value stands alone, and as `true` beside others
            values.push(value.unwrap_or_else(|| NO_VALUE.to_vec()));
        }
        if self.vary_query_params.is_empty() {
            return join(text, params.into_iter());
        }
        let wanted = |name: &String| {
            let name = name.clone().into_bytes();
            params.get(&name).map(|values| (name, values.clone()))
        };
        join(text, self.vary_query_params.iter().filter_map(wanted));
    }
}

/// Cannot come out of percent-decoding of UTF-8 text that means anything, so no value is taken for
/// it.
const NO_VALUE: &[u8] = b"\xff\xfe\xff";

fn join(text: &mut Vec<u8>, fields: impl Iterator<Item = (Vec<u8>, Vec<Vec<u8>>)>) {
    for (at, (name, mut values)) in fields.enumerate() {
        if at > 0 {
            text.push(b':');
        }
        text.extend_from_slice(&name);
        if values == [NO_VALUE] {
            continue;
        }
        for value in &mut values {
            if value == NO_VALUE {
                *value = b"true".to_vec();
            }
        }
        values.sort_unstable();
        text.push(b'=');
        text.extend_from_slice(&values.join(&b","[..]));
    }
}

fn decode(text: &str) -> Vec<u8> {
    percent_decode(text.replace('+', " ").as_bytes()).collect()
}

/// The key as `X-Cache-Key` shows it.
pub(super) fn hex(key: &Key) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    key.iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(uri: &str, vary: (&[&str], &[&str]), edit: fn(&mut Keyed<'_>), expected: &str) {
        let mut headers = Fields::new();
        for (name, value) in [("a", "2"), ("a", "1"), ("b", "3")] {
            headers.append(
                &HeaderName::from_static(name),
                &HeaderValue::from_static(value),
            );
        }
        let uri = uri.parse().unwrap();
        let params: Vec<String> = vary.0.iter().map(|&name| name.to_owned()).collect();
        let names = vary
            .1
            .iter()
            .map(|&name| (name.to_owned(), name.parse().unwrap()));
        let names: Vec<(String, HeaderName)> = names.collect();
        let mut keyed = Keyed {
            consumer: None,
            route: Some(Uuid::nil()),
            method: "GET",
            version: Version::HTTP_11,
            uri: &uri,
            headers: &headers,
            ignore_case: false,
            vary_query_params: &params,
            vary_headers: &names,
        };
        edit(&mut keyed);
        assert_eq!(String::from_utf8(keyed.text()).unwrap(), expected);
    }

    #[test]
    fn keys_are_made_of_what_kong_makes_them_of() {
        const NIL: &str = "00000000-0000-0000-0000-000000000000";
        let none: (&[&str], &[&str]) = (&[], &[]);
        let same: fn(&mut Keyed<'_>) = |_| ();
        let of = |rest: &str| format!("{NIL}|GET|GET /p{rest}");
        check("/p", none, same, &of(" HTTP/1.1||"));
        check("/p?b=2&a=2&a=1&c", none, same, &of("|a=1,2:b=2:c|"));
        check("/p?a=%20x&%61=+y", none, same, &of("|a= x, y|"));
        check("/p?b=2&a=1", (&["b", "z"], &[]), same, &of("|b=2|"));
        check("/p?", (&[], &["b", "A", "z"]), same, &of("||b=3:A=1,2"));
        let http2: fn(&mut Keyed<'_>) = |keyed| keyed.version = Version::HTTP_2;
        check("/p", none, http2, &of(" HTTP/2.0||"));
        let case: fn(&mut Keyed<'_>) = |keyed| keyed.ignore_case = true;
        check("/P?A=B", none, case, &format!("{NIL}|GET|get /p|A=B|"));
        let consumer: fn(&mut Keyed<'_>) = |keyed| keyed.consumer = Some(Uuid::nil());
        check("/p?", none, consumer, &format!("{NIL}:{NIL}|GET|GET /p||"));
        let global: fn(&mut Keyed<'_>) = |keyed| keyed.route = None;
        check("/p?", none, global, "default|GET|GET /p||");
    }

    #[test]
    fn keys_are_shown_in_hex() {
        let mut key = [0; 32];
        key[31] = 0xaf;
        assert_eq!(hex(&key), format!("{}af", "0".repeat(62)));
    }
}
