//! Whether an expression holds for a request or a connection. Semantics are those of Kong's
//! engine; the tests run both side by side.

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::percent_decode;
use regex::Regex;
use sallyport_model::expression::{Check, Expression, Field, NumberOperator, Test, TextOperator};

use super::headers;

/// What expressions can ask for; a field without a value fails every comparison.
pub(super) trait Facts {
    /// `net.protocol`
    fn protocol(&self) -> &str;
    /// `tls.sni`
    fn sni(&self) -> Option<&str>;
    /// `net.src.*`
    fn source(&self) -> (Option<IpAddr>, Option<u16>);
    /// `net.dst.*`
    fn destination(&self) -> (Option<IpAddr>, Option<u16>);
    /// `http.*`
    fn http(&self) -> Option<Http<'_>>;
}

/// `http.*`
#[derive(Clone, Copy)]
pub(super) struct Http<'a> {
    pub(super) method: &'a str,
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    /// Without the question mark.
    pub(super) query: &'a str,
    pub(super) headers: &'a sallyport_plugins::Fields,
}

/// What is kept of the comparisons that held, also in branches that failed as a whole.
pub(super) trait Record {
    /// A comparison with the path held; the bytes of the path it stands for.
    fn path(&mut self, bytes: usize);
    /// A regex matched this text.
    fn regex(&mut self, regex: &Regex, text: &str);
}

/// How much of the path the last comparison with it matched.
#[derive(Default)]
pub(super) struct PathBytes(pub(super) usize);

impl Record for PathBytes {
    fn path(&mut self, bytes: usize) {
        self.0 = bytes;
    }
    fn regex(&mut self, _: &Regex, _: &str) {}
}

/// Whether the expression holds.
pub(super) fn holds(expression: &Expression, facts: &impl Facts, record: &mut impl Record) -> bool {
    match expression {
        Expression::All(parts) => parts.iter().all(|part| holds(part, facts, record)),
        Expression::Any(parts) => parts.iter().any(|part| holds(part, facts, record)),
        Expression::Not(part) => !holds(part, facts, record),
        Expression::Test(test) => test_holds(test, facts, record),
    }
}

fn test_holds(test: &Test, facts: &impl Facts, record: &mut impl Record) -> bool {
    let (source, destination) = (|| facts.source(), || facts.destination());
    let http = facts.http();
    let one = |text: Option<&str>, record: &mut _| match text {
        Some(value) => text_holds(test, value, record),
        None => false,
    };
    match &test.field {
        Field::Protocol => one(Some(facts.protocol()), record),
        Field::Sni => one(facts.sni(), record),
        Field::Method => one(http.map(|http| http.method), record),
        Field::Host => one(http.map(|http| http.host), record),
        Field::Path => one(http.map(|http| http.path), record),
        Field::Segments { first, last } => one(
            http.and_then(|http| segments(http.path, *first, *last)),
            record,
        ),
        Field::SegmentCount => number_holds(
            &test.check,
            http.map(|http| segment_list(http.path).count() as i64),
        ),
        Field::Header(field) => http.is_some_and(|http| {
            let lines = headers::lines(http.headers, field);
            every_or_any(
                test.any,
                lines.map(|line| text_holds(test, &headers::text(line), record)),
            )
        }),
        Field::Query(name) => http.is_some_and(|http| {
            let values = query_values(http.query, name);
            every_or_any(
                test.any,
                values.map(|value| text_holds(test, &value, record)),
            )
        }),
        Field::SourceIp => address_holds(&test.check, source().0),
        Field::SourcePort => number_holds(&test.check, source().1.map(i64::from)),
        Field::DestinationIp => address_holds(&test.check, destination().0),
        Field::DestinationPort => number_holds(&test.check, destination().1.map(i64::from)),
    }
}

/// All, or any if that is wanted, and in both cases at least one.
fn every_or_any(any: bool, mut results: impl Iterator<Item = bool>) -> bool {
    match any {
        true => results.any(|holds| holds),
        false => results
            .next()
            .is_some_and(|first| first && results.all(|holds| holds)),
    }
}

fn text_holds(test: &Test, value: &str, record: &mut impl Record) -> bool {
    let lower = |value: &str| value.chars().any(|c| !c.is_lowercase() && !is_plain(c));
    let lowered = match test.lower && lower(value) {
        true => Cow::Owned(value.to_lowercase()),
        false => Cow::Borrowed(value),
    };
    let value = &*lowered;
    let mut matched = |holds: bool, bytes: usize| {
        if holds && test.field == Field::Path {
            record.path(bytes);
        }
        holds
    };
    match &test.check {
        Check::Text(operator, want) => match operator {
            TextOperator::Equal => matched(value == want, want.len()),
            TextOperator::NotEqual => value != want,
            TextOperator::Prefix => matched(value.starts_with(&**want), want.len()),
            TextOperator::Suffix => matched(value.ends_with(&**want), want.len()),
            TextOperator::Contains => value.contains(&**want),
        },
        Check::Regex(regex) => match regex.find(value) {
            None => false,
            Some(found) => {
                matched(true, found.len());
                record.regex(regex, value);
                true
            }
        },
        Check::Number(..) | Check::Address(..) | Check::Network(..) => false,
    }
}

/// Characters that have no case, as far as that is cheap to say.
fn is_plain(c: char) -> bool {
    c.is_ascii() && !c.is_ascii_uppercase()
}

fn number_holds(check: &Check, value: Option<i64>) -> bool {
    let (Check::Number(operator, want), Some(value)) = (check, value) else {
        return false;
    };
    match operator {
        NumberOperator::Equal => value == *want,
        NumberOperator::NotEqual => value != *want,
        NumberOperator::Greater => value > *want,
        NumberOperator::GreaterOrEqual => value >= *want,
        NumberOperator::Less => value < *want,
        NumberOperator::LessOrEqual => value <= *want,
    }
}

fn address_holds(check: &Check, value: Option<IpAddr>) -> bool {
    match (check, value) {
        (Check::Address(wanted, address), Some(value)) => (value == *address) == *wanted,
        (Check::Network(wanted, network), Some(value)) => network.contains(&value) == *wanted,
        _ => false,
    }
}

/// The segments of a path, without empty ones at its end.
fn segment_list(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.trim_end_matches('/');
    let none = path.is_empty();
    path.split('/').filter(move |_| !none)
}

/// The segments from `first` to `last` with the slashes between them; `None` if one is missing.
fn segments(path: &str, first: usize, last: usize) -> Option<&str> {
    let start = segment_list(path).nth(first)?;
    let end = segment_list(path).nth(last)?;
    let offset = |part: &str| part.as_ptr().addr() - path.as_ptr().addr();
    path.get(offset(start)..offset(end) + end.len())
}

/// The decoded values of an argument; one without `=` has the empty one.
fn query_values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = Cow<'a, str>> {
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!key.is_empty() && decoded(key) == name).then(|| decoded(value))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    let bytes: Vec<u8> = percent_decode(spaced.as_bytes()).collect();
    String::from_utf8_lossy(&bytes).into_owned().into()
}
