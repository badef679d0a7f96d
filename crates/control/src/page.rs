//! Lists of the v3 APIs: `page[size]`, `page[number]` and filters on fields of what is shown.

use serde_json::{Value, json};

use crate::problem::Problem;

const SIZE: usize = 100;
const SIZE_MAX: usize = 1000;

/// Query arguments of a list without filters.
pub(crate) const PAGE: &[&str] = &["page[size]", "page[number]"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Equal,
    NotEqual,
    Contains,
    OneOf,
}

/// The parsed query of a list.
#[derive(Debug)]
pub(crate) struct List {
    number: usize,
    size: usize,
    filters: Vec<(String, Test, String)>,
}

impl List {
    /// Reads a query; `fields` can be filtered by. Anything unknown is an error that names it.
    pub(crate) fn parse(query: &[(String, String)], fields: &[&str]) -> Result<List, Problem> {
        let mut list = List {
            number: 1,
            size: SIZE,
            filters: Vec::new(),
        };
        for (argument, value) in query {
            let bounded = |max: usize| {
                let number = value.parse().ok();
                let number = number.filter(|number| (1..=max).contains(number));
                number.ok_or_else(|| Problem::invalid(argument, "is out of range"))
            };
            match argument.as_str() {
                "page[number]" => list.number = bounded(usize::MAX)?,
                "page[size]" => list.size = bounded(SIZE_MAX)?,
                _ => {
                    let (field, test) = filter(argument, fields)
                        .ok_or_else(|| Problem::invalid(argument, "is not a known argument"))?;
                    list.filters.push((field.to_owned(), test, value.clone()));
                }
            }
        }
        Ok(list)
    }

    /// The page of `all`, with how many there are.
    pub(crate) fn of(&self, all: Vec<Value>) -> Value {
        let found: Vec<Value> = all.into_iter().filter(|item| self.wants(item)).collect();
        let total = found.len();
        let skip = (self.number - 1).saturating_mul(self.size);
        let data: Vec<Value> = found.into_iter().skip(skip).take(self.size).collect();
        let page = json!({"number": self.number, "size": self.size, "total": total});
        json!({"data": data, "meta": {"page": page}})
    }

    fn wants(&self, item: &Value) -> bool {
        self.filters.iter().all(|(field, test, wanted)| {
            let has = match &item[field.as_str()] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match test {
                Test::Equal => has == *wanted,
                Test::NotEqual => has != *wanted,
                Test::Contains => has.to_lowercase().contains(&wanted.to_lowercase()),
                Test::OneOf => wanted.split(',').any(|one| one == has),
            }
        })
    }
}

/// The field and test of `filter[field][test]`; without a test it is equality.
fn filter<'a>(argument: &str, fields: &[&'a str]) -> Option<(&'a str, Test)> {
    let rest = argument.strip_prefix("filter[")?.strip_suffix(']')?;
    let (field, test) = rest.split_once("][").unwrap_or((rest, "eq"));
    let field = fields.iter().find(|known| **known == field)?;
    let test = match test {
        "eq" => Test::Equal,
        "neq" => Test::NotEqual,
        "contains" => Test::Contains,
        "oeq" => Test::OneOf,
        _ => return None,
    };
    Some((field, test))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &[(&str, &str)], expected: Option<&[u64]>) {
        let all = vec![
            json!({"id": 1, "name": "Ann", "active": true}),
            json!({"id": 2, "name": "Bob", "active": false}),
            json!({"id": 3, "name": "Anna", "active": true}),
        ];
        let query: Vec<(String, String)> = query
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let list = List::parse(&query, &["name", "active"]).ok();
        let ids = list.map(|list| {
            let data = list.of(all)["data"].take();
            let data = data.as_array().cloned().unwrap_or_default();
            data.iter()
                .filter_map(|item| item["id"].as_u64())
                .collect::<Vec<_>>()
        });
        assert_eq!(ids.as_deref(), expected, "{query:?}");
    }

    #[test]
    fn pages_and_filters() {
        check(&[], Some(&[1, 2, 3]));
        check(&[("page[size]", "2"), ("page[number]", "2")], Some(&[3]));
        check(&[("page[number]", "18446744073709551615")], Some(&[]));
        check(&[("filter[name]", "Ann")], Some(&[1]));
        check(&[("filter[name][contains]", "ann")], Some(&[1, 3]));
        check(&[("filter[name][neq]", "Ann")], Some(&[2, 3]));
        check(&[("filter[name][oeq]", "Ann,Bob")], Some(&[1, 2]));
        check(&[("filter[active]", "false")], Some(&[2]));
        for bad in [
            ("page[size]", "0"),
            ("page[size]", "1001"),
            ("page[number]", "x"),
            ("filter[other]", "x"),
            ("filter[name][like]", "x"),
            ("nmae", "x"),
        ] {
            check(&[bad], None);
        }
    }
}
