//! Headers as routes see them: the one place that knows how a request keeps them.

use std::borrow::Cow;

use http::HeaderName;
use regex::Regex;
use sallyport_model::expression::HeaderField;
use sallyport_plugins::Fields;

use super::pattern::{PatternError, build};

/// The lines of a header, in the first of its spellings that the request has.
pub(super) fn lines<'a, 'n>(
    headers: &'a Fields,
    field: &'n HeaderField,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    let name = match &field.dashed {
        Some(dashed) if !headers.contains(&field.underscored) => dashed,
        _ => &field.underscored,
    };
    headers.get_all(name)
}

/// Text of a header line; what is not UTF-8 is replaced.
pub(super) fn text(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line)
}

/// A header that must have one of some values.
#[derive(Debug)]
pub(super) struct HeaderRule {
    field: HeaderField,
    /// As configured, if it mixes dashes and underscores.
    mixed: Option<HeaderName>,
    values: Vec<ValueRule>,
}

#[derive(Debug)]
enum ValueRule {
    /// Lower case.
    Exact(String),
    Regex(Regex),
}

impl HeaderRule {
    pub(super) fn new(name: &str, values: &[String]) -> Result<HeaderRule, PatternError> {
        let bad_name = || PatternError::HeaderName {
            name: name.to_owned(),
        };
        let value = |value: &String| match value.strip_prefix("~*") {
            None => Ok(ValueRule::Exact(value.to_lowercase())),
            Some(pattern) => build(pattern, true)
                .map(ValueRule::Regex)
                .map_err(|reason| PatternError::HeaderValue {
                    name: name.to_owned(),
                    pattern: value.clone(),
                    reason,
                }),
        };
        let given = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad_name())?;
        let mixed = name.contains('-') && name.contains('_');
        Ok(HeaderRule {
            field: HeaderField::new(name).ok_or_else(bad_name)?,
            mixed: mixed.then_some(given),
            values: values.iter().map(value).collect::<Result<_, _>>()?,
        })
    }

    /// Whether any line of the header has any of the values.
    pub(super) fn matches(&self, headers: &Fields) -> bool {
        lines(headers, &self.field).any(|line| self.accepts(line))
            || (self.mixed.as_ref())
                .is_some_and(|name| headers.get_all(name).any(|line| self.accepts(line)))
    }

    fn accepts(&self, line: &[u8]) -> bool {
        self.values.iter().any(|value| match value {
            ValueRule::Exact(want) if line.is_ascii() => line.eq_ignore_ascii_case(want.as_bytes()),
            ValueRule::Exact(want) => *want == text(line).to_lowercase(),
            ValueRule::Regex(regex) => regex.is_match(&text(line)),
        })
    }
}
