//! Where in the index an expression belongs: what must hold for a request to have any chance.
//!
//! The index only narrows: whatever it offers is evaluated as a whole. So these are conditions
//! that follow from the expression, and everything that is not seen to follow is left out.

use sallyport_model::expression::{Check, Expression, Field, Test, TextOperator};

use super::bucket::HostKey;
use super::pattern::literal_prefix;

/// Places of one expression; it is entered under each host together with each path.
const PLACES_MAX: usize = 64;

/// The hosts and the path prefixes under which an expression can be found; an empty prefix for
/// any path.
pub(super) fn places(expression: &Expression) -> (Vec<HostKey>, Vec<String>) {
    let hosts = required(expression, &host).unwrap_or_else(|| vec![HostKey::Any]);
    let paths = required(expression, &path).unwrap_or_else(|| vec![String::new()]);
    match (hosts.len(), paths.len()) {
        (h, p) if h * p <= PLACES_MAX => (hosts, paths),
        (h, _) if h <= PLACES_MAX => (hosts, vec![String::new()]),
        (_, p) if p <= PLACES_MAX => (vec![HostKey::Any], paths),
        _ => (vec![HostKey::Any], vec![String::new()]),
    }
}

/// Keys one of which every request has that the expression holds for; `None` if unknown.
fn required<K: PartialEq>(
    expression: &Expression,
    key: &dyn Fn(&Test) -> Option<K>,
) -> Option<Vec<K>> {
    match expression {
        Expression::Test(test) => key(test).map(|key| vec![key]),
        Expression::Not(_) => None,
        Expression::All(parts) => parts
            .iter()
            .filter_map(|part| required(part, key))
            .min_by_key(Vec::len),
        Expression::Any(parts) => {
            let mut all = Vec::new();
            for part in parts {
                for key in required(part, key)? {
                    if !all.contains(&key) {
                        all.push(key);
                    }
                }
            }
            Some(all)
        }
    }
}

fn host(test: &Test) -> Option<HostKey> {
    let (Field::Host, Check::Text(operator, text)) = (&test.field, &test.check) else {
        return None;
    };
    match operator {
        TextOperator::Equal => Some(HostKey::Exact(text.as_str().into())),
        TextOperator::Suffix if text.starts_with('.') => {
            Some(HostKey::Suffix(text.as_str().into()))
        }
        TextOperator::Prefix if text.ends_with('.') => Some(HostKey::Prefix(text.as_str().into())),
        _ => None,
    }
}

fn path(test: &Test) -> Option<String> {
    if test.field != Field::Path || test.lower {
        return None;
    }
    match &test.check {
        Check::Text(TextOperator::Equal | TextOperator::Prefix, text) => Some(text.clone()),
        Check::Regex(regex) => literal_prefix(regex).filter(|prefix| !prefix.is_empty()),
        _ => None,
    }
}
